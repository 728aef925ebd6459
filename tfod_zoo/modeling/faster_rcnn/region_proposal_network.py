"""The region proposal network: an objectness and a box at every anchor (spec, section 5)."""

from collections.abc import Sequence
from dataclasses import replace

import tensorflow as tf
import tf_keras

from tfod_zoo.modeling import checkpoint
from tfod_zoo.modeling.conv_style import ConvStyle, ProductConv2D

_SLOTS = 2  # background, object


class RegionProposalNetwork(tf_keras.layers.Layer):
    """One convolution that all levels share, and a pair of 1x1 heads per level.

    Args:
      anchors_per_cell: at every level.
      num_levels: of feature maps.
      depth, kernel_size, dilation: of the shared convolution.
      style: initialisation and regularisation; its activation is not used: it is ReLU6 always (spec, trap 7).
    """

    def __init__(
        self,
        anchors_per_cell: int,
        num_levels: int,
        depth: int,
        kernel_size: int,
        dilation: int,
        style: ConvStyle,
        **kwargs,
    ):
        super().__init__(**kwargs)
        self._anchors_per_cell = anchors_per_cell
        shared = replace(style, layer=ProductConv2D)
        self.conv = shared.conv(depth, kernel_size, use_bias=True, dilation_rate=dilation, name="conv")
        self.box_heads, self.class_heads = (
            [style.conv(width * anchors_per_cell, 1, use_bias=True, name=f"{name}_{i}") for i in range(num_levels)]
            for name, width in (("box", 4), ("class", _SLOTS))
        )

    def call(self, maps: Sequence[tf.Tensor]) -> tuple[list[tf.Tensor], tf.Tensor, tf.Tensor]:
        """Maps `[B, h, w, C]` ->

        Returns:
          The shared convolution's outputs, one `[B, h, w, depth]` a level; box codes `[B, A, 4]` and logits `[B, A, 2]`
          of background and object, A in the order of `generate_anchors`.
        """
        features = [tf.nn.relu6(self.conv(level)) for level in maps]
        codes, logits = [], []
        for level, box_head, class_head in zip(features, self.box_heads, self.class_heads, strict=True):
            anchors = level.shape[1] * level.shape[2] * self._anchors_per_cell
            codes.append(tf.reshape(box_head(level), [-1, anchors, 4]))
            logits.append(tf.reshape(class_head(level), [-1, anchors, _SLOTS]))
        return features, tf.concat(codes, 1), tf.concat(logits, 1)

    def tfod_trees(self) -> dict:
        """The network under TFOD's attribute names."""

        def heads(layers, name):
            return checkpoint.tree(
                **{str(i): checkpoint.tree(**{name: checkpoint.tree(**{"0": head})}) for i, head in enumerate(layers)}
            )

        return {
            "_first_stage_box_predictor_first_conv": checkpoint.numbered([self.conv], 0),
            "_first_stage_box_predictor": checkpoint.tree(
                _prediction_heads=checkpoint.tree(
                    box_encodings=heads(self.box_heads, "_box_encoder_layers"),
                    class_predictions_with_background=heads(self.class_heads, "_class_predictor_layers"),
                )
            ),
        }
