"""Images with boxes for TensorBoard."""

from __future__ import annotations

import tensorflow as tf

# One colour a class, in turn: RGB in 0..1, bright enough on photographs.
_COLORS = ((1.0, 0.2, 0.2), (0.2, 1.0, 0.2), (0.3, 0.5, 1.0), (1.0, 0.9, 0.1), (1.0, 0.3, 1.0), (0.1, 1.0, 1.0))
_GAP = 4  # pixels between two pictures side by side

Tensors = dict[str, tf.Tensor]


def with_groundtruth(features: Tensors, groundtruth: Tensors, row: int) -> tf.Tensor:
    """One image of a batch as the network gets it, with its boxes: `[H, W, 3]` float32 in 0..1, padding included."""
    count = groundtruth["num_boxes"][row]
    return _drawn(features["image"][row], groundtruth["boxes"][row, :count], groundtruth["classes"][row, :count])


def side_by_side(
    features: Tensors, groundtruth: Tensors, detections: Tensors, row: int, *, min_score: float, max_boxes: int
) -> tf.Tensor:
    """Detections on the left, ground truth on the right, as TFOD shows an evaluation: `[H, 2W + gap, 3]` in 0..1."""
    canvas = tf.cast(tf.shape(features["image"])[1:3], tf.float32)
    # Detections are relative to the image without its padding, ground truth to the padded one.
    part = tf.cast(features["true_image_shape"][row, :2], tf.float32) / canvas
    truth = with_groundtruth(features, groundtruth, row)
    found = features["image"][row]
    if "detection_boxes" in detections:
        shown = tf.where(detections["detection_scores"][row] >= min_score)[:max_boxes, 0]
        boxes = tf.gather(detections["detection_boxes"][row], shown) * tf.concat([part, part], 0)
        found = _drawn(found, boxes, tf.gather(detections["detection_classes"][row], shown))
    else:
        found = _drawn(found, tf.zeros([0, 4]), tf.zeros([0]))
    return tf.concat([found, tf.ones([found.shape[0], _GAP, 3]), truth], axis=1)


def _drawn(image: tf.Tensor, boxes: tf.Tensor, classes: tf.Tensor) -> tf.Tensor:
    image = tf.clip_by_value(image / 255.0, 0.0, 1.0)
    if not boxes.shape[0]:
        return image
    colors = tf.gather(tf.constant(_COLORS), tf.cast(classes, tf.int32) % len(_COLORS))
    # The operation knows one set of colours for all boxes of a batch, in turn: these are of this image alone.
    return tf.image.draw_bounding_boxes(image[None], boxes[None], colors)[0]
