"""What a page's reader brings, made of the package's own shapes: by the names that its "You need" line uses."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

from PIL import Image

from tfod_zoo.data.shapes import CLASSES, KEYPOINTS, Shape, draw_example

_HEIGHT, _WIDTH = 96, 128
_SPLITS = {"train": 16, "val": 6}
_COCO = {"star": ("person", 1), "circle": ("car", 3), "square": ("dog", 18)}  # names and ids that COCO has
_CELLS = {"circle": "RBC", "star": "WBC", "square": "Platelets"}  # the classes of the README's blood cells


def bring(name: str, folder: Path) -> None:
    """Makes one thing in a folder.

    Raises:
      KeyError: no page's reader has brought this yet; add it to `_MAKERS`.
    """
    _MAKERS[name](folder)


def _examples(split: str, count: int) -> Iterator[tuple[str, Image.Image, list[Shape]]]:
    for index in range(count):
        stem = f"{split}_{index:03d}"
        pixels, shapes = draw_example(_HEIGHT, _WIDTH, stem)
        yield stem, Image.fromarray(pixels), shapes


def _street(folder: Path) -> None:
    Image.fromarray(draw_example(240, 320, "street")[0]).save(folder / "street.jpg")


def _photos(folder: Path) -> None:
    (folder / "photos").mkdir()
    for stem, image, _ in _examples("photo", 6):
        image.save(folder / "photos" / f"{stem}.jpg")


def _cells(folder: Path) -> None:
    """Pascal VOC's own layout."""
    root = folder / "cells"
    for part in ("Annotations", "JPEGImages", "ImageSets/Main"):
        (root / part).mkdir(parents=True)
    for split, count in _SPLITS.items():
        stems = []
        for stem, image, shapes in _examples(split, count):
            image.save(root / "JPEGImages" / f"{stem}.jpg")
            objects = "".join(_voc_object(_CELLS[CLASSES[one.label]], one) for one in _cells_of(shapes))
            (root / "Annotations" / f"{stem}.xml").write_text(
                f"<annotation><filename>{stem}.jpg</filename><size><width>{image.width}</width>"
                f"<height>{image.height}</height><depth>3</depth></size>{objects}</annotation>\n"
            )
            stems.append(stem)
        (root / "ImageSets" / "Main" / f"{split}.txt").write_text("\n".join(stems) + "\n")


def _cells_of(shapes: list[Shape]) -> list[Shape]:
    return [shape for shape in shapes if CLASSES[shape.label] in _CELLS]


def _voc_object(name: str, shape: Shape) -> str:
    ymin, xmin, ymax, xmax = (int(side) for side in shape.box)
    sides = f"<xmin>{xmin + 1}</xmin><ymin>{ymin + 1}</ymin><xmax>{xmax}</xmax><ymax>{ymax}</ymax>"
    return f"<object><name>{escape(name)}</name><difficult>0</difficult><bndbox>{sides}</bndbox></object>"


def _coco(folder: Path) -> None:
    """COCO's own layout: boxes of all classes in one file a split, keypoints of persons in another."""
    root = folder / "coco"
    (root / "annotations").mkdir(parents=True)
    categories = [{"id": number, "name": name} for name, number in _COCO.values()]
    persons = [{**categories[0], "keypoints": list(KEYPOINTS), "skeleton": []}]
    for split, count in _SPLITS.items():
        name = f"{split}2017"
        (root / name).mkdir()
        images, boxes, poses = [], [], []
        for number, (stem, image, shapes) in enumerate(_examples(split, count), 1):
            image.save(root / name / f"{stem}.jpg")
            images.append({"id": number, "file_name": f"{stem}.jpg", "width": image.width, "height": image.height})
            for shape in shapes:
                if CLASSES[shape.label] in _COCO:
                    boxes.append({"id": len(boxes) + 1, "image_id": number, **_coco_object(shape)})
                    if boxes[-1]["category_id"] == persons[0]["id"]:
                        poses.append({**boxes[-1], **_coco_keypoints(shape)})
        for kind, objects, of in (("instances", boxes, categories), ("person_keypoints", poses, persons)):
            content = {"images": images, "annotations": objects, "categories": of}
            (root / "annotations" / f"{kind}_{name}.json").write_text(json.dumps(content))


def _coco_object(shape: Shape) -> dict[str, Any]:
    ymin, xmin, ymax, xmax = shape.box.tolist()
    number = _COCO[CLASSES[shape.label]][1]
    return {"category_id": number, "bbox": [xmin, ymin, xmax - xmin, ymax - ymin], "area": shape.area, "iscrowd": 0}


def _coco_keypoints(shape: Shape) -> dict[str, Any]:
    points = [value for y, x in shape.keypoints.tolist() for value in (x, y, 2)]
    return {"keypoints": points, "num_keypoints": len(KEYPOINTS)}


_MAKERS = {"street.jpg": _street, "photos/": _photos, "cells/": _cells, "coco/": _coco}
