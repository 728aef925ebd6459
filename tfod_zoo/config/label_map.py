"""Label maps: which id a class name has (spec: pipeline and training, 2)."""

import os
import re
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

from etils.epath import Path
from google.protobuf import text_format

from tfod_zoo.config import schema
from tfod_zoo.config.pipeline import read_text, write_text
from tfod_zoo.errors import ZooError

_MAPS = Path(str(files("tfod_zoo.config"))) / "label_maps"
# COCO's 80 classes under their ids 1 to 90.
COCO_LABEL_MAP = _MAPS / "coco.pbtxt"
# The same with the 17 keypoints of a person, as the keypoint models need.
PERSON_KEYPOINTS_LABEL_MAP = _MAPS / "person_keypoints.pbtxt"

_COCO_CLASSES = 90  # the zoo's models of boxes have COCO's ids 1 to 90
_PERSON = "/m/01g317"  # as the zoo's keypoint models call their class
# Where `finetune`, the importers and `export` leave a label map, seen from a model's folder.
_BESIDE_A_MODEL = ("label_map.pbtxt", "data/label_map.pbtxt", "../data/label_map.pbtxt")

BACKGROUND = "background"  # the only name that may have id 0


class LabelMapError(ZooError):
    """A label map that cannot be read, or that names classes ambiguously."""


@dataclass(frozen=True)
class LabelMapItem:
    """One class: its id (from 1), the name that records use, the name to show, and its keypoints as (id, label)."""

    id: int
    name: str
    display_name: str = ""
    keypoints: tuple[tuple[int, str], ...] = ()

    @property
    def title(self) -> str:
        """What a person calls it: the display name where there is one."""
        return self.display_name or self.name


@dataclass(frozen=True)
class LabelMap:
    """The classes of a data set, in the file's order; ids and names are unique."""

    items: tuple[LabelMapItem, ...]

    @property
    def max_id(self) -> int:
        """The largest id, which is the number of classes that a model needs."""
        return max((item.id for item in self.items), default=0)

    def id_of(self, text: str) -> int | None:
        """The id of a class by its name or display name; None where there is none."""
        for item in self.items:
            if text and text in (item.name, item.display_name):
                return item.id
        return None

    def category_name(self, id: int) -> str:
        """The name to show for an id; the id itself where the map has none."""
        return next((item.title for item in self.items if item.id == id), str(id))

    def categories(self) -> list[dict]:
        """COCO's category list: `id` and `name` of every class but background."""
        return [{"id": item.id, "name": item.title} for item in self.items if item.id > 0]

    def gaps(self) -> list[int]:
        """Ids from 1 to `max_id` that no class has; a model would learn an output for each that nothing ever trains."""
        present = {item.id for item in self.items}
        return [id for id in range(1, self.max_id + 1) if id not in present]


def read_label_map(path: str | os.PathLike, allow_gaps: bool = True) -> LabelMap:
    """Reads and checks a label map in text format (`item { id: 1 name: "cat" }`).

    Args:
      path: the file.
      allow_gaps: False for a data set of one's own, where a missing id is a slip; COCO's ids have gaps.

    Raises:
      LabelMapError: it cannot be read or parsed, has no class, repeats an id, a name or a keypoint, or has a negative
        id, a class 0 that is not background, or a gap that is not allowed; names the file and line.
    """
    text = read_text(path, "a label map (.pbtxt)", LabelMapError)
    message = schema.message_class("StringIntLabelMap")()
    try:
        text_format.Merge(text, message)
    except text_format.ParseError as error:
        line, _, what = str(error).partition(":")
        what = what.split(" : ", 1)[-1].strip().rstrip(".")
        raise LabelMapError(
            f'{path}, line {line}: {what}; a class is written as item {{ id: 1 name: "cat" }}.'
        ) from error
    lines = _item_lines(text)
    items: list[LabelMapItem] = []
    for index, entry in enumerate(message.item):
        where = f"{path}, line {lines[index]}" if index < len(lines) else f"{path}, item {index + 1}"
        items.append(_checked_item(entry, where, items))
    if not items:
        raise LabelMapError(f'{path} has no class; write one as item {{ id: 1 name: "cat" }}.')
    label_map = LabelMap(tuple(items))
    if not allow_gaps and label_map.gaps():
        missing = ", ".join(map(str, label_map.gaps()))
        raise LabelMapError(
            f"{path}: no class has id {missing}; number the classes from 1 to {len(items)} without gaps."
        )
    return label_map


def _item_lines(text: str) -> list[int]:
    return [
        i for i, line in enumerate(text.splitlines(), 1) for _ in re.findall(r"\bitem\s*:?\s*\{", line.split("#")[0])
    ]


def _checked_item(entry, where: str, before: list[LabelMapItem]) -> LabelMapItem:
    item = LabelMapItem(
        entry.id, entry.name, entry.display_name, tuple((keypoint.id, keypoint.label) for keypoint in entry.keypoints)
    )
    if not item.title:
        raise LabelMapError(f"{where}: the class with id {item.id} has no name; give it one.")
    if item.id < 0:
        raise LabelMapError(f'{where}: "{item.title}" has id {item.id}; ids start at 1.')
    if item.id == 0 and BACKGROUND not in (item.name, item.display_name):
        raise LabelMapError(f'{where}: "{item.title}" has id 0, which only background may have; ids start at 1.')
    for other in before:
        if other.id == item.id:
            raise LabelMapError(
                f'{where}: id {item.id} is used by "{other.title}" and "{item.title}"; give each its own.'
            )
        shared = {item.name, item.display_name} & {other.name, other.display_name} - {""}
        if shared:
            raise LabelMapError(
                f'{where}: "{min(shared)}" names ids {other.id} and {item.id}; give each class its own name.'
            )
    ids = [id for id, _ in item.keypoints]
    if len(set(ids)) < len(ids):
        repeated = next(id for id in ids if ids.count(id) > 1)
        raise LabelMapError(f'{where}: "{item.title}" has keypoint id {repeated} twice; give each keypoint its own.')
    return item


def find_label_map(pipeline: Any, folder: str | os.PathLike | None = None) -> Path | None:
    """The label map of a model: the one that its config's readers name, else one in its folder, else COCO's where the
    classes are those of the zoo's models; None where there is none of these.

    Args:
      pipeline: TrainEvalPipelineConfig message.
      folder: the training folder, export or unpacked archive that the config came from.
    """
    named = [reader.label_map_path for reader in (*pipeline.eval_input_reader, pipeline.train_input_reader)]
    places = [Path(path) for path in named if path]
    if folder is not None:
        places += [Path(folder) / place for place in _BESIDE_A_MODEL]
    for path in places:
        if path.is_file():
            return path
    network = getattr(pipeline.model, pipeline.model.WhichOneof("model"))
    if any(task.keypoint_class_name == _PERSON for task in getattr(network, "keypoint_estimation_task", ())):
        return PERSON_KEYPOINTS_LABEL_MAP
    return COCO_LABEL_MAP if network.num_classes == _COCO_CLASSES else None


def write_label_map(label_map: LabelMap, path: str | os.PathLike) -> None:
    """Writes a label map in text format, in one step.

    Raises:
      PipelineError: the file could not be written; an earlier one is unharmed.
    """
    message = schema.message_class("StringIntLabelMap")()
    for item in label_map.items:
        entry = message.item.add(name=item.name, id=item.id)
        if item.display_name:
            entry.display_name = item.display_name
        for id, label in item.keypoints:
            entry.keypoints.add(id=id, label=label)
    write_text(path, text_format.MessageToString(message))
