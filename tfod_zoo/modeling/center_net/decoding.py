"""From CenterNet's raw maps to boxes (spec: CenterNet, section 6)."""

import tensorflow as tf

from tfod_zoo.modeling.center_net.heads import OnDemand
from tfod_zoo.modeling.center_net.peaks import highest_peaks


def at_cells(maps: tf.Tensor | OnDemand, y: tf.Tensor, x: tf.Tensor) -> tf.Tensor:
    """Values of `[B, H, W, D]` maps at integer cells y, x `[B, N]` -> `[B, N, D]`; cells are clamped into the map."""
    height, width, depth = maps.shape[1:]
    y, x = tf.clip_by_value(y, 0, height - 1), tf.clip_by_value(x, 0, width - 1)
    if isinstance(maps, OnDemand):
        if y.shape[1] < height * width:
            return maps.at(y, x)
        maps = maps.head(maps.features)
    cell = y * width + x
    return tf.gather(tf.reshape(maps, [-1, height * width, depth]), cell, batch_dims=1)


def decode_centers(
    center: tf.Tensor, true_image_shapes: tf.Tensor, max_detections: int, num_classes: int
) -> tuple[dict[str, tf.Tensor], tuple[tf.Tensor, tf.Tensor]]:
    """The peaks of the centre heatmap.

    Args:
      center: `[B, H, W, C]` logits; or more channels, see `heads.heatmap_filled_up`.
      true_image_shapes: `[B, 3]` int32, the image's size inside the padded input, in input pixels.
      max_detections: peaks returned per image.
      num_classes: C.

    Returns:
      `detection_scores [B, k]`, descending; `detection_multiclass_scores [B, k, C]`; `detection_classes [B, k]` int32,
      0-based; `num_detections [B]` int32. And the peaks' cells, y and x, `[B, k]` int32 each.
    """
    height, width, _ = center.shape[1:]
    true_size = true_image_shapes[:, None, :2]
    # The reference compares output rows with input pixels here, so padding is masked only for images smaller than the
    # map itself; published figures depend on it (spec, section 6).
    inside = tf.cast(tf.range(height) < true_size[..., 0], tf.float32)[:, :, None, None]
    inside *= tf.cast(tf.range(width) < true_size[..., 1], tf.float32)[:, None, :, None]

    scores, y, x, classes = highest_peaks(center, inside, max_detections, num_classes)
    detections = {
        "detection_scores": scores,
        "detection_multiclass_scores": tf.sigmoid(at_cells(center, y, x)[..., :num_classes]) * at_cells(inside, y, x),
        "detection_classes": classes,
        "num_detections": tf.reduce_sum(tf.cast(scores > 0, tf.int32), -1),
    }
    return detections, (y, x)


def decode_boxes(
    scale: tf.Tensor | OnDemand,
    offset: tf.Tensor | OnDemand,
    cells: tuple[tf.Tensor, tf.Tensor],
    true_image_shapes: tf.Tensor,
    stride: int,
) -> dict[str, tf.Tensor]:
    """The boxes around centres.

    Args:
      scale: `[B, H, W, 2]` (h, w) and offset: `[B, H, W, 2]` (y, x), in output cells.
      cells: the centres' y and x, `[B, k]` int32 each.
      true_image_shapes: `[B, 3]` int32, in input pixels.
      stride: input pixels per output cell.

    Returns:
      `detection_boxes [B, k, 4]` normalised to the true image, in 0..1; `detection_boxes_strided [B, k, 4]` in output
      cells.
    """
    height, width, _ = scale.shape[1:]
    size = tf.maximum(at_cells(scale, *cells), 0.0)
    middle = tf.cast(tf.stack(cells, -1), tf.float32) + at_cells(offset, *cells)
    limits = tf.constant([height, width, height, width], tf.float32)
    strided = tf.clip_by_value(tf.concat([middle - size / 2, middle + size / 2], -1), 0.0, limits)
    true_size = tf.cast(tf.tile(true_image_shapes[:, None, :2], [1, 1, 2]), tf.float32)
    return {
        # By one factor: of a division, TensorFlow makes another product where the size is known before the call.
        "detection_boxes": tf.clip_by_value(strided * (stride / true_size), 0.0, 1.0),
        "detection_boxes_strided": strided,
    }
