"""Import of Pascal VOC folders: images and XML annotations -> sharded TFRecords and a label map.

The layout is VOC's own: ROOT/{JPEGImages,Annotations,ImageSets/Main}.
"""

from __future__ import annotations

import io
import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from xml.etree import ElementTree

import tensorflow as tf
from PIL import Image, ImageOps, UnidentifiedImageError

from tfod_zoo.config.label_map import LabelMap, LabelMapItem, read_label_map, write_label_map
from tfod_zoo.data.errors import DataError
from tfod_zoo.data.record_writer import write_shards
from tfod_zoo.data.tf_example import ExampleObject, encode_example

_IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".gif")
_EXIF_ORIENTATION = 0x0112
_EXAMPLES_A_SHARD = 2000
_LISTED = 5  # files named in a report line before "and N more"


@dataclass
class ImportReport:
    """What an import wrote and what it left out.

    Attributes:
      images: written, by split.
      boxes: annotated, by class of the label map; `dropped` says how many of them were not written.
      dropped: objects left out, by reason.
      clipped: boxes cut at the image's border.
      skipped: images left out: file and reason.
      rotated: files whose EXIF orientation was applied to the pixels.
      records: glob of the files written, by split.
      label_map: the label map written.
    """

    images: dict[str, int] = field(default_factory=dict)
    boxes: Counter[str] = field(default_factory=Counter)
    dropped: Counter[str] = field(default_factory=Counter)
    clipped: int = 0
    skipped: list[tuple[str, str]] = field(default_factory=list)
    rotated: list[str] = field(default_factory=list)
    records: dict[str, str] = field(default_factory=dict)
    label_map: Path = Path()

    def lines(self) -> list[str]:
        """The report for a person."""
        total = sum(self.images.values())
        splits = ", ".join(f"{split} {count}" for split, count in self.images.items())
        boxes = ", ".join(f"{name} {count}" for name, count in self.boxes.most_common()) or "none"
        lines = [f"Pascal VOC, {total} images ({splits}), {len(self.boxes)} classes ({boxes})"]
        lines += [f"{count} boxes {reason} dropped" for reason, count in self.dropped.most_common()]
        if self.clipped:
            lines.append(f"{self.clipped} boxes partly outside the image clipped")
        if self.skipped:
            lines.append(f"{len(self.skipped)} images skipped: " + _some([f"{f} ({why})" for f, why in self.skipped]))
        if self.rotated:
            lines.append(f"{len(self.rotated)} images turned upright by their EXIF orientation: {_some(self.rotated)}")
        return lines


def _some(names: list[str]) -> str:
    more = len(names) - _LISTED
    return ", ".join(names[:_LISTED]) + (f" and {more} more" if more > 0 else "")


def import_voc(
    root: str | Path,
    split: str | Sequence[str],
    out: str | Path,
    label_map: str | Path | None = None,
    shards: int | None = None,
) -> ImportReport:
    """Writes `OUT/SPLIT-00000-of-0000N.tfrecord` for every split, and `OUT/label_map.pbtxt`.

    Objects without area, outside the image, with unreadable coordinates or of a class that is not in the label map are
    dropped and counted, boxes that reach beyond the image are clipped, images that cannot be decoded or have no
    annotation are skipped. Pixels are turned upright where EXIF says so (their boxes are taken to be drawn on the
    upright picture, as annotation tools show it); other image files are stored byte for byte.

    Args:
      root: the VOC folder.
      split: names in ImageSets/Main (several: a list, or joined by commas).
      out: folder to write to; created.
      label_map: ids to use; without it, or without one in OUT from an earlier import, the classes found get ids in
        alphabetical order, over all annotations of ROOT, so that every split gets the same.
      shards: files a split; default one for every 2000 images.

    Raises:
      DataError: not a VOC folder, no such split, no class found, or OUT cannot be written; nothing half-written stays.
    """
    root, out = Path(root), Path(out)
    splits = [name.strip() for name in split.split(",")] if isinstance(split, str) else list(split)
    names = {name: _split_images(root, name) for name in splits}
    if shards is not None and shards < 1:
        raise DataError(f"{shards} shards cannot hold a data set; give 1 or more.")
    report = ImportReport(label_map=out / "label_map.pbtxt")
    classes = _classes(root, Path(label_map) if label_map else None, report.label_map)
    for name, images in names.items():
        count = shards or max(1, math.ceil(len(images) / _EXAMPLES_A_SHARD))
        before = len(report.skipped)
        report.records[name] = write_shards(_examples(root, images, classes, report), out, name, count)
        report.images[name] = len(images) - (len(report.skipped) - before)
        if not report.images[name]:
            reasons = _some([reason for _, reason in report.skipped[before:]])
            raise DataError(f"{root}: no image of split {name} can be used ({reasons}); check the folder.")
    write_label_map(classes, report.label_map)
    return report


def _split_images(root: Path, split: str) -> list[str]:
    """Image names of a split, each once, in the file's order."""
    if not (root / "Annotations").is_dir() or not (root / "JPEGImages").is_dir():
        raise DataError(f"{root} is not a Pascal VOC folder: it needs JPEGImages/ and Annotations/.")
    path = root / "ImageSets" / "Main" / f"{split}.txt"
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except OSError as error:
        there = ", ".join(sorted(file.stem for file in path.parent.glob("*.txt"))) or "none"
        raise DataError(f"{path}: no split {split!r}; {root} has {there}.") from error
    # Class files ("cat_train.txt") carry 1, 0 or -1 in a second column; -1 says that the class is not in the image.
    images = dict.fromkeys(line.split()[0] for line in lines if line.strip() and line.split()[1:] != ["-1"])
    if not images:
        raise DataError(f"{path} names no image.")
    return list(images)


def _classes(root: Path, given: Path | None, written: Path) -> LabelMap:
    """The label map to use. One that an earlier import left rules too: every split needs the same ids."""
    if given is None and written.exists():
        given = written
    if given is not None:
        return read_label_map(given)
    found: set[str] = set()
    for path in sorted((root / "Annotations").glob("*.xml")):
        try:
            found.update(_text(item, "name") for item in ElementTree.parse(path).getroot().iter("object"))
        except (ElementTree.ParseError, OSError):
            continue  # its image is skipped, with the reason, if a split names it
    found.discard("")
    if not found:
        raise DataError(f"{root / 'Annotations'} has no object with a name; there is nothing to learn.")
    return LabelMap(tuple(LabelMapItem(id=number, name=name) for number, name in enumerate(sorted(found), 1)))


def _examples(root: Path, images: list[str], classes: LabelMap, report: ImportReport) -> Iterator[bytes]:
    for name in images:
        try:
            yield _example(root, name, classes, report)
        except _Skip as reason:
            report.skipped.append((name, str(reason)))


class _Skip(Exception):
    """Why an image is left out."""


def _example(root: Path, name: str, classes: LabelMap, report: ImportReport) -> bytes:
    path = _image_path(root, name)
    annotation = _annotation(root / "Annotations" / f"{name}.xml")
    try:
        encoded = path.read_bytes()
        height, width, encoded, image_format, rotated = _upright(encoded)
    except (OSError, UnidentifiedImageError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise _Skip(f"the image cannot be decoded: {error}") from error
    if rotated:
        report.rotated.append(path.name)
    objects = [_object(item, height, width, classes, report) for item in annotation.iter("object")]
    kept = [item for item in objects if item is not None]
    return encode_example(encoded, image_format, height, width, kept, filename=path.name, source_id=name)


def _image_path(root: Path, name: str) -> Path:
    for suffix in _IMAGE_SUFFIXES:
        for spelling in (suffix, suffix.upper()):
            path = root / "JPEGImages" / f"{name}{spelling}"
            if path.exists():
                return path
    raise _Skip("no image in JPEGImages")


def _annotation(path: Path) -> ElementTree.Element:
    try:
        return ElementTree.parse(path).getroot()
    except OSError as error:
        raise _Skip("no annotation") from error
    except ElementTree.ParseError as error:
        raise _Skip(f"the annotation is not XML: {error}") from error


def _upright(encoded: bytes) -> tuple[int, int, bytes, str, bool]:
    """Decodes an image file to prove that it can be, and applies its EXIF orientation.

    Returns:
      height, width, the bytes to store, their format, and whether they were turned.
    """
    with Image.open(io.BytesIO(encoded)) as image:
        image.load()
        image_format = (image.format or "").lower()
        if image.getexif().get(_EXIF_ORIENTATION, 1) in (0, 1):
            try:
                # PIL reads more than the input pipeline does; what only PIL reads is stored as PNG.
                tf.io.decode_image(encoded, channels=3, expand_animations=False)
                return image.height, image.width, encoded, image_format, False
            except tf.errors.InvalidArgumentError:
                return image.height, image.width, _png(image), "png", False
        upright = ImageOps.exif_transpose(image)
    return upright.height, upright.width, _png(upright), "png", True


def _png(image: Image.Image) -> bytes:
    """Lossless, so that turning an image costs no quality."""
    stream = io.BytesIO()
    image.convert("RGB").save(stream, "PNG")
    return stream.getvalue()


def _object(
    item: ElementTree.Element, height: int, width: int, classes: LabelMap, report: ImportReport
) -> ExampleObject | None:
    """An annotated object, or None if it cannot be used (counted in `report`)."""
    name = _text(item, "name")
    class_id = classes.id_of(name)
    if class_id is None:
        report.dropped[f"of class {name!r}, which the label map does not have"] += 1
        return None
    report.boxes[classes.category_name(class_id)] += 1
    try:
        xmin, ymin, xmax, ymax = (float(_text(item, f"bndbox/{side}")) for side in ("xmin", "ymin", "xmax", "ymax"))
    except ValueError:
        report.dropped["with a coordinate that is not a number"] += 1
        return None
    if not all(map(math.isfinite, (xmin, ymin, xmax, ymax))):
        report.dropped["with a coordinate that is not a number"] += 1
        return None
    if xmax <= xmin or ymax <= ymin:
        report.dropped["without area"] += 1
        return None
    # VOC counts pixels from 1, both ends included; TFOD divides the numbers as they are, and so do we, so that models
    # and records of both can be mixed. The shift is half a pixel to one pixel.
    clipped = [max(xmin, 0.0), max(ymin, 0.0), min(xmax, float(width)), min(ymax, float(height))]
    if clipped[2] <= clipped[0] or clipped[3] <= clipped[1]:
        report.dropped["outside the image"] += 1
        return None
    report.clipped += clipped != [xmin, ymin, xmax, ymax]
    xmin, ymin, xmax, ymax = clipped
    return ExampleObject(
        box=(ymin / height, xmin / width, ymax / height, xmax / width),
        class_text=name,
        class_id=class_id,
        area=(xmax - xmin) * (ymax - ymin),
        difficult=_text(item, "difficult") == "1",
    )


def _text(item: ElementTree.Element, path: str) -> str:
    return (item.findtext(path) or "").strip()
