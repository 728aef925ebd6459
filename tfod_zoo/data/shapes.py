"""The synthetic shapes data set: a TFDS builder, `tfod_zoo_shapes`, that needs no network and no download.

Coloured, textured, overlapping shapes on varied backgrounds, deterministic from a seed. Boxes are exact: those of the
pixels that can be seen. Keypoints belong to the shape and turn with it, whether they can be seen or not. Its path is
`tfds:tfod_zoo_shapes[/CONFIG]:train` (or `validation`); CONFIG says it all, e.g.
`240x320_2000train_400validation_seed0` (the default), and a configuration that does not exist yet is made on first use.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from PIL import Image, ImageDraw

from tfod_zoo.config.label_map import LabelMap, LabelMapItem, write_label_map
from tfod_zoo.data.errors import DataError

CLASSES = ("circle", "square", "triangle", "star", "cross")
KEYPOINTS = ("top", "right", "bottom", "left", "centre")

_MAX_OBJECTS = 5
_SMALLEST, _LARGEST = 0.14, 0.45  # a shape's extent as a share of the image's shorter side
_MAX_OVERLAP = 0.2  # intersection over union of two shapes' boxes
_MIN_VISIBLE = 0.7  # share of a shape's own pixels
_JPEG_QUALITY = 90
_SUPERSAMPLE = 3  # outlines are drawn this much larger and averaged, for smooth edges
_CONFIG = re.compile(r"(\d+)x(\d+)_(\d+)train_(\d+)validation_seed(\d+)")


@dataclass(kw_only=True)
class ShapesConfig(tfds.core.BuilderConfig):
    """height, width: of an image in pixels at most (each image is down to 3/4 of that); train, validation: examples."""

    height: int = 240
    width: int = 320
    train: int = 2000
    validation: int = 400
    seed: int = 0


def _config(height: int, width: int, train: int, validation: int, seed: int) -> ShapesConfig:
    name = f"{height}x{width}_{train}train_{validation}validation_seed{seed}"
    if min(height, width) < 32 or min(train, validation) < 1:
        raise DataError(f"The shapes data set {name} needs sides of 32 pixels or more, and an example in each split.")
    return ShapesConfig(name=name, height=height, width=width, train=train, validation=validation, seed=seed)


DEFAULT_CONFIG = _config(240, 320, 2000, 400, 0)


class TfodZooShapes(tfds.core.GeneratorBasedBuilder):
    """Coloured geometric shapes with exact boxes and five keypoints each."""

    VERSION = tfds.core.Version("1.1.0")
    RELEASE_NOTES = {"1.1.0": "Keypoints are points of the shape itself; before, the extremes of its turned outline."}
    BUILDER_CONFIGS = [DEFAULT_CONFIG]

    def _info(self) -> tfds.core.DatasetInfo:
        return self.dataset_info_from_configs(
            features=tfds.features.FeaturesDict(
                {
                    "image": tfds.features.Image(shape=(None, None, 3), encoding_format="jpeg"),
                    "image/filename": tfds.features.Text(),
                    "objects": tfds.features.Sequence(
                        {
                            "bbox": tfds.features.BBoxFeature(),
                            "label": tfds.features.ClassLabel(names=CLASSES),
                            "area": np.int64,  # visible pixels
                            # (y, x) normalised, in the order of KEYPOINTS; hidden or not.
                            "keypoints": tfds.features.Tensor(shape=(len(KEYPOINTS), 2), dtype=np.float32),
                        }
                    ),
                }
            ),
            description=self.__doc__,
        )

    def _split_generators(self, dl_manager: Any) -> dict[str, Any]:
        config = self.builder_config
        return {
            "train": self._generate_examples("train", config.train),
            "validation": self._generate_examples("validation", config.validation),
        }

    def _generate_examples(self, split: str, count: int) -> Iterator[tuple[int, dict[str, Any]]]:
        config: Any = self.builder_config
        for index in range(count):
            name = f"{split}-{index:06d}.jpg"
            pixels, objects = draw_example(config.height, config.width, f"{config.seed}/{name}")
            height, width = pixels.shape[:2]
            encoded = io.BytesIO()
            Image.fromarray(pixels).save(encoded, "JPEG", quality=_JPEG_QUALITY)
            encoded.seek(0)
            yield index, {
                "image": encoded,
                "image/filename": name,
                "objects": [
                    {
                        "bbox": tfds.features.BBox(*(item.box / [height, width, height, width]).tolist()),
                        "label": CLASSES[item.label],
                        "area": item.area,
                        "keypoints": (item.keypoints / [height, width]).astype(np.float32),
                    }
                    for item in objects
                ],
            }


@dataclass
class Shape:
    """One drawn shape: label (index into CLASSES), box (ymin, xmin, ymax, xmax) and keypoints `[5, 2]` (y, x) in
    pixels, area in visible pixels."""

    label: int
    box: np.ndarray
    keypoints: np.ndarray
    area: int


def draw_example(height: int, width: int, seed: str) -> tuple[np.ndarray, list[Shape]]:
    """Draws one image.

    Args:
      height, width: largest size in pixels; each image is between 3/4 and all of that.
      seed: text that decides everything about the image.

    Returns:
      uint8 `[h, w, 3]` pixels, and 1 to 5 shapes.
    """
    rng = np.random.default_rng(np.frombuffer(hashlib.sha256(seed.encode()).digest(), np.uint32))
    height, width = (int(rng.integers(math.ceil(0.75 * side), side + 1)) for side in (height, width))
    canvas = _background(rng, height, width)
    shapes: list[Shape] = []
    masks: list[np.ndarray] = []
    for _ in range(int(rng.integers(1, _MAX_OBJECTS + 1))):
        for _ in range(20):
            label = int(rng.integers(len(CLASSES)))
            alpha, keypoints = _outline(rng, label, height, width)
            mask = alpha > 0.5
            box = _box_of(mask)
            if box is None or any(_overlap(box, other.box) > _MAX_OVERLAP for other in shapes):
                continue
            visible = [old & ~mask for old in masks]
            if any(new.sum() < _MIN_VISIBLE * shape.area for new, shape in zip(visible, shapes, strict=True)):
                continue
            canvas += alpha[..., None] * (_texture(rng, canvas, mask) - canvas)
            masks = [*visible, mask]
            shapes.append(Shape(label, box, keypoints, int(mask.sum())))
            break
    for shape, mask in zip(shapes, masks, strict=True):
        box = _box_of(mask)
        assert box is not None  # _MIN_VISIBLE keeps something of every shape
        shape.box, shape.area = box, int(mask.sum())
    canvas += rng.normal(0.0, rng.uniform(0.0, 6.0), canvas.shape)
    return np.clip(np.rint(canvas), 0, 255).astype(np.uint8), shapes


def _box_of(mask: np.ndarray) -> np.ndarray | None:
    """Smallest (ymin, xmin, ymax, xmax) around a mask, ends exclusive; None if it is empty."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if not rows.size:
        return None
    return np.array([rows[0], columns[0], rows[-1] + 1, columns[-1] + 1], np.float64)


def _overlap(one: np.ndarray, other: np.ndarray) -> float:
    """Intersection over union of two boxes."""
    sides = np.clip(np.minimum(one[2:], other[2:]) - np.maximum(one[:2], other[:2]), 0, None)
    common = sides.prod()
    return float(common / ((one[2:] - one[:2]).prod() + (other[2:] - other[:2]).prod() - common))


def _outline(rng: np.random.Generator, label: int, height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """A shape's coverage `[h, w]` in 0..1 and its keypoints, wholly inside the image."""
    radius = rng.uniform(_SMALLEST, _LARGEST) * min(height, width) / 2
    centre = np.array([rng.uniform(radius, height - radius), rng.uniform(radius, width - radius)])
    # Squares and crosses stay nearly upright: turned by 45 degrees they would look like other things.
    turn = rng.uniform(-0.25, 0.25)
    name = CLASSES[label]
    points = centre + radius * _unit_outline(name) @ _rotation(turn)
    picture = Image.new("L", (width * _SUPERSAMPLE, height * _SUPERSAMPLE))
    ImageDraw.Draw(picture).polygon([(x * _SUPERSAMPLE, y * _SUPERSAMPLE) for y, x in points], fill=255)
    alpha = np.asarray(picture.reduce(_SUPERSAMPLE), np.float64) / 255.0
    keypoints = _UNIT_KEYPOINTS[name] @ _rotation(0.0 if name == "circle" else turn)  # a circle's turn cannot be seen
    return alpha, centre + radius * keypoints


def _unit_outline(name: str) -> np.ndarray:
    """Corner points (y, x) inside the unit circle, the shape upright."""
    if name == "cross":
        corner = np.array([[-_END, -_ARM], [-_END, _ARM], [-_ARM, _ARM]])
        quarter = np.array([[0.0, -1.0], [1.0, 0.0]])
        return np.vstack([corner @ np.linalg.matrix_power(quarter, k) for k in range(4)])
    angles, radii = {
        "circle": (np.arange(48) / 48, np.ones(48)),
        "square": (np.arange(4) / 4 + 1 / 8, np.ones(4)),
        "triangle": (np.arange(3) / 3, np.ones(3)),
        "star": (np.arange(10) / 10, np.tile([1.0, _NOTCH], 5)),
    }[name]
    return _polar(angles) * radii[:, None]


def _polar(turns: Any) -> np.ndarray:
    """Points (y, x) of the unit circle, clockwise from the top, in whole turns."""
    return np.stack([-np.cos(2 * np.pi * np.asarray(turns)), np.sin(2 * np.pi * np.asarray(turns))], axis=-1)


def _rotation(angle: float) -> np.ndarray:
    """The matrix that turns rows of (y, x) by `angle` radians."""
    cos, sin = math.cos(angle), math.sin(angle)
    return np.array([[cos, sin], [-sin, cos]])


_ARM, _END = 0.3, math.sqrt(1 - 0.3**2)  # half the width of a cross's arm, and its length
_NOTCH = 0.42  # a star's inner radius
# KEYPOINTS of each upright shape in units of its radius: ends of its axes, or the corner that lies there.
_UNIT_KEYPOINTS = {
    "circle": np.vstack([_polar([0, 1 / 4, 1 / 2, 3 / 4]), [[0, 0]]]),
    "square": np.vstack([_polar([0, 1 / 4, 1 / 2, 3 / 4]) / math.sqrt(2), [[0, 0]]]),
    "triangle": np.vstack([_polar([0, 1 / 3]), [[0.5, 0]], _polar([2 / 3]), [[0, 0]]]),
    "star": np.vstack([_polar([0, 1 / 5]), [[_NOTCH, 0]], _polar([4 / 5]), [[0, 0]]]),
    "cross": np.vstack([_END * _polar([0, 1 / 4, 1 / 2, 3 / 4]), [[0, 0]]]),
}


def _stripes(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """A wave `[h, w, 1]` in 0..1 of random direction and width."""
    angle, period = rng.uniform(0, math.pi), rng.uniform(6, 30)
    ys, xs = np.mgrid[:height, :width]
    wave = np.sin(2 * math.pi * (ys * math.sin(angle) + xs * math.cos(angle)) / period)
    return 0.5 + 0.5 * wave[..., None]


def _background(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """Float `[h, w, 3]` in 0..255: a gradient, stripes, blotches or one colour, in two muted colours."""
    one, other = rng.uniform(20, 235, (2, 3))
    other = one + 0.5 * (other - one)
    kind = rng.integers(4)
    if kind == 0:
        angle = rng.uniform(0, 2 * math.pi)
        ys, xs = np.mgrid[:height, :width]
        ramp = (ys / height * math.sin(angle) + xs / width * math.cos(angle))[..., None]
        mix = (ramp - ramp.min()) / (ramp.max() - ramp.min())
    elif kind == 1:
        mix = _stripes(rng, height, width)
    elif kind == 2:
        coarse = Image.fromarray(rng.integers(0, 256, (6, 8), np.uint8))
        mix = np.asarray(coarse.resize((width, height), Image.Resampling.BICUBIC), np.float64)[..., None] / 255.0
    else:
        mix = np.zeros((height, width, 1))
    return one + mix * (other - one)


def _texture(rng: np.random.Generator, canvas: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Float `[h, w, 3]`: a colour well apart from what lies under `mask`, plain, striped or shaded."""
    under = canvas[mask].mean(axis=0)
    color = max((rng.uniform(0, 255, 3) for _ in range(4)), key=lambda one: float(np.abs(one - under).sum()))
    height, width = mask.shape
    kind = rng.integers(3)
    if kind == 0:
        return np.broadcast_to(color, canvas.shape)
    if kind == 1:
        return color + 0.35 * _stripes(rng, height, width) * (rng.uniform(0, 255, 3) - color)
    shade = np.linspace(rng.uniform(0.7, 1.0), rng.uniform(1.0, 1.3), height)[:, None, None]
    return np.broadcast_to(color * shade, canvas.shape)


@contextlib.contextmanager
def _quiet_tfds() -> Iterator[None]:
    """Without TFDS's talk of downloads, of which there are none; its bars come and go within seconds."""
    tfds.disable_progress_bar()
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        tfds.enable_progress_bar()


def shapes_builder(config: str = "", folder: str | Path | None = None) -> TfodZooShapes:
    """The prepared builder of a configuration; makes the data (about 2 ms an image) if they are not there.

    Args:
      config: its name, "" for the default.
      folder: TFDS data folder, None for TFDS's default.

    Raises:
      DataError: the name is not HEIGHTxWIDTH_NUMBERtrain_NUMBERvalidation_seedNUMBER, or the folder cannot be written.
    """
    match = _CONFIG.fullmatch(config or DEFAULT_CONFIG.name)
    if not match:
        raise DataError(
            f"tfod_zoo_shapes has no configuration {config!r}; write one like {DEFAULT_CONFIG.name} "
            "(HEIGHTxWIDTH_..., sizes in pixels)."
        )
    chosen = _config(*(int(number) for number in match.groups()))
    # A configuration that TFDS does not know by name draws a warning from it.
    TfodZooShapes.builder_configs.setdefault(chosen.name, chosen)
    try:
        builder = TfodZooShapes(data_dir=None if folder is None else str(folder), config=chosen.name)
        with _quiet_tfds():
            builder.download_and_prepare()
    except OSError as error:
        raise DataError(f"The shapes data set cannot be written to {folder or 'the TFDS folder'}: {error}.") from error
    return builder


def prepare_shapes(
    folder: str | Path,
    *,
    train: int = 2000,
    validation: int = 400,
    image_size: int | tuple[int, int] = (240, 320),
    seed: int = 0,
    keypoint_classes: Sequence[str] = CLASSES,
) -> tuple[str, str, Path]:
    """Makes the shapes data set, or finds it made.

    Args:
      folder: TFDS data folder; the label map lies there too, as `shapes_label_map.pbtxt`.
      train, validation: number of examples.
      image_size: largest size in pixels, (height, width) or one number for both.
      seed: of everything in the images.
      keypoint_classes: whose keypoints the label map names, some of CLASSES; a keypoint model learns those.

    Returns:
      the train and validation paths for an input reader, and the label map's path.

    Raises:
      DataError: sizes or numbers that make no data set, or a folder that cannot be written.
    """
    height, width = (image_size, image_size) if isinstance(image_size, int) else image_size
    folder = Path(folder).absolute()
    config = _config(height, width, train, validation, seed)
    shapes_builder(config.name, folder)
    label_map = folder / "shapes_label_map.pbtxt"
    write_label_map(shapes_label_map(keypoint_classes), label_map)
    path = f"tfds:tfod_zoo_shapes/{config.name}"
    return f"{path}:train@{folder}", f"{path}:validation@{folder}", label_map


def shapes_label_map(keypoint_classes: Sequence[str] = CLASSES) -> LabelMap:
    """The label map of the shapes: ids 1 to 5, and keypoint ids from 0 class by class.

    Raises:
      DataError: a class that is none of the shapes.
    """
    unknown = set(keypoint_classes) - set(CLASSES)
    if unknown:
        raise DataError(f"{min(unknown)!r} is no shape; the shapes are {', '.join(CLASSES)}.")
    posed = [name for name in CLASSES if name in keypoint_classes]
    count = len(KEYPOINTS)
    keypoints = {name: tuple(enumerate(KEYPOINTS, count * place)) for place, name in enumerate(posed)}
    return LabelMap(
        tuple(LabelMapItem(number, name, name, keypoints.get(name, ())) for number, name in enumerate(CLASSES, 1))
    )
