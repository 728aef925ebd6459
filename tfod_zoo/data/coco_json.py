"""Import of COCO JSON annotations, of boxes and of keypoints: images -> sharded TFRecords and a label map."""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from collections.abc import Callable, Hashable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import Any

from tfod_zoo.config.label_map import COCO_LABEL_MAP, LabelMap, LabelMapItem, read_label_map, write_label_map
from tfod_zoo.data.errors import DataError
from tfod_zoo.data.importing import ImportReport, Skip, check_shards, read_image, some, usable_box, write_split
from tfod_zoo.data.tf_example import ExampleObject, Keypoint, encode_example

_VISIBILITIES = (0, 1, 2)  # COCO's: not labelled, labelled but hidden, visible
_SPLIT_NAME = re.compile(r"[\w.-]+")
_KIND = re.compile(r"^(instances|person_keypoints)_")  # what COCO's own file names begin with


@dataclass(frozen=True)
class Category:
    """A category of the file: its id there, its name, and the names of its keypoints in order."""

    id: int
    name: str
    keypoints: tuple[str, ...] = ()


@dataclass
class CocoAnnotations:
    """A COCO annotation file in memory, without segmentations.

    Attributes:
      path: the file.
      images: entries that can be looked for, each with an id of its own and a file name.
      objects: annotations by image id, as they stand in the file.
      categories: by their id in the file, in the order of the ids.
      skipped: entries of images left out: name and reason.
      dropped: annotations left out, by reason.
      keypoints_dropped: keypoint lists left out, by reason.
    """

    path: Path
    images: list[dict[str, Any]] = field(default_factory=list)
    objects: dict[Hashable, list[dict[str, Any]]] = field(default_factory=dict)
    categories: dict[int, Category] = field(default_factory=dict)
    skipped: list[tuple[str, str]] = field(default_factory=list)
    dropped: Counter[str] = field(default_factory=Counter)
    keypoints_dropped: Counter[str] = field(default_factory=Counter)

    @property
    def default_split(self) -> str:
        """A split's name from the file's: instances_val2017.json -> val2017."""
        return re.sub(r"[^\w.-]", "_", _KIND.sub("", self.path.stem))


def read_coco(annotations: str | Path, keypoints: str | Path | None = None) -> CocoAnnotations:
    """Reads and checks an annotation file (instances, or person_keypoints).

    Args:
      annotations: the file, with `images`, `annotations` and `categories`.
      keypoints: a second one about the same images, whose keypoints are added to the objects of the same id. COCO has
        its boxes of 80 classes in instances_*.json and persons' keypoints in person_keypoints_*.json; a model that
        finds both is evaluated on both.

    Raises:
      DataError: a file is no such JSON; the sentence has the place. Faults of single images and objects are counted.
    """
    path = Path(annotations)
    content = _load(path)
    coco = CocoAnnotations(path, categories=_categories(path, content["categories"]))
    for place, entry in enumerate(content["images"]):
        reason = _unusable(entry, coco)
        if reason:
            name = entry.get("file_name") if isinstance(entry, dict) else None
            coco.skipped.append((str(name or f"images[{place}]"), reason))
            continue
        coco.images.append(entry)
        coco.objects[entry["id"]] = []
    if not coco.images:
        reasons = f" that can be used ({some([f'{n}: {why}' for n, why in coco.skipped])})" if coco.skipped else ""
        raise DataError(f"{path} lists no images{reasons}; give a file whose `images` have an id and a file_name.")
    for entry in content["annotations"]:
        image = entry.get("image_id") if isinstance(entry, dict) else None
        if isinstance(image, Hashable) and image in coco.objects:
            coco.objects[image].append(entry)
        else:
            coco.dropped["of an image that the file does not list"] += 1
    if keypoints is not None:
        _add_keypoints(coco, Path(keypoints))
    return coco


def _load(path: Path) -> dict[str, Any]:
    """The file's content, its three lists proved to be lists."""
    try:
        with path.open(encoding="utf-8-sig") as stream:
            # Segmentations are most of a COCO file and nothing here needs them: dropped while parsing, they never
            # fill the memory.
            content = json.load(stream, object_hook=_without_segmentation)
    except json.JSONDecodeError as error:
        raise DataError(
            f"{path}, line {error.lineno}, column {error.colno}: this is not JSON ({error.msg}); the file may have "
            "been cut off, fetch or export it again."
        ) from error
    except (ValueError, RecursionError) as error:  # no text, or numbers and depths that are no annotations
        raise DataError(f"{path} is not a JSON file of annotations; give COCO's instances_*.json or alike.") from error
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror}); give a COCO annotation file.") from error
    for name in ("images", "annotations", "categories"):
        if not isinstance(content, dict) or not isinstance(content.get(name), list):
            raise DataError(
                f"{path} has no list named {name}; a COCO annotation file has images, annotations and categories."
            )
    return content


def _without_segmentation(item: dict[str, Any]) -> dict[str, Any]:
    item.pop("segmentation", None)
    return item


def _categories(path: Path, entries: list[Any]) -> dict[int, Category]:
    categories: dict[int, Category] = {}
    for place, entry in enumerate(entries):
        where = f"{path}, categories[{place}]"
        number, name = (entry.get("id"), entry.get("name")) if isinstance(entry, dict) else (None, None)
        if not isinstance(number, int) or isinstance(number, bool) or not isinstance(name, str) or not name:
            raise DataError(f"{where} needs a whole number as id and a name; it is {json.dumps(entry)[:100]}.")
        labels = entry.get("keypoints") or []
        if not isinstance(labels, list) or not all(isinstance(label, str) and label for label in labels):
            raise DataError(f'{where} ("{name}"): keypoints must be a list of names.')
        if number in categories or name in (category.name for category in categories.values()):
            raise DataError(f'{where} ("{name}", id {number}) repeats an id or a name; give each category its own.')
        categories[number] = Category(number, name, tuple(labels))
    if not categories:
        raise DataError(f"{path} lists no categories; there is nothing to learn.")
    return dict(sorted(categories.items()))


def _unusable(entry: Any, coco: CocoAnnotations) -> str:
    """Why an entry of `images` cannot be looked for; empty if it can."""
    if not isinstance(entry, dict) or not isinstance(entry.get("file_name"), str) or not entry["file_name"]:
        return "it has no file_name"
    if entry.get("id") is None or not isinstance(entry["id"], Hashable):
        return "it has no id"
    if entry["id"] in coco.objects:
        return f"its id {entry['id']} is another image's"
    name = PurePosixPath(entry["file_name"])
    return "its file_name leads out of the image folder" if name.is_absolute() or ".." in name.parts else ""


def _add_keypoints(coco: CocoAnnotations, path: Path) -> None:
    content = _load(path)
    for category in _categories(path, content["categories"]).values():
        if not category.keypoints:
            continue
        known = coco.categories.get(category.id)
        if known is None or known.name != category.name:
            raise DataError(
                f'{path} has keypoints of "{category.name}", id {category.id}, which {coco.path} does not list under '
                "that id; give two files of the same data set."
            )
        coco.categories[category.id] = category
    named = ((_identity(entry), entry) for entry in content["annotations"] if isinstance(entry, dict))
    lists = {identity: entry["keypoints"] for identity, entry in named if identity and entry.get("keypoints")}
    for entries in coco.objects.values():
        for entry in entries:
            identity = _identity(entry)
            entry["keypoints"] = lists.pop(identity, None) if identity else None
    if lists:
        coco.keypoints_dropped[f"without an object of that id in {coco.path.name}"] += len(lists)


def _identity(annotation: dict[str, Any]) -> tuple | None:
    """What two files say of the same object alike; None without an id."""
    identity = tuple(annotation.get(key) for key in ("id", "image_id", "category_id"))
    usable = identity[0] is not None and all(isinstance(part, Hashable) for part in identity)
    return identity if usable else None


def import_coco(
    coco: CocoAnnotations,
    images: str | Path,
    out: str | Path,
    *,
    split: str | None = None,
    shards: int | None = None,
    on_progress: Callable[[int], None] = lambda done: None,
) -> ImportReport:
    """Writes `OUT/SPLIT-00000-of-0000N.tfrecord` and `OUT/label_map.pbtxt`.

    Crowds, the annotations' own areas and the keypoints' visibilities are kept, an image without objects too, as a
    negative. Objects without area, outside the image, with a bbox that is not four numbers or of an unknown category
    are dropped and counted, boxes that reach beyond the image are clipped, keypoint lists of another length than the
    category's are left out and counted, images that are missing, cannot be decoded or have another size than the file
    says are skipped. One image is in memory at a time.

    The label map has COCO's own ids, gaps included, if all categories are COCO's; otherwise the file's ids where they
    run from 1 without gaps, and 1 to n in their order where they do not. One that an earlier import left in OUT rules,
    so that every split gets the same ids. Keypoints are numbered on from category to category.

    Args:
      coco: of `read_coco`.
      images: folder that the file names are relative to.
      out: folder to write to; created.
      split: name of the records; default `coco.default_split`.
      shards: files; default one for every 2000 images.
      on_progress: called after each image with the number of images done.

    Raises:
      DataError: no image could be used, a name that no split can have, another label map in OUT, or OUT cannot be
        written; nothing half-written stays.
    """
    images, out, split = Path(images), Path(out), coco.default_split if split is None else split
    check_shards(shards)
    if not _SPLIT_NAME.fullmatch(split):
        raise DataError(f'"{split}" cannot name a split; use letters, digits, "-", "_" and ".".')
    if not images.is_dir():
        raise DataError(f"{images} is no folder; give the one that {coco.path.name}'s file names are relative to.")
    report = ImportReport(
        "COCO JSON", dropped=coco.dropped.copy(), keypoints_dropped=coco.keypoints_dropped.copy(),
        skipped=list(coco.skipped), label_map=out / "label_map.pbtxt",
    )
    classes = _Classes.of(coco, report)
    write_split(_examples(coco, images, classes, report, on_progress), len(coco.images), split, out, shards, report)
    write_label_map(classes.label_map, report.label_map)
    unused = [item.title for item in classes.label_map.items if not report.boxes[item.title]]
    if unused:
        report.notes.append(f"{len(unused)} classes have no object in this split: {some(unused)}")
    return report


@dataclass(frozen=True)
class _Classes:
    """Which class of the label map each category of the file is; None where it has none."""

    label_map: LabelMap
    of_category: dict[int, LabelMapItem | None]
    keypoint_names: tuple[str, ...]  # by place in an object's list, over all classes

    @classmethod
    def of(cls, coco: CocoAnnotations, report: ImportReport) -> _Classes:
        """The label map that is in OUT already, or else one of the file's categories."""
        there = report.label_map.exists()
        label_map = read_label_map(report.label_map) if there else _label_map(coco, report)
        items = {item.id: item for item in label_map.items}
        of_category: dict[int, LabelMapItem | None] = {}
        for category in coco.categories.values():
            number = label_map.id_of(category.name)
            item = of_category[category.id] = items[number] if number is not None else None
            if item and category.keypoints != tuple(label for _, label in sorted(item.keypoints)):
                raise DataError(
                    f'{report.label_map}, left by an earlier import, has other keypoints for "{category.name}" than '
                    f"{coco.path}; choose another folder, or import every split with the same keypoints."
                )
        names = {number: label for item in label_map.items for number, label in item.keypoints}
        return cls(label_map, of_category, tuple(names.get(place, "") for place in range(max(names, default=-1) + 1)))


def _label_map(coco: CocoAnnotations, report: ImportReport) -> LabelMap:
    categories = list(coco.categories.values())
    cocos = {item.id: item for item in read_label_map(COCO_LABEL_MAP).items}
    if all(category.id in cocos and category.name == cocos[category.id].title for category in categories):
        items = [cocos[category.id] for category in categories]
    else:
        items = [LabelMapItem(number, category.name) for number, category in enumerate(categories, 1)]
        moved = [(c, item) for c, item in zip(categories, items, strict=True) if c.id != item.id]
        if moved:
            changes = [f"{category.name} {category.id} -> {item.id}" for category, item in moved]
            report.notes.append(f"category ids renumbered 1 to {len(items)}: {some(changes)}")
    place, numbered = 0, []
    for category, item in zip(categories, items, strict=True):
        numbered.append(replace(item, keypoints=tuple(enumerate(category.keypoints, place))))
        place += len(category.keypoints)
    return LabelMap(tuple(numbered))


def _examples(
    coco: CocoAnnotations, folder: Path, classes: _Classes, report: ImportReport, on_progress: Callable[[int], None]
) -> Iterator[bytes]:
    for done, entry in enumerate(coco.images, 1):
        try:
            yield _example(coco, folder, entry, classes, report)
        except Skip as reason:
            report.skipped.append((entry["file_name"], str(reason)))
        on_progress(done)


def _example(
    coco: CocoAnnotations, folder: Path, entry: dict[str, Any], classes: _Classes, report: ImportReport
) -> bytes:
    name, sides = entry["file_name"], _numbers([entry.get("height"), entry.get("width")], 2)
    known_size = sides and all(0 < side < math.inf for side in sides)
    image = read_image(folder / name, (int(sides[0]), int(sides[1])) if sides and known_size else None)
    if image.rotated:
        report.rotated.append(name)
    objects = [
        _object(item, image.height, image.width, coco, classes, report) for item in coco.objects[entry["id"]]
    ]
    return encode_example(
        image.encoded, image.format, image.height, image.width, [item for item in objects if item],
        filename=name, source_id=str(entry["id"]),
    )


def _object(
    item: dict[str, Any], height: int, width: int, coco: CocoAnnotations, classes: _Classes, report: ImportReport
) -> ExampleObject | None:
    """An annotation as it is written, or None if it cannot be used (counted in `report`)."""
    number, where = item.get("category_id"), f"annotation {item.get('id')}"
    category = coco.categories.get(number) if isinstance(number, int) else None
    if category is None:
        report.drop(f"of category {number}, which the file does not list", where)
        return None
    known = classes.of_category[category.id]
    if known is None:
        report.drop(f"of class {category.name!r}, which the label map does not have", where)
        return None
    report.boxes[known.title] += 1
    bbox = _numbers(item.get("bbox"), 4)
    if bbox is None:
        report.drop("with a bbox that is not four numbers", where)
        return None
    x, y, box_width, box_height = bbox
    box = usable_box((x, y, x + box_width, y + box_height), height, width, report, where)
    if box is None:
        return None
    xmin, ymin, xmax, ymax = box
    area = _numbers([item.get("area")], 1)
    return ExampleObject(
        box=(ymin / height, xmin / width, ymax / height, xmax / width),
        class_text=category.name,
        class_id=known.id,
        area=area[0] if area and 0 < area[0] < math.inf else (xmax - xmin) * (ymax - ymin),
        is_crowd=bool(item.get("iscrowd")),
        keypoints=_keypoints(item.get("keypoints"), known, height, width, classes.keypoint_names, report),
    )


def _keypoints(
    values: Any, known: LabelMapItem, height: int, width: int, names: tuple[str, ...], report: ImportReport
) -> tuple[Keypoint, ...]:
    """An object's keypoints at their places among those of all classes; the rest are not labelled."""
    placed = [Keypoint(name, 0.0, 0.0, 0) for name in names]
    if not values:
        return tuple(placed)
    numbers = _numbers(values, 3 * len(known.keypoints))
    if not numbers or not all(map(math.isfinite, numbers)) or not set(numbers[2::3]) <= set(_VISIBILITIES):
        report.keypoints_dropped[
            f"of {known.title} that are not x, y and visibility of its {len(known.keypoints)} keypoints"
        ] += 1
        return tuple(placed)
    for (place, name), x, y, visibility in zip(
        sorted(known.keypoints), numbers[::3], numbers[1::3], numbers[2::3], strict=True
    ):
        report.keypoints += visibility > 0
        placed[place] = Keypoint(name, y / height, x / width, int(visibility))
    return tuple(placed)


def _numbers(values: Any, count: int) -> list[float] | None:
    """A list of so many JSON numbers as floats; None if it is anything else."""
    if not isinstance(values, list) or len(values) != count:
        return None
    if not all(isinstance(value, (int, float)) and not isinstance(value, bool) for value in values):
        return None
    try:
        return [float(value) for value in values]
    except OverflowError:
        return None
