"""Import of CSV files with one box a line, as TFOD's tutorials and many labelling tools write them.

The columns are filename, width, height, class, xmin, ymin, xmax, ymax, in any order under a header that names them (or
a common synonym), width and height optional. Without a header three orders are known: those eight; filename, xmin,
ymin, xmax, ymax, class; and filename, class, xmin, ymin, xmax, ymax. A line with a file name alone is an image without
objects.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from tfod_zoo.data.boxed_images import Annotations, BoxedImage, NamedBox
from tfod_zoo.data.errors import DataError
from tfod_zoo.pictures.reading import IMAGE_SUFFIXES

_SIDES = ("xmin", "ymin", "xmax", "ymax")
_SYNONYMS = {
    "filename": ("filename", "file_name", "file", "image", "image_name", "image_path", "img", "path", "image_id",
                 "imageid"),
    "width": ("width", "image_width", "img_width"),
    "height": ("height", "image_height", "img_height"),
    "class": ("class", "class_name", "label", "label_name", "labelname", "category", "category_name", "name"),
    "xmin": ("xmin", "x_min", "x1", "left"),
    "ymin": ("ymin", "y_min", "y1", "top"),
    "xmax": ("xmax", "x_max", "x2", "right"),
    "ymax": ("ymax", "y_max", "y2", "bottom"),
}
_COLUMN = {synonym: name for name, synonyms in _SYNONYMS.items() for synonym in synonyms}
_NEEDED = ("filename", "class", *_SIDES)
_WITHOUT_HEADER = (
    ("filename", "width", "height", "class", *_SIDES),
    ("filename", *_SIDES, "class"),
    ("filename", "class", *_SIDES),
)
_ROWS_LOOKED_AT = 100  # for one with all values, to tell the order of columns without a header
_LAYOUT = ",".join(_WITHOUT_HEADER[0])


def read_csv(files: Mapping[str, str | Path], images: str | Path) -> Annotations:
    """The boxes of CSV files, by split; the classes of all of them, in alphabetical order.

    File names are looked for as they stand, relative to `images`, its folder of the split's name, or the CSV file where
    that lies in `images`; and else by their last part at any depth, for lists made on another machine. Coordinates that
    are all within 0 to 1 are taken as shares of the image's sides.

    Raises:
      DataError: a file cannot be read, or its columns are not known.
    """
    folder = Path(images)
    if not folder.is_dir():
        raise DataError(f"{folder} is no folder; give the one that holds the images.")
    found = _ImageFinder(folder)
    annotations = Annotations("CSV")
    classes: set[str] = set()
    for split, file in files.items():
        annotations.splits[split] = _read_file(Path(file), split, found, annotations)
        classes.update(box.class_name for image in annotations.splits[split] for box in image.boxes)
    annotations.classes = sorted(classes)
    if not classes:
        names = ", ".join(map(str, files.values()))
        raise DataError(f"{names} has no line with a class and a box; write {_LAYOUT} in each.")
    return annotations


def is_box_csv(path: Path) -> bool:
    """Whether a file has columns that `read_csv` knows."""
    try:
        _table(path)
    except DataError:
        return False
    return True


@dataclass(frozen=True)
class _Table:
    """A CSV file: its columns by name, and its lines as (number, values)."""

    columns: dict[str, int]
    rows: list[tuple[int, list[str]]]


def _table(path: Path) -> _Table:
    try:
        with path.open(encoding="utf-8-sig", newline="") as stream:
            delimiter = max(",;\t", key=stream.readline().count)
            stream.seek(0)
            reader = csv.reader(stream, delimiter=delimiter)
            rows = [(reader.line_num, [value.strip() for value in row]) for row in reader]
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror}); give a CSV file of boxes.") from error
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not a text file in UTF-8; save it as CSV in that encoding.") from error
    except csv.Error as error:
        raise DataError(f"{path}, line {reader.line_num}: this is not CSV ({error}); save the file as CSV.") from error
    rows = [(line, row) for line, row in rows if any(row)]
    if not rows:
        raise DataError(f"{path} is empty; write {_LAYOUT} in each line.")
    line, first = rows[0]
    columns: dict[str, int] = {}
    for index, title in enumerate(first):
        name = _COLUMN.get(title.lower().replace(" ", "_"))
        if name:
            columns.setdefault(name, index)
    if "filename" in columns and len(columns) > 1:
        missing = [name for name in _NEEDED if name not in columns]
        if missing:
            raise DataError(f"{path}, line {line}: the header has no column {', '.join(missing)}; name them so.")
        return _Table(columns, rows[1:])
    for order in _WITHOUT_HEADER:
        if any(_fits(row, order) for _, row in rows[:_ROWS_LOOKED_AT]):
            return _Table({name: index for index, name in enumerate(order)}, rows)
    raise DataError(f"{path}, line {line}: the columns are not known; write {_LAYOUT} as the first line, or in each.")


def _fits(row: list[str], order: tuple[str, ...]) -> bool:
    """Whether a line without a header can have this order: numbers where they belong, a name where the class does."""
    if len(row) != len(order):
        return False
    values = dict(zip(order, row, strict=True))
    numbers = all(math.isfinite(_number(values[name])) for name in values if name not in ("filename", "class"))
    return numbers and bool(values["filename"]) and bool(values["class"])


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return float("nan")


class _ImageFinder:
    """Finds image files by the names that lists give them."""

    def __init__(self, folder: Path):
        self._folder = folder
        self._by_name: dict[str, Path] | None = None

    def find(self, name: str, file: Path, split: str) -> Path | None:
        """The image that a line of `file`, of that split, names; None if there is none."""
        path = PurePosixPath(name.replace("\\", "/"))
        if not path.is_absolute() and ".." not in path.parts:
            near = [file.parent] if file.parent.is_relative_to(self._folder) else []
            for folder in (*near, self._folder, self._folder / split, self._folder / "images" / split):
                if (folder / path).is_file():
                    return folder / path
        if self._by_name is None:
            files = (file for file in sorted(self._folder.rglob("*")) if file.suffix.lower() in IMAGE_SUFFIXES)
            self._by_name = {}
            for file in files:
                self._by_name.setdefault(file.name, file)
                self._by_name.setdefault(file.stem, file)  # lists of image ids leave the suffix out
        return self._by_name.get(path.name)


def _read_file(path: Path, split: str, images: _ImageFinder, annotations: Annotations) -> list[BoxedImage]:
    table = _table(path)
    boxes: dict[str, list[NamedBox]] = {}
    sizes: dict[str, tuple[int, int]] = {}
    for line, row in table.rows:
        where = f"{path.name}, line {line}"
        # Negative images are often written with fewer commas.
        values = {name: row[index] if index < len(row) else "" for name, index in table.columns.items()}
        name = values["filename"]
        if not name:
            annotations.dropped.append(("in lines without a file name", where))
            continue
        of_image = boxes.setdefault(name, [])
        width, height = (_number(values.get(side, "")) for side in ("width", "height"))
        if 0 < width < math.inf and 0 < height < math.inf:
            sizes.setdefault(name, (round(height), round(width)))
        if not any(values[key] for key in ("class", *_SIDES)):
            continue  # an image without objects
        if not values["class"]:
            annotations.dropped.append(("in lines without a class", where))
            continue
        xmin, ymin, xmax, ymax = (_number(values[side]) for side in _SIDES)
        of_image.append(NamedBox(values["class"], (xmin, ymin, xmax, ymax), where))
    corners = [one for of_image in boxes.values() for box in of_image for one in box.corners if math.isfinite(one)]
    fractions = bool(corners) and max(corners) <= 1.0 and min(corners) >= 0.0
    if fractions:
        annotations.notes.append(f"{path.name}: coordinates are within 0 to 1, taken as shares of the image's sides")
    found = []
    for name, of_image in boxes.items():
        if fractions:
            of_image = [NamedBox(box.class_name, box.corners, box.where, fractions=True) for box in of_image]
        found.append(BoxedImage(name, images.find(name, path, split), tuple(of_image), sizes.get(name)))
    return found
