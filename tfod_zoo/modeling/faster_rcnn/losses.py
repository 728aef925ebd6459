"""Faster R-CNN's four losses (spec, section 11)."""

import tensorflow as tf

from tfod_zoo.modeling.faster_rcnn.target_assigner import Targets

RPN_LOCALIZATION = "Loss/RPNLoss/localization_loss"
RPN_OBJECTNESS = "Loss/RPNLoss/objectness_loss"
BOX_LOCALIZATION = "Loss/BoxClassifierLoss/localization_loss"
BOX_CLASSIFICATION = "Loss/BoxClassifierLoss/classification_loss"


def smooth_l1(codes: tf.Tensor, targets: tf.Tensor) -> tf.Tensor:
    """Quadratic up to a difference of 1 and linear beyond, added up over a box's codes: `[..., 4]` -> `[...]`."""
    difference = tf.abs(codes - targets)
    return tf.reduce_sum(tf.where(difference <= 1, tf.square(difference) / 2, difference - 0.5), -1)


def rpn_losses(
    box_encodings: tf.Tensor,
    objectness: tf.Tensor,
    targets: Targets,
    sampled: tf.Tensor,
    *,
    localization_weight: float,
    objectness_weight: float,
) -> dict[str, tf.Tensor]:
    """Losses of the region proposal network over the sampled anchors, a mean per image and over images.

    Both are divided by the number of sampled anchors, also the boxes' one, which only matched anchors contribute to.
    The objectness loss does not use the ground truth's weights (spec, trap 19).

    Args:
      box_encodings: `[B, A, 4]` codes. objectness: `[B, A, 2]` logits, background first.
      targets: from `rpn_targets`. sampled: `[B, A]` bool, from `balanced_sample`.
      localization_weight, objectness_weight: factors of the two losses.

    Returns:
      Two scalars under TFOD's keys.
    """
    mask = tf.cast(sampled, tf.float32)
    share = mask / tf.maximum(tf.reduce_sum(mask, -1, keepdims=True), 1.0)
    boxes = targets.box_weights * smooth_l1(box_encodings, targets.box_targets)
    entropy = tf.nn.sparse_softmax_cross_entropy_with_logits(tf.cast(targets.class_targets, tf.int32), objectness)
    return {
        RPN_LOCALIZATION: localization_weight * tf.reduce_mean(tf.reduce_sum(share * boxes, -1)),
        RPN_OBJECTNESS: objectness_weight * tf.reduce_mean(tf.reduce_sum(share * entropy, -1)),
    }


def box_head_losses(
    box_encodings: tf.Tensor,
    class_logits: tf.Tensor,
    targets: Targets,
    num_proposals: tf.Tensor,
    *,
    localization_weight: float,
    classification_weight: float,
) -> dict[str, tf.Tensor]:
    """Losses of the box head over the proposals, a mean per image and over images.

    Args:
      box_encodings: `[B, P, 1, 4]` codes of a box that all classes share, or `[B, P, K, 4]`, a box per class.
      class_logits: `[B, P, K + 1]`, background first.
      targets: from `detection_targets`.
      num_proposals: `[B]` int32; later rows are padding and do not count.
      localization_weight, classification_weight: factors of the two losses.

    Returns:
      Two scalars under TFOD's keys.
    """
    proposals = class_logits.shape[1]
    valid = tf.cast(tf.range(proposals) < num_proposals[:, None], tf.float32)
    share = valid / tf.cast(tf.maximum(num_proposals, 1), tf.float32)[:, None]
    if box_encodings.shape[2] == 1:
        codes = box_encodings[:, :, 0]
    else:
        # Background has no box of its own; its box weight is 0.
        label = tf.maximum(tf.argmax(targets.class_targets, -1, output_type=tf.int32) - 1, 0)
        codes = tf.gather(box_encodings, label, batch_dims=2)
    boxes = targets.box_weights * smooth_l1(codes, targets.box_targets)
    entropy = targets.class_weights * tf.nn.softmax_cross_entropy_with_logits(targets.class_targets, class_logits)
    return {
        BOX_LOCALIZATION: localization_weight * tf.reduce_mean(tf.reduce_sum(share * boxes, -1)),
        BOX_CLASSIFICATION: classification_weight * tf.reduce_mean(tf.reduce_sum(share * entropy, -1)),
    }
