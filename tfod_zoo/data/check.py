"""What is wrong with a data set, found before a training run meets it: `check_data`."""

from __future__ import annotations

import functools
import hashlib
import itertools
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import tensorflow as tf
from google.protobuf.message import DecodeError

from tfod_zoo.config.label_map import LabelMap
from tfod_zoo.data.image_decoding import decode_rgb, or_else
from tfod_zoo.data.mixture import Source
from tfod_zoo.data.source import open_sources
from tfod_zoo.data.tf_example import UNKNOWN

ERROR, WARNING, NOTE = "error", "warning", "note"
_SEVERITIES = (ERROR, WARNING, NOTE)

TINY = 4  # pixels at the model's input: a box's side under one cell of the finest output (CenterNet's stride)
EXTREME_ASPECT = 10.0  # longer to shorter side
FEW_EXAMPLES = 10  # objects of a class
_EDGE = 1e-5  # float32 boxes end a few units in the last place beyond 1 (as in groundtruth.py)
_EXAMPLES = 3  # images named with a finding
_IMAGES_OF_A_FINDING = 12  # remembered for the contact sheet


@dataclass(frozen=True)
class Part:
    """One of the sources of a data set.

    Attributes:
      name: "train", "val", ...
      paths: `input_path`s of an input reader.
      label_map: its classes; None to take the integer labels as they are.
      max_boxes: the reader's max_number_of_boxes.
      num_keypoints: of an object in the records; None for as many as the label map numbers.
    """

    name: str
    paths: tuple[str, ...]
    label_map: LabelMap | None = None
    max_boxes: int = 100
    num_keypoints: int | None = None


@dataclass
class Finding:
    """One kind of thing that was found: how bad, what, how often, and in which images first: (part, record, name), part
    "" and record -1 for what is in no record."""

    severity: str
    what: str
    count: int = 0
    images: list[tuple[str, int, str]] = field(default_factory=list)

    def as_dict(self) -> dict[str, Any]:
        first = [{"part": part, "record": record, "image": name} for part, record, name in self.images]
        return {"severity": self.severity, "what": self.what, "count": self.count, "first": first}


@dataclass
class PartSummary:
    """What a part holds.

    Attributes:
      images: records, unreadable ones included. boxes: usable ones, by class.
      empty: images without a usable box.
      sizes: images by (height, width).
      keypoints: labelled keypoints, by (class, keypoint).
    """

    images: int = 0
    boxes: Counter[str] = field(default_factory=Counter)
    empty: int = 0
    sizes: Counter[tuple[int, int]] = field(default_factory=Counter)
    keypoints: Counter[tuple[str, str]] = field(default_factory=Counter)

    def as_dict(self) -> dict[str, Any]:
        return {
            "images": self.images,
            "boxes": dict(self.boxes),
            "images_without_boxes": self.empty,
            "sizes": {f"{width}x{height}": count for (height, width), count in self.sizes.most_common()},
            "keypoints": {f"{name}/{keypoint}": count for (name, keypoint), count in self.keypoints.items()},
        }


@dataclass
class DataReport:
    """What `check_data` found.

    Attributes:
      parts: summary by part.
      findings: worst first.
    """

    parts: dict[str, PartSummary] = field(default_factory=dict)
    findings: list[Finding] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        """Whether there is nothing that training would have to leave out."""
        return all(finding.severity != ERROR for finding in self.findings)

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "ok": self.ok,
            "parts": {name: part.as_dict() for name, part in self.parts.items()},
            "findings": [finding.as_dict() for finding in self.findings],
        }

    def lines(self) -> list[str]:
        """For a person: the parts, a table of classes, and a table of findings."""
        lines = []
        for name, part in self.parts.items():
            sizes = part.sizes.most_common()
            (height, width), common = sizes[0] if sizes else ((0, 0), 0)
            size = f"{width}x{height}" + (f" ({common} of them)" if len(sizes) > 1 else "")
            lines.append(
                f"{name}: {part.images} images, {sum(part.boxes.values())} boxes, {part.empty} images without, {size}"
            )
        classes = list(dict.fromkeys(name for part in self.parts.values() for name in part.boxes))
        lines += ["", *_table([
            ["class", *self.parts],
            *([name, *(str(part.boxes[name]) for part in self.parts.values())] for name in classes),
        ])]
        keypoints = list(dict.fromkeys(key for part in self.parts.values() for key in part.keypoints))
        if keypoints:
            lines += ["", *_table([
                ["keypoint", *(f"{name}, labelled" for name in self.parts)],
                *([f"{name} {keypoint}", *(_share(part, name, keypoint) for part in self.parts.values())]
                  for name, keypoint in keypoints),
            ])]
        rows = [
            [finding.severity, str(finding.count), finding.what,
             ", ".join(f"{part}: {name}" if part else name for part, _, name in finding.images[:_EXAMPLES])]
            for finding in self.findings
        ]
        return [*lines, "", *(_table([["", "count", "what", "first in"], *rows]) if rows else ["nothing to report"])]


def _share(part: PartSummary, name: str, keypoint: str) -> str:
    objects = part.boxes[name]
    return f"{100 * part.keypoints[name, keypoint] / objects:.0f} %" if objects else "-"


def _table(rows: list[list[str]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    numbers = {
        index for index, column in enumerate(zip(*rows[1:], strict=True))
        if all(cell.removesuffix(" %").isdigit() or cell == "-" for cell in column)
    }
    return [
        "  ".join(cell.rjust(width) if index in numbers else cell.ljust(width)
                  for index, (cell, width) in enumerate(zip(row, widths, strict=True))).rstrip()
        for row in rows
    ]


def check_data(
    parts: Sequence[Part],
    resizer: Any = None,
    known: Sequence[Finding] = (),
    on_progress: Callable[[int], None] = lambda done: None,
) -> DataReport:
    """Reads every record of a data set once and says what is wrong with it.

    Errors are what training leaves out: records and images that cannot be read, boxes that cannot be used, classes that
    the label map does not have. Warnings are what probably was not meant; notes are what to know.

    Args:
      parts: the sources.
      resizer: the model's ImageResizer message, to find boxes too small for it; None for an input of 512 pixels.
      known: what an import found already.
      on_progress: called after each image with the number of images done, over all parts.

    Raises:
      DataError: no data, a file that is not TFRecord or was cut off, or another number of keypoints than said.
    """
    checking = _Checking(resizer)
    done = 0
    for part in parts:
        checking.begin(part)
        for record in _read(part):
            checking.add(part, record)
            done += 1
            on_progress(done)
    checking.end(parts)
    findings = [*known, *checking.findings.values()]
    findings.sort(key=lambda one: (_SEVERITIES.index(one.severity), -one.count))
    return DataReport(checking.summaries, findings)


def count_images(parts: Sequence[Part]) -> int:
    """How many records `check_data` will read.

    Raises:
      DataError: as `check_data`.
    """
    return sum(source.num_records for part in parts for source in _open(part))


def read_images(part: Part, records: set[int]) -> Iterator[dict[str, Any]]:
    """Some records of a part, by index, in stored order: `index`, `image` uint8 `[h, w, 3]` (empty where it cannot be
    decoded), `name`, `boxes`, `classes` and, where the part has any, `keypoints`, all as they are written."""
    if records:
        wanted = tf.constant(sorted(records), tf.int64)
        yield from _read(part, lambda index, raw: tf.reduce_any(index == wanted), pixels=True)


def _open(part: Part) -> list[Source]:
    return open_sources(list(part.paths), part.label_map, 1, keypoints_of(part))


def keypoints_of(part: Part) -> int:
    """Keypoints of an object in the part's records."""
    if part.num_keypoints is not None:
        return part.num_keypoints
    items = part.label_map.items if part.label_map else ()
    return max((number + 1 for item in items for number, _ in item.keypoints), default=0)


def _read(part: Part, choose: Any = None, pixels: bool = False) -> Iterator[dict[str, Any]]:
    """Records as numpy, parsed and decoded side by side."""
    sources = _open(part)
    records = functools.reduce(lambda one, other: one.concatenate(other), [one.records(None) for one in sources])
    if choose is not None:
        records = records.filter(choose)
    read = functools.partial(_fields, source=sources[0], num_keypoints=keypoints_of(part), pixels=pixels)
    dataset = records.map(read, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True).prefetch(2)
    yield from dataset.as_numpy_iterator()


def _fields(index: tf.Tensor, raw: Any, *, source: Source, num_keypoints: int, pixels: bool) -> dict[str, tf.Tensor]:
    nothing = {
        "encoded": tf.constant(""), "source_id": tf.constant(""), "boxes": tf.zeros([0, 4]),
        "classes": tf.zeros([0], tf.int64), "weights": tf.zeros([0]), "is_crowd": tf.zeros([0], tf.bool),
        "area": tf.zeros([0]), **({"keypoints": tf.zeros([0, num_keypoints, 2])} if num_keypoints else {}),
        "parsed": tf.constant(False),
    }
    fields = or_else(lambda record: {**source.parse(record), "parsed": tf.constant(True)}, raw, nothing)
    image = or_else(decode_rgb, fields["encoded"], tf.zeros([0, 0, 3], tf.uint8))
    return {
        "index": index,
        "raw": raw if isinstance(raw, tf.Tensor) and raw.dtype == tf.string else tf.constant(b""),
        "name": fields["source_id"],
        "parsed": fields["parsed"],
        "encoded": fields["encoded"],
        "size": tf.shape(image)[:2],
        "boxes": fields["boxes"],
        "classes": fields["classes"],
        **({"keypoints": fields["keypoints"]} if num_keypoints else {}),
        **({"image": image} if pixels else {}),
    }


class _Checking:
    """Collects what is found, record by record."""

    def __init__(self, resizer: Any):
        self._resizer = resizer
        self.findings: dict[str, Finding] = {}
        self.summaries: dict[str, PartSummary] = {}
        self._pictures: dict[bytes, str] = {}  # digest -> the part that it was seen in first
        self._names: set[tuple[str, str]] = set()

    def begin(self, part: Part) -> None:
        summary = self.summaries[part.name] = PartSummary()
        if part.label_map:
            titles = [item.title for item in part.label_map.items if item.id > 0]
            summary.boxes.update(dict.fromkeys(titles, 0))
            for item in part.label_map.items:
                summary.keypoints.update({(item.title, label): 0 for _, label in sorted(item.keypoints)})

    def add(self, part: Part, record: dict[str, Any]) -> None:
        summary = self.summaries[part.name]
        summary.images += 1
        index = int(record["index"])
        name = record["name"].decode(errors="replace") or f"record {index}"

        def found(severity: str, what: str, count: int = 1) -> None:
            if count:
                self._note(severity, what, count, (part.name, index, name))

        if not record["parsed"]:
            found(ERROR, "records that are no tf.Example, or whose object lists differ in length")
            return
        if not record["size"].all():
            found(ERROR, "images that cannot be decoded")
            return
        height, width = (int(side) for side in record["size"])
        summary.sizes[height, width] += 1
        self._check_identity(part, record, name, found)
        example = _example(record["raw"])
        if _stated_size(example) not in (None, (height, width)):
            found(WARNING, "images whose stated image/height and image/width are not theirs: boxes may be off")
        usable = self._check_boxes(part, record, example, found)
        if not usable.any():
            summary.empty += 1
        boxes, classes = record["boxes"][usable], record["classes"][usable]
        names = [part.label_map.category_name(int(id)) if part.label_map else str(id) for id in classes]
        summary.boxes.update(names)
        found(WARNING, f"objects beyond max_number_of_boxes ({part.max_boxes}), which are left out",
              max(0, len(boxes) - part.max_boxes))
        rows = [(*np.round(box, 5).tolist(), int(id)) for box, id in zip(boxes, classes, strict=True)]
        found(WARNING, "boxes that another of the same class covers exactly", len(rows) - len(set(rows)))
        sides = (boxes[:, 2:] - boxes[:, :2]) * [height, width]
        if len(sides):
            scaled = sides * _scale(self._resizer, height, width)
            found(WARNING, f"boxes under {TINY} pixels high or wide at the model's input",
                  int((scaled.min(axis=1) < TINY).sum()))
            found(NOTE, f"boxes more than {EXTREME_ASPECT:g} times as long as they are wide",
                  int((sides.max(axis=1) > EXTREME_ASPECT * sides.min(axis=1)).sum()))
        if "keypoints" in record:
            self._check_keypoints(part, record["keypoints"][usable], classes, summary, found)

    def _note(self, severity: str, what: str, count: int, image: tuple[str, int, str]) -> None:
        finding = self.findings.setdefault(what, Finding(severity, what))
        finding.count += count
        if len(finding.images) < _IMAGES_OF_A_FINDING and image[1] >= 0:
            finding.images.append(image)

    def _check_identity(self, part: Part, record: dict, name: str, found: Callable[..., None]) -> None:
        digest = hashlib.sha256(record["encoded"]).digest()
        other = self._pictures.get(digest)
        self._pictures.setdefault(digest, part.name)
        if other == part.name:
            found(WARNING, f"images that are in {part.name} more than once")
        elif other:
            found(WARNING, f"images of {part.name} that are in {other} too: evaluation would flatter")
        if not record["name"]:
            found(WARNING, "images without a source_id or file name: evaluation tells images apart by it")
        elif (part.name, name) in self._names:
            found(WARNING, "images that share their source_id with another: evaluation mixes them up")
        self._names.add((part.name, name))

    def _check_boxes(self, part: Part, record: dict, example: Any, found: Callable[..., None]) -> np.ndarray:
        """Which objects can be used; each of the others counts under the first thing that is wrong with it."""
        boxes, classes = record["boxes"], record["classes"]
        left = np.ones(len(boxes), bool)

        def drop(mask: Any, what: str) -> None:
            nonlocal left
            found(ERROR, what, int((left & mask).sum()))
            left = left & ~mask

        drop(~np.isfinite(boxes).all(axis=1), "boxes with a coordinate that is not a number")
        boxes = np.where(left[:, None], boxes, 0.0)
        drop((boxes[:, 2:] < boxes[:, :2]).any(axis=1), "boxes whose minimum and maximum are swapped")
        drop((boxes[:, 2:] == boxes[:, :2]).any(axis=1), "boxes without area")
        clipped = np.clip(boxes, 0.0, 1.0)
        drop((clipped[:, 2:] <= clipped[:, :2]).any(axis=1), "boxes outside the image")
        ids = {item.id for item in part.label_map.items} if part.label_map else None
        unknown = classes < 1 if ids is None else ~np.isin(classes, [id for id in ids if id > 0])
        texts = list(example["image/object/class/text"].bytes_list.value) if example else []
        for row in np.flatnonzero(unknown & left):
            named = classes[row] == UNKNOWN and row < len(texts)
            what = f'class "{texts[row].decode(errors="replace")}"' if named else f"class id {int(classes[row])}"
            found(ERROR, f"objects of {what}, which the label map does not have")
        left = left & ~unknown
        found(NOTE, "boxes partly outside the image, which are clipped",
              int((left & (np.abs(clipped - boxes) > _EDGE).any(axis=1)).sum()))
        return left

    def _check_keypoints(
        self, part: Part, points: np.ndarray, classes: np.ndarray, summary: PartSummary, found: Callable[..., None]
    ) -> None:
        labelled = np.isfinite(points).all(axis=-1)
        away = labelled & ((points < -_EDGE) | (points > 1 + _EDGE)).any(axis=-1)
        found(WARNING, "keypoints outside the image, which are taken as not labelled", int(away.sum()))
        for item in part.label_map.items if part.label_map else ():
            rows = classes == item.id
            for number, label in item.keypoints:
                summary.keypoints[item.title, label] += int(labelled[rows, number].sum())

    def end(self, parts: Sequence[Part]) -> None:
        """What can be said only when all is read."""
        for number, part in enumerate(parts):
            summary, nowhere = self.summaries[part.name], (part.name, -1, "")
            if not sum(summary.boxes.values()):
                self._note(ERROR, f"{part.name} has no box that can be used", 1, nowhere)
                continue
            severity = NOTE if number else WARNING  # what is not in the first part cannot be learned
            for name, count in summary.boxes.items():
                if not count:
                    self._note(severity, f'class "{name}" has no example in {part.name}', 1, nowhere)
                elif count < FEW_EXAMPLES and not number:
                    self._note(NOTE, f'class "{name}" has only {count} examples in {part.name}', 1, nowhere)
            for (name, keypoint), count in summary.keypoints.items():
                if not count and summary.boxes[name]:
                    what = f'keypoint "{keypoint}" of "{name}" is never labelled in {part.name}'
                    self._note(severity, what, 1, nowhere)
            if summary.empty:
                self._note(NOTE, f"images of {part.name} without a box, which are negatives", summary.empty, nowhere)
            if part.label_map and part.label_map.gaps() and part.label_map.max_id < 2 * len(part.label_map.items):
                gaps = part.label_map.gaps()
                self._note(
                    NOTE, f"ids that no class has ({', '.join(map(str, itertools.islice(gaps, 5)))}...), outputs that "
                    "nothing trains", len(gaps), nowhere,
                )


def _example(raw: bytes) -> Any:
    """The fields of a serialized tf.Example; empty for a TFDS record."""
    try:
        return tf.train.Example.FromString(raw).features.feature
    except DecodeError:
        return {}


def _stated_size(example: Any) -> tuple[int, int] | None:
    values = [list(example[key].int64_list.value) for key in ("image/height", "image/width") if key in example]
    return (values[0][0], values[1][0]) if len(values) == 2 and all(values) else None


def _scale(resizer: Any, height: int, width: int) -> np.ndarray:
    """By what the model's resizer multiplies a box's height and width."""
    kind = resizer.WhichOneof("image_resizer_oneof") if resizer is not None else ""
    if kind == "fixed_shape_resizer":
        return np.array([resizer.fixed_shape_resizer.height / height, resizer.fixed_shape_resizer.width / width])
    low, high = 512, 512  # most of the zoo's inputs
    if kind == "keep_aspect_ratio_resizer":
        low, high = resizer.keep_aspect_ratio_resizer.min_dimension, resizer.keep_aspect_ratio_resizer.max_dimension
    scale = min(low / min(height, width), high / max(height, width))
    return np.array([scale, scale])
