"""What imports of data sets share: the report, images that are proved to be readable, boxes that are usable."""

from __future__ import annotations

import io
import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import tensorflow as tf
from PIL import Image, ImageOps, UnidentifiedImageError

from tfod_zoo.data.errors import DataError
from tfod_zoo.data.record_writer import write_shards
from tfod_zoo.pictures.reading import PictureError, prepare_for, too_large

_EXIF_ORIENTATION = 0x0112
_EXAMPLES_A_SHARD = 2000
_LISTED = 5  # files named in a report line before "and N more"
_CLASSES_LISTED = 20


class Skip(Exception):
    """Why an image is left out."""


@dataclass
class ImportReport:
    """What an import wrote and what it left out.

    Attributes:
      source: the kind of data set.
      images: written, by split.
      boxes: annotated, by class of the label map; `dropped` says how many of them were not written.
      dropped: objects left out, by reason.
      first_dropped: where the first of them stands, by reason.
      clipped: boxes cut at the image's border.
      keypoints: labelled keypoints written.
      keypoints_dropped: keypoint lists left out while their objects stay, by reason.
      skipped: images left out: file and reason.
      rotated: files whose EXIF orientation was applied to the pixels.
      notes: what else the user should know.
      records: glob of the files written, by split.
      label_map: the label map written.
    """

    source: str
    images: dict[str, int] = field(default_factory=dict)
    boxes: Counter[str] = field(default_factory=Counter)
    dropped: Counter[str] = field(default_factory=Counter)
    first_dropped: dict[str, str] = field(default_factory=dict)
    clipped: int = 0
    keypoints: int = 0
    keypoints_dropped: Counter[str] = field(default_factory=Counter)
    skipped: list[tuple[str, str]] = field(default_factory=list)
    rotated: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    records: dict[str, str] = field(default_factory=dict)
    label_map: Path = Path()

    def drop(self, reason: str, where: str = "") -> None:
        """Counts an object that is left out; `where` is what a user can find it by, a file and perhaps a line."""
        self.dropped[reason] += 1
        if where:
            self.first_dropped.setdefault(reason, where)

    def add(self, other: ImportReport) -> None:
        """Takes in the report of another part of the same data set."""
        self.images |= other.images
        self.records |= other.records
        for mine, theirs in (
            (self.boxes, other.boxes), (self.dropped, other.dropped), (self.keypoints_dropped, other.keypoints_dropped)
        ):
            mine.update(theirs)
        self.first_dropped = {**other.first_dropped, **self.first_dropped}
        self.clipped += other.clipped
        self.keypoints += other.keypoints
        self.skipped += other.skipped
        self.rotated += other.rotated
        self.notes += [note for note in other.notes if note not in self.notes]

    def line(self) -> str:
        """What was found, in one line."""
        boxes = some([f"{name} {count}" for name, count in self.boxes.most_common()], _CLASSES_LISTED) or "none"
        parts = [self.source, f"{sum(self.images.values())} images", f"{len(self.boxes)} classes ({boxes})"]
        parts += [f"{self.keypoints} labelled keypoints"] if self.keypoints else []
        parts += [f"{count} boxes {reason} dropped" for reason, count in self.dropped.most_common()]
        parts += [f"{self.clipped} boxes clipped at the image's border"] if self.clipped else []
        parts += [f"{len(self.skipped)} images skipped"] if self.skipped else []
        return ", ".join([*parts, *(f"{split} {count}" for split, count in self.images.items())])

    def lines(self) -> list[str]:
        """The report for a person."""
        total = sum(self.images.values())
        splits = ", ".join(f"{split} {count}" for split, count in self.images.items())
        boxes = some([f"{name} {count}" for name, count in self.boxes.most_common()], _CLASSES_LISTED) or "none"
        lines = [f"{self.source}, {total} images ({splits}), {len(self.boxes)} classes ({boxes})"]
        if self.keypoints:
            lines.append(f"{self.keypoints} labelled keypoints")
        lines += self.notes
        for reason, count in self.dropped.most_common():
            first = self.first_dropped.get(reason)
            lines.append(f"{count} boxes {reason} dropped" + (f" (the first: {first})" if first else ""))
        if self.clipped:
            lines.append(f"{self.clipped} boxes partly outside the image clipped")
        lines += [
            f"{count} keypoint lists {reason} left out, their boxes stay"
            for reason, count in self.keypoints_dropped.most_common()
        ]
        if self.skipped:
            lines.append(f"{len(self.skipped)} images skipped: " + some([f"{f} ({why})" for f, why in self.skipped]))
        if self.rotated:
            lines.append(f"{len(self.rotated)} images turned upright by their EXIF orientation: {some(self.rotated)}")
        return lines


def some(names: Sequence[str], listed: int = _LISTED) -> str:
    """The first few names, for a line that must stay short."""
    more = len(names) - listed
    return ", ".join(names[:listed]) + (f" and {more} more" if more > 0 else "")


def check_shards(shards: int | None) -> None:
    """Raises `DataError` for a number of files that cannot be; None is for the default."""
    if shards is not None and shards < 1:
        raise DataError(f"{shards} shards cannot hold a data set; give 1 or more.")


def write_split(
    examples: Iterator[bytes], images: int, split: str, out: Path, shards: int | None, report: ImportReport
) -> None:
    """Writes one split's records and notes them in the report, which `examples` fills with what it leaves out.

    Args:
      examples: serialized examples of the images that can be used.
      images: how many there are, those that will be skipped included.
      split: its name.
      out: folder; created.
      shards: files; None: one for every 2000 images.
      report: gets `records` and `images`.

    Raises:
      DataError: no image could be used, or the folder cannot be written; nothing half-written stays.
    """
    before = len(report.skipped)

    def usable() -> Iterator[bytes]:
        yield from examples
        if images == len(report.skipped) - before:  # said before anything takes its name
            reasons = some([f"{name}: {reason}" for name, reason in report.skipped[before:]])
            raise DataError(f"No image of split {split} can be used ({reasons}); check the folder.")

    count = shards or max(1, math.ceil(images / _EXAMPLES_A_SHARD))
    report.records[split] = write_shards(usable(), out, split, count)
    report.images[split] = images - (len(report.skipped) - before)


@dataclass(frozen=True)
class ImageFile:
    """An image as it will be stored: the file's bytes, their format, size in pixels, and whether it was turned."""

    encoded: bytes
    format: str
    height: int
    width: int
    rotated: bool = False


def read_image(path: Path, annotated_size: tuple[int, int] | None = None) -> ImageFile:
    """Decodes an image file to prove that the input pipeline can, and applies its EXIF orientation.

    Pixels are turned upright where EXIF says so, for boxes are taken to be drawn on the upright picture, as annotation
    tools show it. Files that the input pipeline cannot decode but PIL can become PNG; others are stored byte for byte.

    Args:
      path: the file.
      annotated_size: (height, width) that the annotations go by, where they say. If it is the size before turning, the
        picture is left as it is.

    Raises:
      Skip: it cannot be read or decoded, or has another size.
    """
    try:
        image = _read_image(path, annotated_size)
    except FileNotFoundError as error:
        raise Skip("there is no such file") from error
    except UnidentifiedImageError as error:  # whose own words are of the bytes in memory, not of the file
        reason = "not an image that Pillow knows" if path.stat().st_size else "the file is empty"
        raise Skip(f"the image cannot be decoded: {reason}") from error
    except PictureError as error:
        raise Skip(str(error)) from error
    except Image.DecompressionBombError as error:
        raise Skip(too_large()) from error
    except (OSError, SyntaxError, ValueError) as error:
        raise Skip(f"the image cannot be decoded: {error}") from error
    if annotated_size and annotated_size != (image.height, image.width):
        height, width = annotated_size
        raise Skip(f"it is {image.width}x{image.height}, the annotations are of {width}x{height}")
    return image


def _read_image(path: Path, annotated_size: tuple[int, int] | None) -> ImageFile:
    encoded = path.read_bytes()
    prepare_for(path)
    with Image.open(io.BytesIO(encoded)) as image:
        turned = image.getexif().get(_EXIF_ORIENTATION, 1) not in (0, 1)
        upright_hw = (image.height, image.width)
        if turned:
            upright = ImageOps.exif_transpose(image)
            upright_hw = (upright.height, upright.width)
        if turned and annotated_size in (None, upright_hw):
            return ImageFile(_png(upright), "png", *upright_hw, rotated=True)
        try:
            tf.io.decode_image(encoded, channels=3, expand_animations=False)
            return ImageFile(encoded, (image.format or "").lower(), image.height, image.width)
        except tf.errors.InvalidArgumentError:
            return ImageFile(_png(image), "png", image.height, image.width)


def _png(image: Image.Image) -> bytes:
    """Lossless, so that turning an image costs no quality."""
    stream = io.BytesIO()
    image.convert("RGB").save(stream, "PNG")
    return stream.getvalue()


def usable_box(
    corners: Sequence[float], height: int, width: int, report: ImportReport, where: str = ""
) -> tuple[float, float, float, float] | None:
    """A box cut at the image's border, or None if it cannot be used; both are counted in the report.

    Args:
      corners: xmin, ymin, xmax, ymax in pixels. height, width: of the image. where: what a user can find it by.
    """
    xmin, ymin, xmax, ymax = corners
    if not all(map(math.isfinite, corners)):
        report.drop("with a coordinate that is not a number", where)
        return None
    if xmax <= xmin or ymax <= ymin:
        report.drop("without area", where)
        return None
    clipped = (max(xmin, 0.0), max(ymin, 0.0), min(xmax, float(width)), min(ymax, float(height)))
    if clipped[2] <= clipped[0] or clipped[3] <= clipped[1]:
        report.drop("outside the image", where)
        return None
    report.clipped += clipped != (xmin, ymin, xmax, ymax)
    return clipped
