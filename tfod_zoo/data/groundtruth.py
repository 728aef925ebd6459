"""Ground truth between record and network: what cannot be used goes, the rest is re-framed and padded."""

from __future__ import annotations

import tensorflow as tf

from tfod_zoo.data.errors import (
    NO_AREA,
    NOT_A_NUMBER,
    OUTSIDE,
    PARTLY_OUTSIDE,
    PROBLEMS,
    TOO_MANY,
    UNKNOWN_CLASS,
)

Tensors = dict[str, tf.Tensor]
# Boxes divided by the image size in float32 end a few units in the last place beyond 1; that is not "outside".
_EDGE_TOLERANCE = 1e-5


def check_groundtruth(groundtruth: Tensors, num_classes: int, max_boxes: int) -> tuple[Tensors, tf.Tensor]:
    """Drops the objects that cannot be used, and clips boxes that reach beyond the image.

    Args:
      groundtruth: `[N, ...]` tensors; boxes normalised yxyx, classes int64 label-map ids (1-based).
      num_classes: ids beyond it are unknown classes.
      max_boxes: more objects than this are dropped from the end, as TFOD does.

    Returns:
      the same dict without the dropped rows, classes int32 0-based; and int64 counts in the order of `errors.PROBLEMS`.
    """
    boxes, classes = groundtruth["boxes"], groundtruth["classes"]
    finite = tf.reduce_all(tf.math.is_finite(boxes), axis=-1)
    boxes = tf.where(finite[:, None], boxes, tf.zeros_like(boxes))
    has_area = tf.reduce_all(boxes[:, 2:] > boxes[:, :2], axis=-1)
    clipped = tf.clip_by_value(boxes, 0.0, 1.0)
    inside = tf.reduce_all(clipped[:, 2:] > clipped[:, :2], axis=-1)
    known = (classes >= 1) & (classes <= num_classes)
    beyond = tf.reduce_any(tf.abs(clipped - boxes) > _EDGE_TOLERANCE, axis=-1)
    # Each object counts under the first thing that is wrong with it.
    usable = finite & has_area & inside & known
    kinds = {
        NOT_A_NUMBER: ~finite,
        NO_AREA: finite & ~has_area,
        OUTSIDE: finite & has_area & ~inside,
        UNKNOWN_CLASS: finite & has_area & inside & ~known,
        PARTLY_OUTSIDE: usable & beyond,
    }
    zero = tf.constant(0, tf.int64)
    counts = {kind: tf.math.count_nonzero(mask) for kind, mask in kinds.items()}
    counts[TOO_MANY] = tf.maximum(tf.math.count_nonzero(usable) - max_boxes, 0)
    kept = {**groundtruth, "boxes": clipped, "classes": tf.cast(classes - 1, tf.int32)}
    kept = {key: tf.boolean_mask(value, usable)[:max_boxes] for key, value in kept.items()}
    return kept, tf.stack([counts.get(kind, zero) for kind in range(len(PROBLEMS))])


def reframe_to_canvas(boxes: tf.Tensor, true_shape: tf.Tensor, canvas: tuple[int, int]) -> tf.Tensor:
    """Boxes `[N, 4]` normalised to the resized image -> normalised to the padded canvas (height, width)."""
    true_hw = tf.cast(true_shape[:2], tf.float32)
    return boxes * tf.tile(true_hw / tf.constant(canvas, tf.float32), [2])


def pad_groundtruth(groundtruth: Tensors, max_boxes: int) -> Tensors:
    """Pads every `[N, ...]` tensor with zeros to `[max_boxes, ...]`, and adds `num_boxes` (int32 scalar)."""
    count = tf.shape(groundtruth["boxes"])[0]
    padded = {}
    for key, value in groundtruth.items():
        full = tf.pad(value, [[0, max_boxes - count], *[[0, 0]] * (value.shape.rank - 1)])
        padded[key] = tf.ensure_shape(full, [max_boxes, *value.shape[1:]])
    return {**padded, "num_boxes": count}
