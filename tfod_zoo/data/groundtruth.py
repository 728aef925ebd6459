"""Ground truth between record and network: what cannot be used goes, the rest is re-framed and padded."""

from __future__ import annotations

import tensorflow as tf

from tfod_zoo.data.errors import (
    KEYPOINT_OUTSIDE,
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
    """Drops the objects that cannot be used, clips boxes and forgets keypoints that lie beyond the image.

    Args:
      groundtruth: `[N, ...]` tensors; boxes normalised yxyx, classes int64 label-map ids (1-based), perhaps keypoints
        `[N, K, 2]`.
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
    if "keypoints" in groundtruth:
        points = groundtruth["keypoints"]
        away = tf.reduce_any((points < -_EDGE_TOLERANCE) | (points > 1.0 + _EDGE_TOLERANCE), axis=-1)
        counts[KEYPOINT_OUTSIDE] = tf.math.count_nonzero(away & usable[:, None])
        kept["keypoints"] = tf.where(away[..., None], float("nan"), points)
    kept = {key: tf.boolean_mask(value, usable)[:max_boxes] for key, value in kept.items()}
    return kept, tf.stack([counts.get(kind, zero) for kind in range(len(PROBLEMS))])


def reframe_to_canvas(groundtruth: Tensors, true_shape: tf.Tensor, canvas: tuple[int, int]) -> Tensors:
    """Boxes `[N, 4]`, and keypoints `[N, K, 2]` where there are any, normalised to the resized image -> normalised to
    the padded canvas (height, width)."""
    ratio = tf.cast(true_shape[:2], tf.float32) / tf.constant(canvas, tf.float32)
    moved = {"boxes": groundtruth["boxes"] * tf.tile(ratio, [2])}
    if "keypoints" in groundtruth:
        moved["keypoints"] = groundtruth["keypoints"] * ratio
    return {**groundtruth, **moved}


def pad_groundtruth(groundtruth: Tensors, max_boxes: int) -> Tensors:
    """Pads every `[N, ...]` tensor to `[max_boxes, ...]`, keypoints with NaN (not labelled), all else with zeros; adds
    `num_boxes` (int32 scalar)."""
    count = tf.shape(groundtruth["boxes"])[0]
    padded = {}
    for key, value in groundtruth.items():
        filling = float("nan") if key == "keypoints" else tf.zeros([], value.dtype)
        paddings = [[0, max_boxes - count], *[[0, 0]] * (value.shape.rank - 1)]
        padded[key] = tf.ensure_shape(tf.pad(value, paddings, constant_values=filling), [max_boxes, *value.shape[1:]])
    return {**padded, "num_boxes": count}
