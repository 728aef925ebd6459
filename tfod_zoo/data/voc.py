"""Import of Pascal VOC annotations: images and XML files -> sharded TFRecords and a label map.

Two layouts are read: VOC's own, ROOT/{JPEGImages,Annotations,ImageSets/Main}, and XML files anywhere in a folder, each
beside its image or in a folder beside the images', as annotation tools leave them.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from xml.etree import ElementTree

from tfod_zoo.data.boxed_images import Annotations, BoxedImage, NamedBox
from tfod_zoo.data.errors import DataError
from tfod_zoo.data.importing import Skip
from tfod_zoo.pictures.reading import IMAGE_SUFFIXES

_SOURCE = "Pascal VOC"
_SIDES = ("xmin", "ymin", "xmax", "ymax")
_NAN = float("nan")


def read_voc(root: str | Path, split: str | Sequence[str]) -> Annotations:
    """The annotations of some splits of a VOC folder, in the order of their lists; the classes of all of ROOT.

    Raises:
      DataError: not a VOC folder, no such split, or no class found.
    """
    root = Path(root)
    names = [name.strip() for name in split.split(",")] if isinstance(split, str) else split
    images = {name: _split_images(root, name) for name in names}
    files = _parse_all((root / "Annotations").glob("*.xml"))
    annotations = Annotations(_SOURCE, classes=_class_names(files, root / "Annotations"))
    for name, stems in images.items():
        annotations.splits[name] = [
            _boxed_image(stem, _image_path(root, stem), root / "Annotations" / f"{stem}.xml", files) for stem in stems
        ]
    return annotations


def voc_splits(root: Path) -> list[str]:
    """The splits that ImageSets/Main lists: train, val, trainval, test, where they are there."""
    folder = root / "ImageSets" / "Main"
    return [name for name in ("train", "val", "trainval", "test") if (folder / f"{name}.txt").exists()]


def read_voc_files(xml_files: Sequence[Path], root: Path) -> Annotations:
    """Annotations from XML files without lists of splits; the images are those of no split ("").

    Args:
      xml_files: one an image.
      root: what the images' names are made relative to.

    Raises:
      DataError: no class found.
    """
    files = _parse_all(xml_files)
    annotations = Annotations(_SOURCE, classes=_class_names(files, root))
    annotations.splits[""] = [
        _boxed_image(str(path.relative_to(root).with_suffix("")), _image_beside(path, files[path]), path, files)
        for path in files
    ]
    return annotations


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
    images = dict.fromkeys(name for line in lines if (name := _listed_image(root, line.strip())))
    if not images:
        raise DataError(f"{path} names no image.")
    return list(images)


def _listed_image(root: Path, line: str) -> str:
    """The image that a line of a split names, with or without spaces; "" for none."""
    name, _, column = line.rpartition(" ")
    # Class files ("cat_train.txt") carry 1, 0 or -1 in a second column; -1 says that the class is not in the image.
    if column not in ("-1", "0", "1") or not name or _image_path(root, line):
        return line
    return "" if column == "-1" else name.strip()


def _parse_all(paths) -> dict[Path, ElementTree.Element | Skip]:
    """The annotations' roots, or why one cannot be read, by file."""
    return {path: _parse(path) for path in sorted(paths)}


def _parse(path: Path) -> ElementTree.Element | Skip:
    try:
        return ElementTree.parse(path).getroot()
    except OSError:
        return Skip("no annotation")
    except ElementTree.ParseError as error:
        return Skip(f"the annotation is not XML: {error}")


def _class_names(files: dict[Path, ElementTree.Element | Skip], folder: Path) -> list[str]:
    roots = [root for root in files.values() if not isinstance(root, Skip)]
    found = {_text(item, "name") for root in roots for item in root.iter("object")} - {""}
    if not found:
        raise DataError(f"{folder} has no object with a name; there is nothing to learn.")
    return sorted(found)


def _boxed_image(
    name: str, image: Path | None, annotation: Path, files: dict[Path, ElementTree.Element | Skip]
) -> BoxedImage:
    if image is None:
        return BoxedImage(name, None, problem="no image of that name")
    root = files.get(annotation) or _parse(annotation)
    if isinstance(root, Skip):
        return BoxedImage(name, image, problem=str(root))
    return BoxedImage(name, image, tuple(_named_box(item, annotation.name) for item in root.iter("object")))


def _named_box(item: ElementTree.Element, where: str) -> NamedBox:
    # VOC counts pixels from 1, both ends included; TFOD divides the numbers as they are, and so do we, so that models
    # and records of both can be mixed. The shift is half a pixel to one pixel.
    try:
        xmin, ymin, xmax, ymax = (float(_text(item, f"bndbox/{side}")) for side in _SIDES)
    except ValueError:
        xmin, ymin, xmax, ymax = _NAN, _NAN, _NAN, _NAN
    difficult = _text(item, "difficult") == "1"
    return NamedBox(_text(item, "name"), (xmin, ymin, xmax, ymax), where, difficult=difficult)


def _image_path(root: Path, name: str) -> Path | None:
    return _with_image_suffix(root / "JPEGImages" / name)


def _image_beside(annotation: Path, root: ElementTree.Element | Skip) -> Path | None:
    """The image of an XML file: of its name, or of the name it states, in its folder or one beside it."""
    stated = "" if isinstance(root, Skip) else Path(_text(root, "filename").replace("\\", "/")).name
    folders = [annotation.parent, *(annotation.parent.parent / name for name in ("images", "JPEGImages"))]
    for folder in folders:
        if path := _with_image_suffix(folder / annotation.stem):
            return path
    return next((folder / stated for folder in folders if stated and (folder / stated).is_file()), None)


def _with_image_suffix(stem: Path) -> Path | None:
    for suffix in IMAGE_SUFFIXES:
        for spelling in (suffix, suffix.upper()):
            path = stem.with_name(stem.name + spelling)
            if path.exists():
                return path
    return None


def _text(item: ElementTree.Element, path: str) -> str:
    return (item.findtext(path) or "").strip()
