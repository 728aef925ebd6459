"""From the region proposal network's outputs to proposals, and those that a training step uses (spec, 7 and 8)."""

from typing import NamedTuple

import tensorflow as tf

from tfod_zoo.modeling.faster_rcnn import box_coder
from tfod_zoo.modeling.faster_rcnn.samplers import balanced_sample
from tfod_zoo.modeling.faster_rcnn.target_assigner import detection_targets
from tfod_zoo.modeling.non_max_suppression import first_true, multiclass_non_max_suppression


class Proposals(NamedTuple):
    """Proposals of each image, the best first.

    Attributes:
      boxes: `[B, P, 4]` yxyx in pixels of the padded input.
      count: `[B]` int32; rows from there on are padding.
    """

    boxes: tf.Tensor
    count: tf.Tensor


def propose(
    codes: tf.Tensor,
    logits: tf.Tensor,
    anchors: tf.Tensor,
    true_image_shapes: tf.Tensor,
    *,
    max_proposals: int,
    iou_threshold: float,
    score_threshold: float,
    static: bool,
) -> Proposals:
    """The best boxes that do not overlap too much, clipped to the true image.

    Args:
      codes: `[B, A, 4]`. logits: `[B, A, 2]`, background first. anchors: `[A, 4]` in pixels.
      true_image_shapes: `[B, 3]` int32.
      max_proposals, iou_threshold, score_threshold: of the suppression.
      static: TFOD's static path: rows from `count` on hold the boxes without area inside the image instead of zeros.
    """
    window = tf.cast(true_image_shapes[:, :2], tf.float32)
    detections = multiclass_non_max_suppression(
        box_coder.decode(codes, anchors)[:, :, None],
        tf.nn.softmax(logits)[..., 1:],
        iou_threshold=iou_threshold,
        max_per_class=max_proposals,
        max_total=max_proposals,
        score_threshold=score_threshold,
        clip_window=tf.concat([tf.zeros_like(window), window], -1),
        keep_degenerate=static,
    )
    return Proposals(detections.boxes, detections.count)


def sample_proposals(
    proposals: Proposals,
    boxes: tf.Tensor,
    class_vectors: tf.Tensor,
    weights: tf.Tensor,
    *,
    size: int,
    positive_fraction: float,
    deterministic: bool,
    static: bool,
    matmul_gather: bool,
    seed: tf.Tensor | None = None,
) -> Proposals:
    """The proposals that a training step learns from, in their order (spec, section 8).

    Args:
      boxes: ground truth `[B, M, 4]` in pixels. class_vectors: `[B, M, K + 1]`, background first. weights: `[B, M]`.
      size, positive_fraction, deterministic, static, seed: see `samplers.balanced_sample`. The static form always
        counts `size` proposals, and repeats the first where fewer were chosen.
      matmul_gather: see `matcher.gather_matched`.
    """
    targets = detection_targets(proposals.boxes, boxes, class_vectors, weights, matmul_gather=matmul_gather)
    candidates = (tf.range(proposals.boxes.shape[1]) < proposals.count[:, None]) & (targets.class_weights > 0)
    positives = tf.argmax(targets.class_targets, -1) > 0
    sampled = balanced_sample(
        candidates, positives, size, positive_fraction, deterministic=deterministic, static=static, seed=seed
    )
    index, found = first_true(sampled, size)
    chosen = tf.gather(proposals.boxes, index, batch_dims=1)
    if static:
        return Proposals(chosen, tf.fill(tf.shape(proposals.count), size))
    return Proposals(tf.where(found[..., None], chosen, 0.0), tf.reduce_sum(tf.cast(found, tf.int32), -1))
