"""The feature pyramid of TFOD's Faster R-CNN (Lin et al., arXiv:1612.03144; spec, section 3.4)."""

from collections.abc import Sequence

import tensorflow as tf
import tf_keras

from tfod_zoo.modeling import checkpoint
from tfod_zoo.modeling.conv_style import ConvStyle
from tfod_zoo.modeling.necks.fpn import double_nearest


class FeaturePyramid(tf_keras.layers.Layer):
    """Maps of one width at every level, merged from the coarsest to the finest.

    The coarsest map is left as its 1x1 gives it. What goes down to the next finer level is the smoothed and activated
    output, not the plain sum of the paper: the zoo's weights are for that.

    Args:
      laterals: how many maps of the body are merged.
      coarser: how many further levels are made by 3x3 convolutions of stride 2.
      depth: channels of every level.
    """

    def __init__(self, laterals: int, coarser: int, depth: int, style: ConvStyle, **kwargs):
        super().__init__(**kwargs)
        self._activation = style.activation
        self.top = style.conv(depth, 1, use_bias=True, name="top")
        merged = range(laterals - 1)
        self.laterals = [style.conv(depth, 1, use_bias=True, name=f"lateral_{i}") for i in merged]
        self.smoothing = [style.conv(depth, 3, name=f"smoothing_{i}") for i in merged]
        self.smoothing_norms = [style.norm(name=f"smoothing_norm_{i}") for i in merged]
        self.coarse = [style.conv(depth, 3, strides=2, name=f"coarse_{i}") for i in range(coarser)]
        self.coarse_norms = [style.norm(name=f"coarse_norm_{i}") for i in range(coarser)]

    def call(self, inputs: Sequence[tf.Tensor], training: bool = False) -> list[tf.Tensor]:
        """Maps of the body, fine to coarse, each half the size of the one before -> the levels, fine to coarse."""
        levels = [self.top(inputs[-1])]
        for lateral, conv, norm, features in zip(
            self.laterals, self.smoothing, self.smoothing_norms, reversed(inputs[:-1]), strict=True
        ):
            merged = double_nearest(levels[0]) + lateral(features)
            levels.insert(0, self._activation(norm(conv(merged), training=training)))
        for conv, norm in zip(self.coarse, self.coarse_norms, strict=True):
            levels.append(self._activation(norm(conv(levels[-1]), training=training)))
        return levels

    def tfod_nodes(self) -> dict:
        """The pyramid's parts under TFOD's attribute names."""

        def row(*layers):
            return checkpoint.tree(**{str(i): layer for i, layer in enumerate(layers)})

        return {
            "fpn_features_generator": checkpoint.tree(
                top_layers=row(self.top),
                residual_blocks=row(*(row(lateral) for lateral in self.laterals)),
                conv_layers=row(*map(row, self.smoothing, self.smoothing_norms)),
            ),
            "coarse_feature_layers": row(*map(row, self.coarse, self.coarse_norms)),
        }
