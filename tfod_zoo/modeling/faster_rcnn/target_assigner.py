"""What the region proposal network and the box head should say, from ground truth (spec, section 10)."""

from typing import NamedTuple

import tensorflow as tf

from tfod_zoo.modeling.faster_rcnn.box_coder import encode
from tfod_zoo.modeling.faster_rcnn.matcher import NEGATIVE, gather_matched, match

# IoU from which the RPN calls an anchor an object, and under which background; in between it does not care.
_OBJECT, _BACKGROUND = 0.7, 0.3
_DETECTION = 0.5  # IoU from which a proposal takes an object's class; background below it


class Targets(NamedTuple):
    """Targets of N anchors or proposals an image; no gradient flows through any of them.

    Attributes:
      class_targets: of the RPN `[B, N]`, 1 for an object and 0 for background; of the box head `[B, N, K + 1]` one-hot,
        background first.
      class_weights: `[B, N]`: the ground truth's weight where matched, 1 for background, 0 where ignored.
      box_targets: `[B, N, 4]` codes; 0 where not matched.
      box_weights: `[B, N]`: the ground truth's weight where matched, else 0.
      matched: `[B, N]` int32: the ground-truth row, or `matcher.NEGATIVE` or `matcher.IGNORED`.
    """

    class_targets: tf.Tensor
    class_weights: tf.Tensor
    box_targets: tf.Tensor
    box_weights: tf.Tensor
    matched: tf.Tensor


def rpn_targets(anchors: tf.Tensor, boxes: tf.Tensor, weights: tf.Tensor, *, matmul_gather: bool = False) -> Targets:
    """Targets of the anchors: objects by their overlap, and every object claims its best anchor.

    Args:
      anchors: `[A, 4]` or `[B, A, 4]` in pixels, A static.
      boxes: `[B, M, 4]` in pixels; padded rows are zero. weights: `[B, M]`, 0 in padded rows.
      matmul_gather: see `matcher.gather_matched`.
    """
    matched = match(
        boxes, anchors, weights, matched_threshold=_OBJECT, unmatched_threshold=_BACKGROUND, force_match_rows=True
    )
    values = gather_matched(tf.concat([boxes, weights[..., None]], -1), matched, matmul=matmul_gather)
    return _targets(tf.cast(matched >= 0, tf.float32), anchors, matched, values[..., :4], values[..., 4])


def detection_targets(
    proposals: tf.Tensor, boxes: tf.Tensor, class_vectors: tf.Tensor, weights: tf.Tensor, *, matmul_gather: bool = False
) -> Targets:
    """Targets of the proposals: the class and box of the object that each overlaps most, or background.

    Args:
      proposals: `[B, P, 4]` in pixels, P static.
      boxes: `[B, M, 4]` in pixels; padded rows are zero.
      class_vectors: `[B, M, K + 1]` one-hot, background first; zero in padded rows.
      weights: `[B, M]`, 0 in padded rows.
      matmul_gather: see `matcher.gather_matched`.
    """
    matched = match(
        boxes, proposals, weights, matched_threshold=_DETECTION, unmatched_threshold=_DETECTION, force_match_rows=False
    )
    rows = tf.concat([boxes, weights[..., None], class_vectors], -1)
    values = gather_matched(rows, matched, matmul=matmul_gather)
    background = tf.one_hot(0, class_vectors.shape[-1])
    labels = tf.where((matched >= 0)[..., None], values[..., 5:], background)
    return _targets(labels, proposals, matched, values[..., :4], values[..., 4])


def _targets(
    labels: tf.Tensor, anchors: tf.Tensor, matched: tf.Tensor, boxes: tf.Tensor, weights: tf.Tensor
) -> Targets:
    """`boxes [B, N, 4]` and `weights [B, N]` are of the matched rows, and of no meaning where nothing is matched."""
    is_matched = matched >= 0
    box_weights = tf.where(is_matched, weights, 0.0)
    class_weights = tf.where(matched == NEGATIVE, 1.0, box_weights)
    codes = tf.where(is_matched[..., None], encode(boxes, anchors), 0.0)
    return Targets(*(tf.stop_gradient(value) for value in (labels, class_weights, codes, box_weights, matched)))
