"""An image pyramid, and a window of one size that slides over each of its levels.

Shrinking the image is enlarging the window: on a level of half the size the window covers twice as much. A level whose
height and width shrink by different factors gives windows that are not square.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorflow as tf

from tfod_zoo.errors import ZooError

_WHERE = "model.faster_rcnn.first_stage_anchor_generator"


@dataclass(frozen=True)
class Axis:
    """One side of a level: `size` pixels, on which a window starts every `step` pixels, `count` times."""

    size: int
    step: int
    count: int


@dataclass(frozen=True)
class Pyramid:
    """All levels as (rows, columns), and the side of the window in pixels of a level."""

    levels: tuple[tuple[Axis, Axis], ...]
    side: int

    @property
    def count(self) -> int:
        """Windows of an image."""
        return sum(rows.count * columns.count for rows, columns in self.levels)

    def boxes(self, height: int, width: int) -> np.ndarray:
        """Where the windows lie on a canvas of height x width: `[N, 4]` float32 yxyx in its pixels, none outside."""
        found = []
        for rows, columns in self.levels:
            tops, lefts = np.arange(rows.count) * rows.step, np.arange(columns.count) * columns.step
            corner = np.stack(np.meshgrid(tops, lefts, indexing="ij"), -1).reshape(-1, 2)
            scale = np.array([height / rows.size, width / columns.size])
            found.append(np.concatenate([corner * scale, (corner + self.side) * scale], -1))
        return np.concatenate(found).astype(np.float32)

    def windows(self, canvas: tf.Tensor) -> tf.Tensor:
        """The windows' pixels: `[B, H, W, 3]` float32 -> `[B, N, side, side, 3]`, in the order of `boxes`."""
        found = []
        for rows, columns in self.levels:
            by_row, by_column = resizing(canvas.shape[1], rows.size), resizing(canvas.shape[2], columns.size)
            level = tf.einsum("sw,btwc->btsc", by_column, tf.einsum("th,bhwc->btwc", by_row, canvas))
            patches = tf.image.extract_patches(
                level, [1, self.side, self.side, 1], [1, rows.step, columns.step, 1], [1, 1, 1, 1], "VALID"
            )
            found.append(tf.reshape(patches, [-1, rows.count * columns.count, self.side, self.side, 3]))
        return tf.concat(found, 1)


def resizing(source: int, target: int) -> np.ndarray:
    """How much each of `source` pixels in a row adds to each of `target`: `[target, source]` float32, rows of sum 1.

    The same as `tf.image.resize(antialias=True)`, as a matrix: XLA has no kernel for that operation.
    """
    scale = source / target
    distance = (np.arange(target) + 0.5)[:, None] * scale - (np.arange(source) + 0.5)
    weights = np.maximum(1 - np.abs(distance) / max(scale, 1.0), 0)
    return (weights / weights.sum(1, keepdims=True)).astype(np.float32)


def build_pyramid(generator: Any, side: int, height: int, width: int) -> Pyramid:
    """The pyramid of a canvas of height x width pixels.

    Args:
      generator: AnchorGenerator message with a grid: a window of `height` x `width` every `height_stride` and
        `width_stride` pixels, in every aspect ratio; a scale enlarges all of these.
      side: of the window that the classifier takes, in pixels.

    Raises:
      ZooError: another generator, or a field of it that makes no windows.
    """
    if generator.WhichOneof("anchor_generator_oneof") != "grid_anchor_generator":
        raise ZooError(f"{_WHERE} has to be a grid_anchor_generator: it says where the windows are.")
    grid = generator.grid_anchor_generator
    values = [grid.height, grid.width, grid.height_stride, grid.width_stride, *grid.scales, *grid.aspect_ratios]
    if not grid.scales or not grid.aspect_ratios or min(values) <= 0:
        raise ZooError(f"{_WHERE}.grid_anchor_generator needs scales and aspect_ratios, and sizes and strides above 0.")
    levels = []
    for scale in grid.scales:
        for ratio in grid.aspect_ratios:
            tall, wide = grid.height * scale / math.sqrt(ratio), grid.width * scale * math.sqrt(ratio)
            rows = _axis(height, tall, grid.height_stride / grid.height, side)
            columns = _axis(width, wide, grid.width_stride / grid.width, side)
            if (rows, columns) not in levels:  # windows as large as the canvas may be the same in several ratios
                levels.append((rows, columns))
    return Pyramid(tuple(levels), side)


def _axis(canvas: int, window: float, stride: float, side: int) -> Axis:
    """One side of a level whose windows cover `window` of `canvas` pixels, every `stride` of a window.

    The level is made a little larger or smaller, so that its last window ends with it.
    """
    step = max(round(side * stride), 1)
    steps = max(round((canvas / window - 1) * side / step), 0)
    return Axis(side + steps * step, step, steps + 1)
