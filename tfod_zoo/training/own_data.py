"""A user's folder of images as records to train and to evaluate on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tfod_zoo.data.errors import DataError
from tfod_zoo.data.voc import import_voc

# Lists of ImageSets/Main, in the order in which they are preferred.
_TRAIN_LISTS, _EVAL_LISTS = ("train", "trainval"), ("val", "test")


@dataclass(frozen=True)
class OwnData:
    """A data set as records, ready for `generate_pipeline`; `description` is a line for the user."""

    description: str
    train_records: list[str]
    eval_records: list[str]
    label_map: Path


def import_folder(folder: Path, out: Path, on_progress: Callable[[int], None]) -> OwnData:
    """Imports a Pascal VOC folder.

    Args:
      folder: has Annotations/, JPEGImages/ and, in ImageSets/Main, a list to train on and one to evaluate on.
      out: folder that gets the records; created.
      on_progress: called with the number of images done.

    Raises:
      DataError: it is no such folder, or no image can be used.
    """
    lists = {path.stem for path in (folder / "ImageSets" / "Main").glob("*.txt")}
    train = next((name for name in _TRAIN_LISTS if name in lists), None)
    evaluation = next((name for name in _EVAL_LISTS if name in lists), None)
    if train is None or evaluation is None:
        raise DataError(
            f"{folder} is no Pascal VOC folder with lists to train and to evaluate on (ImageSets/Main/train.txt and "
            "val.txt or test.txt); bring other data with tfod-zoo data, then tfod-zoo config and tfod-zoo train."
        )
    report = import_voc(folder, [train, evaluation], out, on_progress=on_progress)
    lines = "\n  ".join(report.lines())
    return OwnData(f"{folder}: {lines}", [report.records[train]], [report.records[evaluation]], report.label_map)
