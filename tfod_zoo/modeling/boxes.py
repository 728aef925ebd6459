"""Boxes as `(ymin, xmin, ymax, xmax)` in the last axis: area, overlap, clipping, units. Any leading axes."""

import tensorflow as tf


def area(boxes: tf.Tensor) -> tf.Tensor:
    """Areas `[...]` of boxes `[..., 4]`, in their units squared; 0 where a side is not positive."""
    sides = tf.maximum(boxes[..., 2:] - boxes[..., :2], 0.0)
    return sides[..., 0] * sides[..., 1]


def pairwise_iou(rows: tf.Tensor, columns: tf.Tensor) -> tf.Tensor:
    """Intersection over union of every row box with every column box.

    Args:
      rows: `[..., M, 4]`. columns: `[..., N, 4]`, same units; the leading axes broadcast.

    Returns:
      `[..., M, N]` in 0..1, and 0 wherever two boxes do not overlap, boxes without area included.
    """
    # Coordinate by coordinate: a [..., M, N, 2] tensor of corners would cost twice the memory of all that is needed.
    top, left, bottom, right = (coordinate[..., :, None] for coordinate in tf.unstack(rows, axis=-1))
    ymin, xmin, ymax, xmax = (coordinate[..., None, :] for coordinate in tf.unstack(columns, axis=-1))
    height = tf.maximum(tf.minimum(bottom, ymax) - tf.maximum(top, ymin), 0.0)
    width = tf.maximum(tf.minimum(right, xmax) - tf.maximum(left, xmin), 0.0)
    intersection = height * width
    union = area(rows)[..., :, None] + area(columns)[..., None, :] - intersection
    return tf.math.divide_no_nan(intersection, union)


def clip_to_window(boxes: tf.Tensor, window: tf.Tensor) -> tf.Tensor:
    """Boxes `[..., N, 4]` with every corner moved into the window `[..., 4]`, which may differ from image to image."""
    low, high = window[..., None, :2], window[..., None, 2:]
    return tf.minimum(tf.maximum(boxes, tf.concat([low, low], -1)), tf.concat([high, high], -1))


def normalize(boxes: tf.Tensor, height_width: tf.Tensor) -> tf.Tensor:
    """Boxes `[..., N, 4]` in pixels -> in units of the image's height and width `[..., 2]`, 0..1 inside it."""
    # By one factor, as TensorFlow itself divides by a size that is known before the call: the same either way.
    return boxes * (1.0 / _tiled(height_width))


def denormalize(boxes: tf.Tensor, height_width: tf.Tensor) -> tf.Tensor:
    """The inverse of `normalize`: boxes `[..., N, 4]` in units of the image -> in pixels."""
    return boxes * _tiled(height_width)


def _tiled(height_width: tf.Tensor) -> tf.Tensor:
    """(height, width) `[..., 2]`, of any number type -> `[..., 1, 4]` float32 beside the corners of boxes."""
    size = tf.cast(height_width, tf.float32)[..., None, :]
    return tf.concat([size, size], -1)
