"""What a user's folder holds, and its import: Pascal VOC, COCO JSON, YOLO, CSV, or TFRecords with their label map.

The folder's own split into train, val and test is kept, by the lists, files and folders of those names; where it has
none, or nothing to evaluate on, images are divided by a hash of their names, so that each keeps its side when others
are added.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import tensorflow as tf
from google.protobuf.message import DecodeError

from tfod_zoo.config.label_map import LabelMap, LabelMapError, read_label_map
from tfod_zoo.data.boxed_images import Annotations, write_annotations
from tfod_zoo.data.coco_json import CocoAnnotations, import_coco, read_coco
from tfod_zoo.data.csv_boxes import is_box_csv, read_csv
from tfod_zoo.data.errors import DataError
from tfod_zoo.data.importing import ImportReport, some
from tfod_zoo.data.record_writer import write_shards
from tfod_zoo.data.source import count_records
from tfod_zoo.data.splits import VAL_SHARE, split_of_folders, split_of_name, train_and_val
from tfod_zoo.data.voc import read_voc, read_voc_files, voc_splits
from tfod_zoo.data.yolo import find_yaml, read_yolo
from tfod_zoo.pictures.reading import IMAGE_SUFFIXES

Progress = Callable[[int], None]

_RECORD_FILE = re.compile(r"\.(tfrecords?|record)(-\d+-of-\d+)?$|-\d{5}-of-\d{5}$")
_SHARD = re.compile(r"-\d{5}-of-(\d{5})")
# COCO publishes these beside its boxes; none of them has any.
_COCO_WITHOUT_BOXES = ("captions_", "stuff_", "panoptic_", "image_info_")
_JSON_LOOKED_AT = 1 << 20  # bytes from either end of a JSON file, to tell COCO's by its lists
_IMAGES_LOOKED_FOR = 20  # of a COCO file, to find the folder that its names are relative to


@dataclass(frozen=True)
class DataSet:
    """A data set as records, ready for `generate_pipeline`.

    Attributes:
      description: one line: the folder, the kind of data, images, boxes by class, and what was left out.
      train_records: globs to train on. eval_records: globs to evaluate on.
      label_map: its label map.
      report: everything that was found and left out.
    """

    description: str
    train_records: list[str]
    eval_records: list[str]
    label_map: Path
    report: ImportReport

    @property
    def num_keypoints(self) -> int:
        """Keypoints of all classes together, as the label map numbers them."""
        items = read_label_map(self.label_map).items
        return max((number + 1 for item in items for number, _ in item.keypoints), default=0)

    def as_dict(self) -> dict[str, Any]:
        """Records, label map, and what was found and left out, as plain JSON types."""
        report = self.report
        return {
            "source": report.source, "label_map": str(self.label_map), "train_records": self.train_records,
            "eval_records": self.eval_records, "images": report.images, "boxes": dict(report.boxes),
            "labelled_keypoints": report.keypoints, "boxes_dropped": dict(report.dropped),
            "boxes_clipped": report.clipped, "keypoint_lists_dropped": dict(report.keypoints_dropped),
            "images_skipped": dict(report.skipped), "images_turned": report.rotated, "notes": report.notes,
        }  # fmt: skip


@dataclass(frozen=True)
class FoundData:
    """What a folder holds, not imported yet.

    Attributes:
      folder: it.
      kind: "Pascal VOC", "COCO JSON", "YOLO", "CSV" or "TFRecord".
      num_images: in all splits.
      other_kinds: what else lies there and is not used.
    """

    folder: Path
    kind: str
    num_images: int
    other_kinds: tuple[str, ...] = ()
    _write: Callable[[Path, Progress], ImportReport] = field(default=lambda out, on_progress: ImportReport(""))

    def import_to(self, out: str | Path, on_progress: Progress = lambda done: None) -> DataSet:
        """Writes train, val and perhaps test records and `label_map.pbtxt` to a folder; TFRecords that are divided
        already stay where they are.

        Args:
          out: folder; created.
          on_progress: called with the number of images done.

        Raises:
          DataError: no image could be used, or `out` cannot be written.
        """
        report = self._write(Path(out), on_progress)
        roles: dict[str, list[str]] = {}
        for split, records in report.records.items():
            roles.setdefault(split_of_name(split), []).append(records)
        if self.other_kinds:
            report.notes.append(f"{self.folder} also holds {' and '.join(self.other_kinds)}; not used")
        folder = str(self.folder).rstrip("/")
        description = f"{folder}/: {report.line()}"
        return DataSet(description, roles["train"], roles.get("val") or roles["test"], report.label_map, report)


def find_data(folder: str | Path, val_share: float = VAL_SHARE, besides: str | Path | None = None) -> FoundData:
    """Recognises what a folder holds, and reads its annotations.

    Where there are several kinds, the first of TFRecord, COCO JSON, Pascal VOC, YOLO and CSV counts: records and COCO's
    say the most.

    Args:
      folder: at any depth below it.
      val_share: share of the images to evaluate on, where the folder does not say.
      besides: a folder below that is not looked at, such as where the import goes.

    Raises:
      DataError: nothing there is known, or what is there cannot be read.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise DataError(f"{folder} is no folder; give the one that holds images and annotations.")
    if not 0 < val_share < 1:
        raise DataError(f"{val_share} of the images cannot be for evaluation; give a share between 0 and 1.")
    files = list(_files(folder, Path(besides).absolute() if besides else None))
    there = {kind: found for kind, find in _KINDS.items() if (found := find(folder, files))}
    if not there:
        images = sum(file.suffix.lower() in IMAGE_SUFFIXES for file in files)
        raise DataError(
            f"{folder} has {images} images and no annotations that are known: Pascal VOC (*.xml), COCO JSON, YOLO "
            "(data.yaml or classes.txt, and labels/*.txt), CSV with a box a line, or TFRecords with a label map."
        )
    kind, *others = there
    data = _READERS[kind](folder, there[kind], files, val_share)
    return replace(data, other_kinds=tuple(others))


def _files(folder: Path, besides: Path | None) -> Iterator[Path]:
    for here, folders, names in os.walk(folder):
        folders[:] = sorted(
            name for name in folders if not name.startswith(".") and (Path(here) / name).absolute() != besides
        )
        yield from (Path(here) / name for name in sorted(names) if not name.startswith("."))


# --- What is there: the files that make it so. ---


def _record_files(folder: Path, files: list[Path]) -> list[Path]:
    return [file for file in files if _RECORD_FILE.search(file.name)]


def _coco_files(folder: Path, files: list[Path]) -> list[Path]:
    found = [file for file in files if file.suffix.lower() == ".json" and _looks_like_coco(file)]
    found = [file for file in found if not file.name.startswith(_COCO_WITHOUT_BOXES)]
    # Of COCO's own files, instances_* have the boxes of all classes; persons' keypoints are added to them.
    instances = [file for file in found if file.name.startswith("instances_")]
    return instances or found


def _looks_like_coco(file: Path) -> bool:
    with file.open("rb") as stream:
        text = stream.read(_JSON_LOOKED_AT)
        stream.seek(max(0, file.stat().st_size - _JSON_LOOKED_AT))
        text += stream.read()
    return sum(name in text for name in (b'"images"', b'"annotations"', b'"categories"')) >= 2


def _voc_files(folder: Path, files: list[Path]) -> list[Path]:
    found = [file for file in files if file.suffix.lower() == ".xml"]
    return found if any(b"<annotation" in file.read_bytes()[:4096] for file in found[:3]) else []


def _yolo_files(folder: Path, files: list[Path]) -> list[Path]:
    described = [file for file in files if file.suffix in (".yaml", ".yml") and find_yaml(file)]
    described = described or [file for file in files if file.name == "classes.txt"]
    return sorted(described, key=lambda file: len(file.parts))


def _csv_files(folder: Path, files: list[Path]) -> list[Path]:
    return [file for file in files if file.suffix.lower() == ".csv" and is_box_csv(file)]


_KINDS: dict[str, Callable[[Path, list[Path]], list[Path]]] = {
    "TFRecord": _record_files,
    "COCO JSON": _coco_files,
    "Pascal VOC": _voc_files,
    "YOLO": _yolo_files,
    "CSV": _csv_files,
}


# --- Reading each kind. ---


def _from_annotations(folder: Path, annotations: Annotations, val_share: float) -> FoundData:
    annotations.splits = _with_evaluation(annotations.splits, lambda image: image.name, val_share, annotations.notes)

    def write(out: Path, on_progress: Progress) -> ImportReport:
        return write_annotations(annotations, out, on_progress=on_progress)

    return FoundData(folder, annotations.source, annotations.num_images, _write=write)


def _with_evaluation(splits: dict, name: Callable, val_share: float, notes: list[str]) -> dict:
    """Splits under the names train, val and test, with something to train and something to evaluate on."""
    if "train" in splits and ("val" in splits or "test" in splits):
        if "" in splits:
            notes.append(f"{len(splits[''])} images of no split are not used")
        return {split: splits[split] for split in ("train", "val", "test") if split in splits}
    items = [item for items in splits.values() for item in items]
    train, val = train_and_val(items, name, val_share)
    if not val:
        raise DataError(f"{len(items)} images cannot be divided into training and evaluation; there must be two.")
    notes.append(f"no split of its own: {len(val)} of {len(items)} images are for evaluation, by a hash of their names")
    return {"train": train, "val": val}


def _voc(folder: Path, xml_files: list[Path], files: list[Path], val_share: float) -> FoundData:
    roots = sorted({file.parent.parent for file in xml_files if file.parent.name == "Annotations"})
    lists = voc_splits(roots[0]) if len(roots) == 1 and (roots[0] / "JPEGImages").is_dir() else []
    if not lists:
        annotations = read_voc_files(xml_files, folder)
        images = annotations.splits.pop("")
        for image in images:
            split = split_of_folders(folder / image.name, folder)
            annotations.splits.setdefault(split, []).append(image)
        return _from_annotations(folder, annotations, val_share)
    if "train" in lists and "trainval" in lists:
        lists.remove("trainval")
    annotations = read_voc(roots[0], lists)
    if "trainval" in lists:
        annotations.splits["train"] = annotations.splits.pop("trainval")
    return _from_annotations(folder, annotations, val_share)


def _yolo(folder: Path, described: list[Path], files: list[Path], val_share: float) -> FoundData:
    root = described[0]
    if root.name == "classes.txt":  # in the data set's folder, or among its labels
        root = next((above.parent for above in root.parents if above.name == "labels"), root.parent)
    return _from_annotations(folder, read_yolo(root), val_share)


def _csv(folder: Path, csv_files: list[Path], files: list[Path], val_share: float) -> FoundData:
    splits: dict[str, Path] = {}
    for file in csv_files:
        split = split_of_name(file.stem) or split_of_folders(file, folder)
        if split in splits:
            raise DataError(
                f"{splits[split]} and {file} are both of split {split or '(none)'}; name the files after train, val "
                "and test, or import them with `tfod-zoo data csv`."
            )
        splits[split] = file
    return _from_annotations(folder, read_csv(splits, folder), val_share)


def _coco(folder: Path, json_files: list[Path], files: list[Path], val_share: float) -> FoundData:
    parts: dict[str, tuple[CocoAnnotations, Path]] = {}
    notes: list[str] = []
    errors: list[DataError] = []
    for file in json_files:
        poses = file.with_name(file.name.replace("instances_", "person_keypoints_", 1))
        try:
            coco = read_coco(file, poses if poses != file and poses.exists() else None)
        except DataError as error:
            errors.append(error)
            continue
        split = split_of_name(file.stem) or split_of_folders(file, folder)
        if split in parts:
            raise DataError(
                f"{parts[split][0].path} and {file} are both of split {split or '(none)'}; name the files after train, "
                "val and test, or import them with `tfod-zoo data coco`."
            )
        parts[split] = coco, _image_folder(coco, folder, files)
    if not parts:
        raise errors[0]
    notes += [f"left out: {error}" for error in errors]
    if len(parts) > 1 and not ("train" in parts and ("val" in parts or "test" in parts)):
        names = ", ".join(str(coco.path) for coco, _ in parts.values())
        raise DataError(f"{names} are several COCO files without one named train and one val or test; name them so.")
    entries = {split: [(entry, coco, images) for entry in coco.images] for split, (coco, images) in parts.items()}
    splits = _with_evaluation(entries, lambda entry: entry[0]["file_name"], val_share, notes)

    def write(out: Path, on_progress: Progress) -> ImportReport:
        report = ImportReport("COCO JSON", label_map=out / "label_map.pbtxt", notes=list(notes))
        counted: list[CocoAnnotations] = []
        done = 0
        for split, entries in splits.items():
            coco, images = entries[0][1:]
            part = replace(coco, images=[entry for entry, *_ in entries])
            if coco in counted:  # what belongs to no image of the file counts once
                part = replace(part, dropped=Counter(), keypoints_dropped=Counter(), skipped=[])
            counted.append(coco)

            def show(count: int, before: int = done) -> None:
                on_progress(before + count)

            report.add(import_coco(part, images, out, split=split, on_progress=show))
            done += len(entries)
        return report

    return FoundData(folder, "COCO JSON", sum(map(len, splits.values())), _write=write)


def _image_folder(coco: CocoAnnotations, folder: Path, files: list[Path]) -> Path:
    """The folder that a COCO file's names are relative to: where the first of its images lie."""
    names = [entry["file_name"] for entry in coco.images[:_IMAGES_LOOKED_FOR]]
    for name in names:
        parts = Path(name).parts
        matching = [file for file in files if file.parts[-len(parts) :] == parts]
        # Images of several splits may have the same names; the split's own folder is named like the file.
        own = [file for file in matching if coco.default_split in file.parts or file.parent == coco.path.parent]
        for file in own or matching:
            return Path(*file.parts[: -len(parts)])
    raise DataError(f"{coco.path}: none of its images ({some(names, 3)}) lies below {folder}; put them there.")


def _records(folder: Path, record_files: list[Path], files: list[Path], val_share: float) -> FoundData:
    label_map_path = _label_map_among(files, folder)
    label_map = read_label_map(label_map_path)
    groups: dict[str, list[Path]] = {}
    for file in record_files:
        split = split_of_name(_SHARD.sub("", file.stem)) or split_of_folders(file, folder)
        groups.setdefault(split, []).append(file)
    counts = {split: sum(count_records(str(file)) for file in group) for split, group in groups.items()}
    divided = "train" in groups and ("val" in groups or "test" in groups)

    def write(out: Path, on_progress: Progress) -> ImportReport:
        report = ImportReport("TFRecord", label_map=label_map_path)
        if divided:
            done = 0
            for split in ("train", "val", "test"):
                if split not in groups:
                    continue
                for raw in _raw_records(groups[split]):
                    _count(raw, label_map, report)
                    done += 1
                    on_progress(done)
                report.images[split] = counts[split]
                report.records |= {f"{split}{n}" if n else split: g for n, g in enumerate(_globs(groups[split]))}
            if "" in groups:
                report.notes.append(f"{counts['']} records of no split are not used")
            return report
        everything = [file for group in groups.values() for file in group]
        names = [_record_name(raw, index) for index, raw in enumerate(_raw_records(everything))]
        splits = _with_evaluation({"": list(enumerate(names))}, lambda item: item[1], val_share, report.notes)
        for split, items in splits.items():
            chosen = {index for index, _ in items}
            done = 0 if split == "train" else len(splits["train"])

            def examples(chosen: set[int] = chosen, done: int = done) -> Iterator[bytes]:
                for index, raw in enumerate(_raw_records(everything)):
                    if index in chosen:
                        _count(raw, label_map, report)
                        yield raw
                        done += 1
                        on_progress(done)

            shards = max(1, len(items) // 2000)
            report.records[split] = write_shards(examples(), out, split, shards)
            report.images[split] = len(items)
        return report

    used = sum(counts[split] for split in counts if split or not divided)
    return FoundData(folder, "TFRecord", used, _write=write)


def _label_map_among(files: Sequence[Path], folder: Path) -> Path:
    found = []
    for file in files:
        if file.suffix in (".pbtxt", ".pbtext"):
            try:
                read_label_map(file)
            except LabelMapError:
                continue
            found.append(file)
    if len(found) != 1:
        what = f"{len(found)} label maps ({some([str(file) for file in found])})" if found else "no label map (*.pbtxt)"
        raise DataError(f"{folder} has TFRecords and {what}; it needs exactly one.")
    return found[0]


def _raw_records(files: Sequence[Path]) -> Iterator[bytes]:
    for raw in tf.data.TFRecordDataset([str(file) for file in files]):
        yield raw.numpy()


def _example(raw: bytes):
    try:
        return tf.train.Example.FromString(raw).features.feature
    except DecodeError:
        return {}


def _record_name(raw: bytes, index: int) -> str:
    fields = _example(raw)
    for key in ("image/filename", "image/source_id"):
        if key in fields and fields[key].bytes_list.value:
            return fields[key].bytes_list.value[0].decode(errors="replace")
    return str(index)


def _count(raw: bytes, label_map: LabelMap, report: ImportReport) -> None:
    """Counts a record's objects by class, as the input pipeline reads them: text wins over labels."""
    fields = _example(raw)
    titles = {name: item.title for item in label_map.items for name in (item.name, item.display_name) if name}
    by_id = {item.id: item.title for item in label_map.items}
    texts = list(fields["image/object/class/text"].bytes_list.value) if fields else []
    labels = list(fields["image/object/class/label"].int64_list.value) if fields else []
    found = [titles.get(text.decode(errors="replace")) for text in texts] or [by_id.get(label) for label in labels]
    report.boxes.update(title for title in found if title)


def _globs(files: Sequence[Path]) -> list[str]:
    """Short globs of shards, where they are named as such."""
    return list(dict.fromkeys(str(file.with_name(_SHARD.sub(r"-?????-of-\1", file.name))) for file in files))


_READERS: dict[str, Callable[[Path, list[Path], list[Path], float], FoundData]] = {
    "TFRecord": _records,
    "COCO JSON": _coco,
    "Pascal VOC": _voc,
    "YOLO": _yolo,
    "CSV": _csv,
}
