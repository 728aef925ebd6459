"""Import of Pascal VOC folders: images and XML annotations -> sharded TFRecords and a label map.

The layout is VOC's own: ROOT/{JPEGImages,Annotations,ImageSets/Main}.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from xml.etree import ElementTree

from tfod_zoo.config.label_map import LabelMap, LabelMapItem, read_label_map, write_label_map
from tfod_zoo.data.errors import DataError
from tfod_zoo.data.importing import ImportReport, Skip, check_shards, read_image, usable_box, write_split
from tfod_zoo.data.tf_example import ExampleObject, encode_example

_IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".gif")


def import_voc(
    root: str | Path,
    split: str | Sequence[str],
    out: str | Path,
    label_map: str | Path | None = None,
    shards: int | None = None,
    on_progress: Callable[[int], None] = lambda done: None,
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
      on_progress: called after each image with the number of images done, over all splits.

    Raises:
      DataError: not a VOC folder, no such split, no class found, or OUT cannot be written; nothing half-written stays.
    """
    root, out = Path(root), Path(out)
    names = voc_images(root, split)
    check_shards(shards)
    report = ImportReport("Pascal VOC", label_map=out / "label_map.pbtxt")
    classes = _classes(root, Path(label_map) if label_map else None, report.label_map)
    done = 0
    for name, images in names.items():
        examples = _examples(root, images, classes, report, on_progress, done)
        write_split(examples, len(images), name, out, shards, report)
        done += len(images)
    write_label_map(classes, report.label_map)
    return report


def voc_images(root: str | Path, split: str | Sequence[str]) -> dict[str, list[str]]:
    """Split -> its image names, each once, in the order of its list in ImageSets/Main.

    Raises:
      DataError: not a VOC folder, or no such split.
    """
    splits = [name.strip() for name in split.split(",")] if isinstance(split, str) else split
    return {name: _split_images(Path(root), name) for name in splits}


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


def _examples(
    root: Path,
    images: list[str],
    classes: LabelMap,
    report: ImportReport,
    on_progress: Callable[[int], None],
    done_before: int,
) -> Iterator[bytes]:
    for done, name in enumerate(images, done_before + 1):
        try:
            yield _example(root, name, classes, report)
        except Skip as reason:
            report.skipped.append((name, str(reason)))
        on_progress(done)


def _example(root: Path, name: str, classes: LabelMap, report: ImportReport) -> bytes:
    path = _image_path(root, name)
    annotation = _annotation(root / "Annotations" / f"{name}.xml")
    image = read_image(path)
    if image.rotated:
        report.rotated.append(path.name)
    objects = [_object(item, image.height, image.width, classes, report) for item in annotation.iter("object")]
    kept = [item for item in objects if item is not None]
    return encode_example(
        image.encoded, image.format, image.height, image.width, kept, filename=path.name, source_id=name
    )


def _image_path(root: Path, name: str) -> Path:
    for suffix in _IMAGE_SUFFIXES:
        for spelling in (suffix, suffix.upper()):
            path = root / "JPEGImages" / f"{name}{spelling}"
            if path.exists():
                return path
    raise Skip("no image in JPEGImages")


def _annotation(path: Path) -> ElementTree.Element:
    try:
        return ElementTree.parse(path).getroot()
    except OSError as error:
        raise Skip("no annotation") from error
    except ElementTree.ParseError as error:
        raise Skip(f"the annotation is not XML: {error}") from error


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
    # VOC counts pixels from 1, both ends included; TFOD divides the numbers as they are, and so do we, so that models
    # and records of both can be mixed. The shift is half a pixel to one pixel.
    box = usable_box((xmin, ymin, xmax, ymax), height, width, report)
    if box is None:
        return None
    xmin, ymin, xmax, ymax = box
    return ExampleObject(
        box=(ymin / height, xmin / width, ymax / height, xmax / width),
        class_text=name,
        class_id=class_id,
        area=(xmax - xmin) * (ymax - ymin),
        difficult=_text(item, "difficult") == "1",
    )


def _text(item: ElementTree.Element, path: str) -> str:
    return (item.findtext(path) or "").strip()
