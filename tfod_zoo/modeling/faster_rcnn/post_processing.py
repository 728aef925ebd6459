"""From the second stage's outputs to detections (spec, section 13)."""

from typing import Any

import tensorflow as tf

from tfod_zoo.modeling.boxes import clip_to_window, normalize
from tfod_zoo.modeling.faster_rcnn import box_coder
from tfod_zoo.modeling.faster_rcnn.proposals import Proposals
from tfod_zoo.modeling.non_max_suppression import multiclass_non_max_suppression

_CONVERTERS = {"IDENTITY": tf.identity, "SIGMOID": tf.sigmoid, "SOFTMAX": tf.nn.softmax}


def detections(
    codes: tf.Tensor, logits: tf.Tensor, proposals: Proposals, true_image_shapes: tf.Tensor, config: Any
) -> dict[str, tf.Tensor]:
    """Refined boxes, suppressed class by class.

    Args:
      codes: `[B, P, 1 or K, 4]`. logits: `[B, P, K + 1]`, background first.
      true_image_shapes: `[B, 3]` int32.
      config: the PostProcessing message.

    Returns:
      TFOD's detection dict; boxes are normalised to the true image.
    """
    converter = config.DESCRIPTOR.fields_by_name["score_converter"].enum_type.values_by_number[config.score_converter]
    scores = _CONVERTERS[converter.name](logits / config.logit_scale if config.logit_scale != 1 else logits)
    boxes = box_coder.decode(codes, proposals.boxes[:, :, None])
    true_size = tf.cast(true_image_shapes[:, :2], tf.float32)
    nms = config.batch_non_max_suppression
    kept = multiclass_non_max_suppression(
        boxes,
        scores[..., 1:],
        iou_threshold=nms.iou_threshold,
        max_per_class=nms.max_detections_per_class,
        max_total=nms.max_total_detections,
        score_threshold=nms.score_threshold,
        clip_window=tf.concat([tf.zeros_like(true_size), true_size], -1),
        change_coordinate_frame=nms.change_coordinate_frame,
        num_valid_boxes=proposals.count,
        additional_fields={"detection_multiclass_scores": scores},
        keep_degenerate=nms.use_static_shapes,
    )
    best = tf.argmax(logits[..., 1:], -1) if boxes.shape[2] > 1 else tf.zeros_like(scores[..., 0], tf.int64)
    raw = tf.gather(boxes, best, batch_dims=2)
    unit = tf.constant([0.0, 0.0, 1.0, 1.0])
    return {
        "detection_boxes": kept.boxes,
        "detection_scores": kept.scores,
        "detection_classes": tf.cast(kept.classes, tf.float32),
        **kept.fields,
        "detection_anchor_indices": kept.index,
        "num_detections": tf.cast(kept.count, tf.float32),
        "raw_detection_boxes": clip_to_window(normalize(raw, true_size), unit),
        "raw_detection_scores": scores,
    }
