"""Cutting proposals out of feature maps: bilinear samples on a grid, then max-pooling (spec, section 9).

Two forms with the same numbers for boxes inside the map, as proposals are. The native one is an operation of
TensorFlow, the fastest on a CPU; the matrix one is made of products, which XLA compiles and TPUs like.

Each cell of the pooled crop is the maximum of its samples. They are computed as kernel x kernel crops, shifted against
each other, whose maximum is taken place by place: the unpooled crop, four times as large, is never made, and only the
cells that the next layer looks at are computed.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import tensorflow as tf


@dataclass(frozen=True)
class CropShape:
    """The grid of samples of a crop.

    Attributes:
      size: samples along each side (`initial_crop_size`), the first and last on the box's edges.
      kernel, stride: of the max-pooling.
      step: only every so many-th pooled row and column is wanted.
    """

    size: int
    kernel: int
    stride: int
    step: int = 1

    @property
    def cells(self) -> int:
        """Rows, and columns, of the result."""
        pooled = (self.size - self.kernel) // self.stride + 1
        return -(-pooled // self.step)

    def positions(self, shift: int) -> list[float]:
        """Where the cells' samples number `shift` lie along a side, in 0..1 of the box."""
        return [(cell * self.step * self.stride + shift) / (self.size - 1) for cell in range(self.cells)]


def crop_and_pool(
    maps: Sequence[tf.Tensor], boxes: tf.Tensor, levels: tf.Tensor | None, shape: CropShape, *, matrix: bool
) -> tf.Tensor:
    """Cuts boxes out of feature maps.

    Args:
      maps: one `[B, h, w, C]`, or one per level.
      boxes: `[B, P, 4]` yxyx normalised to the padded input; 0 is the centre of the first cell, 1 of the last.
      levels: `[B, P]` int32, which map a box is cut out of; None where there is only one.
      shape: the grid.
      matrix: the matrix form.

    Returns:
      `[B * P, cells, cells, C]`. No gradient flows to the boxes.
    """
    boxes = tf.stop_gradient(boxes)
    crop = _matrix_crop if matrix else _native_crop
    if not matrix and len(maps) > 1:
        assert levels is not None
        maps, boxes = [_stacked(maps)], _boxes_in_stack(boxes, levels, maps)
    if len(maps) == 1:
        return _pooled(maps[0], boxes, shape, crop)
    pooled = None
    for level, features in enumerate(maps):
        here = tf.reshape(tf.equal(levels, level), [-1, 1, 1, 1])
        crops = _pooled(features, boxes, shape, crop)
        pooled = crops if pooled is None else tf.where(here, crops, pooled)
    return pooled


def select_levels(boxes: tf.Tensor, height: int, width: int, num_levels: int) -> tf.Tensor:
    """The pyramid level that a proposal is cut out of, by its size (spec, section 9.1).

    Args:
      boxes: `[B, P, 4]` normalised to the padded input of height x width pixels.

    Returns:
      `[B, P]` int32 in 0..num_levels - 1, 0 the finest. A box of 224 pixels a side takes number `num_levels` - 2.
    """
    sides = tf.maximum(boxes[..., 2:] - boxes[..., :2], 0.0)
    relative = tf.sqrt(sides[..., 0] * sides[..., 1]) * ((height * width) ** 0.5 / _CANONICAL_SIDE)
    level = tf.floor(tf.math.log(relative) / tf.math.log(2.0)) + (num_levels - 2)
    return tf.cast(tf.clip_by_value(level, 0, num_levels - 1), tf.int32)


_MARGIN = 1e-6  # of the map's side: several times the rounding error of a sample's place

_CANONICAL_SIDE = 224  # pixels: what ImageNet networks were trained on (arXiv:1612.03144, equation 1)

Crop = Callable[[tf.Tensor, tf.Tensor, list[float], list[float]], tf.Tensor]


def _pooled(features: tf.Tensor, boxes: tf.Tensor, shape: CropShape, crop: Crop) -> tf.Tensor:
    pooled = None
    for y in range(shape.kernel):
        for x in range(shape.kernel):
            samples = crop(features, boxes, shape.positions(y), shape.positions(x))
            pooled = samples if pooled is None else tf.maximum(pooled, samples)
    return pooled


def _native_crop(features: tf.Tensor, boxes: tf.Tensor, rows: list[float], columns: list[float]) -> tf.Tensor:
    """Samples at `rows` and `columns`, evenly spaced, of each box."""
    corner, size = boxes[..., :2], boxes[..., 2:] - boxes[..., :2]
    first, last = tf.constant([rows[0], columns[0]]), tf.constant([rows[-1], columns[-1]])
    # A sample on the last cell's centre that rounding puts behind it would be 0, as anything outside the map.
    grids = tf.minimum(tf.concat([corner + first * size, corner + last * size], -1), 1 - _MARGIN)
    batch, count = tf.shape(boxes)[0], boxes.shape[1]
    image = tf.repeat(tf.range(batch), count)
    return tf.image.crop_and_resize(features, tf.reshape(grids, [-1, 4]), image, [len(rows), len(columns)])


def _matrix_crop(features: tf.Tensor, boxes: tf.Tensor, rows: list[float], columns: list[float]) -> tf.Tensor:
    """Samples at `rows` and `columns` of each box, by products with matrices of bilinear weights."""
    height, width, channels = features.shape[1:]
    ymin, xmin, ymax, xmax = tf.unstack(boxes, axis=-1)
    by_row = _bilinear_weights(ymin, ymax, rows, height)  # [B, P, rows, height]
    by_column = _bilinear_weights(xmin, xmax, columns, width)
    taken = tf.einsum("bprh,bhwc->bprwc", by_row, features)
    samples = tf.einsum("bpkw,bprwc->bprkc", by_column, taken)
    return tf.reshape(samples, [-1, len(rows), len(columns), channels])


def _bilinear_weights(low: tf.Tensor, high: tf.Tensor, positions: list[float], cells: int) -> tf.Tensor:
    """What each cell of a side adds to the samples at `positions` from `low` to `high [B, P]`: `[B, P, n, cells]`."""
    low, high = low[..., None] * (cells - 1), high[..., None] * (cells - 1)
    places = low + tf.constant(positions) * (high - low)
    return tf.maximum(1.0 - tf.abs(places[..., None] - tf.range(cells, dtype=tf.float32)), 0.0)


def _stacked(maps: Sequence[tf.Tensor]) -> tf.Tensor:
    """All levels below each other in one image, as wide as the widest."""
    width = max(features.shape[2] for features in maps)
    return tf.concat(
        [tf.pad(features, [[0, 0], [0, 0], [0, width - features.shape[2]], [0, 0]]) for features in maps], 1
    )


def _boxes_in_stack(boxes: tf.Tensor, levels: tf.Tensor, maps: Sequence[tf.Tensor]) -> tf.Tensor:
    """Boxes `[B, P, 4]`, normalised to their own level -> normalised to the image of `_stacked`."""
    heights, widths = [features.shape[1] for features in maps], [features.shape[2] for features in maps]
    starts = [sum(heights[:level]) for level in range(len(maps))]
    size = tf.gather(tf.constant([[h - 1, w - 1] for h, w in zip(heights, widths, strict=True)], tf.float32), levels)
    start = tf.gather(tf.constant([[start, 0] for start in starts], tf.float32), levels)
    whole = tf.constant([sum(heights) - 1, max(widths) - 1], tf.float32)
    return (boxes * tf.tile(size, [1, 1, 2]) + tf.tile(start, [1, 1, 2])) / tf.tile(whole, [2])
