"""Images and their boxes as annotation files name them, and how they become TFRecords: what the importers of formats
without keypoints (Pascal VOC, CSV, YOLO) share."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from tfod_zoo.config.label_map import LabelMap, LabelMapItem, read_label_map, write_label_map
from tfod_zoo.data.errors import DataError
from tfod_zoo.data.importing import ImportReport, Skip, check_shards, read_image, some, usable_box, write_split
from tfod_zoo.data.tf_example import ExampleObject, encode_example


@dataclass(frozen=True)
class NamedBox:
    """One annotated object.

    Attributes:
      class_name: as the file spells it.
      corners: xmin, ymin, xmax, ymax in pixels; not a number where the file has none.
      where: the file, and the line where there is one, for messages.
      fractions: the corners are shares of the image's width and height.
      difficult: VOC's flag.
    """

    class_name: str
    corners: tuple[float, float, float, float]
    where: str
    fractions: bool = False
    difficult: bool = False


@dataclass(frozen=True)
class BoxedImage:
    """An image that is not read yet.

    Attributes:
      name: what the data set calls it, each once.
      path: its file; None if there is none.
      boxes: its objects; none makes it a negative.
      size: (height, width) that the annotations go by, where they say.
      problem: why it cannot be used, if that is known before it is read.
    """

    name: str
    path: Path | None
    boxes: tuple[NamedBox, ...] = ()
    size: tuple[int, int] | None = None
    problem: str = ""


@dataclass
class Annotations:
    """A data set's annotations in memory.

    Attributes:
      source: the kind of data set.
      splits: images by split; "" for those of no split.
      classes: in the order of their ids, from 1.
      dropped: objects that no image has got: reason and place.
      notes: what else the user should know.
    """

    source: str
    splits: dict[str, list[BoxedImage]] = field(default_factory=dict)
    classes: list[str] = field(default_factory=list)
    dropped: list[tuple[str, str]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def num_images(self) -> int:
        return sum(map(len, self.splits.values()))


def write_annotations(
    annotations: Annotations,
    out: str | Path,
    label_map: str | Path | None = None,
    shards: int | None = None,
    on_progress: Callable[[int], None] = lambda done: None,
) -> ImportReport:
    """Writes `OUT/SPLIT-00000-of-0000N.tfrecord` for every split ("train" for none), and `OUT/label_map.pbtxt`.

    Objects without area, outside the image, with coordinates that are no numbers or of a class that is not in the label
    map are dropped and counted, boxes that reach beyond the image are clipped, images that are missing, cannot be
    decoded or have another size than the annotations say are skipped. Pixels are turned upright where EXIF says so;
    other image files are stored byte for byte. One image is in memory at a time.

    Args:
      annotations: what to write.
      out: folder to write to; created.
      label_map: ids to use; without it, or without one in OUT from an earlier import, `annotations.classes` get 1 to n.
      shards: files a split; default one for every 2000 images.
      on_progress: called after each image with the number of images done, over all splits.

    Raises:
      DataError: no class, no image that could be used, or OUT cannot be written; nothing half-written stays.
    """
    out = Path(out)
    check_shards(shards)
    report = ImportReport(annotations.source, label_map=out / "label_map.pbtxt", notes=list(annotations.notes))
    classes = _classes(annotations, Path(label_map) if label_map else None, report.label_map)
    for reason, where in annotations.dropped:
        report.drop(reason, where)
    done = 0
    for split, images in annotations.splits.items():
        examples = _examples(images, classes, report, on_progress, done)
        write_split(examples, len(images), split or "train", out, shards, report)
        done += len(images)
    write_label_map(classes, report.label_map)
    unused = [item.title for item in classes.items if not report.boxes[item.title]]
    if unused:
        report.notes.append(f"{len(unused)} classes have no object here: {some(unused)}")
    return report


def _classes(annotations: Annotations, given: Path | None, written: Path) -> LabelMap:
    """The label map to use. One that an earlier import left rules too: every split needs the same ids."""
    if given is None and written.exists():
        given = written
    if given is not None:
        return read_label_map(given)
    if not annotations.classes:
        raise DataError("The annotations have no object with a class; there is nothing to learn.")
    return LabelMap(tuple(LabelMapItem(id=number, name=name) for number, name in enumerate(annotations.classes, 1)))


def _examples(
    images: list[BoxedImage],
    classes: LabelMap,
    report: ImportReport,
    on_progress: Callable[[int], None],
    done_before: int,
) -> Iterator[bytes]:
    for done, image in enumerate(images, done_before + 1):
        try:
            yield _example(image, classes, report)
        except Skip as reason:
            report.skipped.append((image.name, str(reason)))
        on_progress(done)


def _example(annotated: BoxedImage, classes: LabelMap, report: ImportReport) -> bytes:
    if annotated.problem or annotated.path is None:
        raise Skip(annotated.problem or "there is no such image")
    image = read_image(annotated.path, annotated.size)
    if image.rotated:
        report.rotated.append(annotated.path.name)
    objects = [_object(box, image.height, image.width, classes, report) for box in annotated.boxes]
    return encode_example(
        image.encoded, image.format, image.height, image.width, [item for item in objects if item is not None],
        filename=annotated.path.name, source_id=annotated.name,
    )


def _object(box: NamedBox, height: int, width: int, classes: LabelMap, report: ImportReport) -> ExampleObject | None:
    """An annotated object as it is written, or None if it cannot be used (counted in `report`)."""
    class_id = classes.id_of(box.class_name)
    if class_id is None:
        report.drop(f"of class {box.class_name!r}, which the label map does not have", box.where)
        return None
    report.boxes[classes.category_name(class_id)] += 1
    scale = (width, height, width, height) if box.fractions else (1, 1, 1, 1)
    corners = [corner * side for corner, side in zip(box.corners, scale, strict=True)]
    usable = usable_box(corners, height, width, report, box.where)
    if usable is None:
        return None
    xmin, ymin, xmax, ymax = usable
    return ExampleObject(
        box=(ymin / height, xmin / width, ymax / height, xmax / width),
        class_text=box.class_name,
        class_id=class_id,
        area=(xmax - xmin) * (ymax - ymin),
        difficult=box.difficult,
    )
