"""Boxes as offsets from anchors, which both stages predict (arXiv:1506.01497, equation 2; spec, section 6)."""

import tensorflow as tf

CENTER_SCALE, SIZE_SCALE = 10.0, 5.0  # the codes' spread, brought near 1; fixed in TFOD's builder
_SIDE_MARGIN = 1e-8  # added to every side before it divides or is divided: no infinite code for a box without area


def encode(boxes: tf.Tensor, anchors: tf.Tensor) -> tf.Tensor:
    """Boxes -> codes `(ty, tx, th, tw)`: how far the centre moved in anchor sizes, and the logarithm of the growth.

    Args:
      boxes: `[..., 4]` yxyx. anchors: `[..., 4]` yxyx in the same units; the two broadcast.

    Returns:
      Finite float32 codes `[..., 4]`.
    """
    center, size = _center_and_size(boxes)
    anchor_center, anchor_size = _center_and_size(anchors)
    size, anchor_size = size + _SIDE_MARGIN, anchor_size + _SIDE_MARGIN
    moved = CENTER_SCALE * (center - anchor_center) / anchor_size
    return tf.concat([moved, SIZE_SCALE * tf.math.log(size / anchor_size)], -1)


def decode(codes: tf.Tensor, anchors: tf.Tensor) -> tf.Tensor:
    """Codes `[..., 4]` and anchors `[..., 4]`, which broadcast -> boxes `[..., 4]` in the anchors' units, unclipped."""
    anchor_center, anchor_size = _center_and_size(anchors)
    center = codes[..., :2] / CENTER_SCALE * anchor_size + anchor_center
    half = tf.exp(codes[..., 2:] / SIZE_SCALE) * anchor_size / 2
    return tf.concat([center - half, center + half], -1)


def _center_and_size(boxes: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    size = boxes[..., 2:] - boxes[..., :2]
    return boxes[..., :2] + size / 2, size
