"""CenterNet's prediction heads (spec: CenterNet, section 5)."""

from collections.abc import Sequence

import tensorflow as tf
import tf_keras

from tfod_zoo.modeling.pointwise import plus_bias


class _Conv(tf_keras.layers.Conv2D):
    """A convolution with `plus_bias` in training."""

    def call(self, inputs: tf.Tensor, training: bool = False) -> tf.Tensor:
        if not training:
            return super().call(inputs)
        return self.activation(plus_bias(self.convolution_op(inputs, self.kernel), tf.convert_to_tensor(self.bias)))


class _SeparableConv(tf_keras.layers.SeparableConv2D):
    """A depthwise and a pointwise convolution with `plus_bias` in training."""

    def call(self, inputs: tf.Tensor, training: bool = False) -> tf.Tensor:
        if not training:
            return super().call(inputs)
        convolved = tf.nn.separable_conv2d(
            inputs, self.depthwise_kernel, self.pointwise_kernel, [1, 1, 1, 1], self.padding.upper()
        )
        return self.activation(plus_bias(convolved, tf.convert_to_tensor(self.bias)))


def prediction_head(
    channels: int,
    in_channels: int,
    filters: Sequence[int] = (256,),
    kernel_sizes: Sequence[int] = (3,),
    bias: float = 0.0,
    separable: bool = False,
    name: str | None = None,
) -> tf_keras.Sequential:
    """A stack of convolutions with ReLU, then a 1x1 convolution to raw outputs (logits for heatmaps).

    Args:
      channels: output channels.
      in_channels: channels of the feature map.
      filters, kernel_sizes: the intermediate convolutions, of equal length; both empty leaves only the 1x1.
      bias: initial bias of the 1x1, e.g. -2.19 for heatmaps, so that training starts at a probability near 0.1.
      separable: depthwise separable intermediate convolutions (model-level `use_depthwise`).

    Returns:
      A built model `[B, H, W, in_channels] -> [B, H, W, channels]`.
    """
    convolution = _SeparableConv if separable else _Conv
    layers = [
        convolution(width, size, padding="same", activation="relu")
        for width, size in zip(filters, kernel_sizes, strict=True)
    ]
    layers.append(_Conv(channels, 1, bias_initializer=tf_keras.initializers.Constant(bias)))
    head = tf_keras.Sequential(layers, name=name)
    head.build((None, None, None, in_channels))
    return head
