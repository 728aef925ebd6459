"""Three transposed convolutions from stride 32 to stride 4 (spec: CenterNet, 4.3 and 4.6)."""

from collections.abc import Sequence

import tensorflow as tf
import tf_keras

from tfod_zoo.modeling.necks.fpn import BATCH_NORM_EPSILON, BATCH_NORM_MOMENTUM

FILTERS = (256, 128, 64)


class Deconvolution(tf_keras.layers.Layer):
    """Per width of `FILTERS`: convolution, batch norm, ReLU, then a 3x3 transposed convolution of stride 2 likewise.

    Args:
      kernel_size: of the ordinary convolutions; 3 after ResNet V2, 1 after MobileNetV2.
    """

    def __init__(self, kernel_size: int = 3, **kwargs):
        super().__init__(**kwargs)
        self.steps = []
        for width in FILTERS:
            self.steps.append(tf_keras.layers.Conv2D(width, kernel_size, padding="same"))
            self.steps.append(self._norm())
            self.steps.append(tf_keras.layers.Conv2DTranspose(width, 3, strides=2, padding="same"))
            self.steps.append(self._norm())

    @staticmethod
    def _norm() -> tf_keras.layers.BatchNormalization:
        return tf_keras.layers.BatchNormalization(momentum=BATCH_NORM_MOMENTUM, epsilon=BATCH_NORM_EPSILON)

    def call(self, inputs: Sequence[tf.Tensor], training: bool = False) -> tf.Tensor:
        """`[C5]` at stride 32 -> `[B, H/4, W/4, 64]`."""
        x = inputs[-1]
        for convolution, norm in zip(self.steps[::2], self.steps[1::2], strict=True):
            x = tf.nn.relu(norm(convolution(x), training=training))
        return x

    def checkpoint_layers(self) -> list[tf_keras.layers.Layer]:
        """The layers in the order of TFOD's `layer_with_weights-N`, N from 1 (N = 0 is the body)."""
        return list(self.steps)
