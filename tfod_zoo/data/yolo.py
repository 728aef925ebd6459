"""Import of YOLO text annotations: a text file an image, a line an object: class number, cx, cy, width, height as
shares of the image's sides.

The label file of `.../images/.../a.jpg` is `.../labels/.../a.txt`, or lies beside the image. Class names stand in
data.yaml (`names`, a list or numbered), or one a line in classes.txt. Splits are data.yaml's train, val and test
(folders, or lists of files), or folders of those names.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tfod_zoo.data.boxed_images import Annotations, BoxedImage, NamedBox
from tfod_zoo.data.errors import DataError
from tfod_zoo.data.splits import by_folder
from tfod_zoo.pictures.reading import IMAGE_SUFFIXES

_SPLITS = ("train", "val", "test")
_BOX_VALUES = 5
_SMALLEST_POLYGON = 7  # a class and three points


def read_yolo(root: str | Path) -> Annotations:
    """The annotations of a YOLO data set, by split; "" where it has none.

    Polygons of segmentation sets become the boxes around them; keypoints of pose sets are left out, and that is noted.
    An image without a label file is one without objects, as YOLO takes it.

    Raises:
      DataError: no folder, no class names, no image, or no label file for any of them.
    """
    root = Path(root)
    folder = root if root.is_dir() else root.parent
    description = _describe(root)
    splits = _listed_splits(description, folder) or by_folder(_images_below(folder), folder)
    if not splits:
        raise DataError(f"{folder} has no images; YOLO data have them in images/, and text files in labels/.")
    reading = _Reading(folder, description)
    annotations = Annotations("YOLO", classes=description.names, dropped=reading.dropped)
    for split, paths in splits.items():
        annotations.splits[split] = [reading.image(path) for path in paths]
    if not reading.labelled:
        raise DataError(f"{folder} has no label file (labels/NAME.txt) for any of {annotations.num_images} images.")
    annotations.notes = reading.notes()
    return annotations


@dataclass
class _Description:
    """What data.yaml or classes.txt says: the file, class names by number, and the rest of data.yaml."""

    path: Path
    names: list[str]
    fields: dict[str, Any] = field(default_factory=dict)

    @property
    def values_a_keypoint(self) -> int:
        shape = self.fields.get("kpt_shape")
        return shape[1] if isinstance(shape, list) and len(shape) == 2 and shape[1] in (2, 3) else 0


def find_yaml(root: Path) -> Path | None:
    """The data set's description: ROOT itself, or a .yaml in it, if it has `names`."""
    candidates = [root] if root.is_file() else sorted([*root.glob("*.yaml"), *root.glob("*.yml")])
    return next((path for path in candidates if "names" in _yaml(path)), None)


def _find_classes_txt(root: Path) -> Path | None:
    """The list of class names that labelling tools leave beside the labels."""
    folders = (root, root / "labels", *(root / "labels" / split for split in _SPLITS))
    return next((path for folder in folders if (path := folder / "classes.txt").is_file()), None)


def _describe(root: Path) -> _Description:
    path = find_yaml(root)
    if path is not None:
        fields = _yaml(path)
        return _Description(path, _names(fields["names"], path), fields)
    listed = _find_classes_txt(root)
    if listed is None:
        raise DataError(f"{root} has neither a data.yaml with `names` nor a classes.txt; write one class name a line.")
    return _Description(listed, _names([line.strip() for line in _lines(listed) if line.strip()], listed))


def _yaml(path: Path) -> dict[str, Any]:
    """A description's fields; none where it is not YAML (which another format's file may be)."""
    import yaml

    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8-sig"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError):
        return {}
    return content if isinstance(content, dict) else {}


def _names(names: Any, path: Path) -> list[str]:
    """Class names in the order of their numbers, each once."""
    if isinstance(names, dict):
        if sorted(names) != list(range(len(names))):
            raise DataError(f"{path}: `names` must number the classes 0 to {len(names) - 1}; it has {sorted(names)}.")
        names = [names[number] for number in range(len(names))]
    if not isinstance(names, list) or not names or not all(str(name).strip() for name in names):
        raise DataError(f"{path}: `names` must list the class names; it is {str(names)[:80]!r}.")
    texts = [str(name).strip() for name in names]
    repeated = next((name for name in texts if texts.count(name) > 1), None)
    if repeated is not None:
        raise DataError(f'{path} has the class "{repeated}" twice; give each class its own name.')
    return texts


def _listed_splits(description: _Description, folder: Path) -> dict[str, list[Path]]:
    """The images of data.yaml's splits, where it names places that are there."""
    fields = description.fields
    base = description.path.parent
    stated = Path(str(fields.get("path") or "."))
    bases = [base / stated, base, folder]
    splits: dict[str, list[Path]] = {}
    for split in _SPLITS:
        places = fields.get(split) or (fields.get("valid") if split == "val" else None) or []
        images: dict[Path, None] = {}
        for place in places if isinstance(places, list) else [places]:
            for path in _resolve(str(place), bases):
                images.setdefault(path)
        if images:
            splits[split] = list(images)
    return splits


def _resolve(place: str, bases: list[Path]) -> list[Path]:
    """The images that data.yaml means by a place: a folder, or a list of files."""
    # Exports for notebooks say ../train/images where the folder lies beside data.yaml.
    inner = place
    while inner.startswith("../"):
        inner = inner[3:]
    for path in [base / text for text in (place, inner) for base in bases]:
        if path.is_dir():
            return list(_images_below(path))
        if path.is_file():
            names = [Path(line.strip()) for line in _lines(path) if line.strip()]
            return [name if name.is_absolute() else path.parent / name for name in names]
    return []


def _images_below(folder: Path) -> Iterator[Path]:
    return (path for path in sorted(folder.rglob("*")) if path.suffix.lower() in IMAGE_SUFFIXES)


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8-sig").splitlines()
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror}).") from error
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not a text file in UTF-8.") from error


class _Reading:
    """Reads label files and counts what they lack."""

    def __init__(self, folder: Path, description: _Description):
        self._folder, self._description = folder, description
        self.dropped: list[tuple[str, str]] = []
        self.labelled = 0
        self._unlabelled = self._polygons = self._poses = 0

    def notes(self) -> list[str]:
        counts = {
            "images without a label file taken as images without objects": self._unlabelled,
            "polygons taken as the boxes around them": self._polygons,
            "objects with keypoints, which are left out": self._poses,
        }
        return [f"{count} {what}" for what, count in counts.items() if count]

    def image(self, path: Path) -> BoxedImage:
        inside = path.is_relative_to(self._folder)
        name = str(path.relative_to(self._folder)) if inside else path.name
        labels = _label_file(path, self._folder)
        if labels is None:
            self._unlabelled += 1
            return BoxedImage(name, path)
        self.labelled += 1
        try:
            lines = _lines(labels)
        except DataError as error:
            return BoxedImage(name, path, problem=str(error))
        where = str(labels.relative_to(self._folder)) if labels.is_relative_to(self._folder) else labels.name
        numbered = [(number, line.split()) for number, line in enumerate(lines, 1) if line.strip()]
        boxes = [self._box(values, f"{where}, line {number}") for number, values in numbered]
        return BoxedImage(name, path, tuple(box for box in boxes if box))

    def _box(self, values: list[str], where: str) -> NamedBox | None:
        numbers = [_number(value) for value in values]
        count, each = len(numbers), self._description.values_a_keypoint
        pose = count > _BOX_VALUES and each and (count - _BOX_VALUES) % each == 0
        polygon = count >= _SMALLEST_POLYGON and count % 2 == 1 and not each
        if count != _BOX_VALUES and not pose and not polygon:
            self.dropped.append((f"in lines of {count} values, where YOLO has {_BOX_VALUES}", where))
            return None
        number, names = numbers[0], self._description.names
        if number not in range(len(names)):
            self.dropped.append((f"of class {values[0]}, which {self._description.path.name} does not name", where))
            return None
        if polygon:
            self._polygons += 1
            xs, ys = numbers[1::2], numbers[2::2]
            corners = (min(xs), min(ys), max(xs), max(ys))
            if not all(map(math.isfinite, numbers)):
                corners = (float("nan"),) * 4
        else:
            self._poses += bool(pose)
            x, y, width, height = numbers[1:_BOX_VALUES]
            corners = (x - width / 2, y - height / 2, x + width / 2, y + height / 2)
        return NamedBox(names[int(number)], corners, where, fractions=True)


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return float("nan")


def _label_file(image: Path, folder: Path) -> Path | None:
    parts = list(image.parts)
    candidates = [image.with_suffix(".txt"), folder / "labels" / f"{image.stem}.txt"]
    if "images" in parts:
        last = len(parts) - 1 - parts[::-1].index("images")
        candidates.insert(0, Path(*parts[:last], "labels", *parts[last + 1 :]).with_suffix(".txt"))
    return next((path for path in candidates if path.is_file()), None)
