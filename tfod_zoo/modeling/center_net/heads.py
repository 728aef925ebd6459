"""CenterNet's prediction heads (spec: CenterNet, section 5)."""

from collections.abc import Sequence
from dataclasses import dataclass

import tensorflow as tf
import tf_keras

from tfod_zoo.modeling.placement import on_plain_cpu
from tfod_zoo.modeling.pointwise import plus_bias


class _Conv(tf_keras.layers.Conv2D):
    """A convolution with `plus_bias` in training."""

    def call(self, inputs: tf.Tensor, training: bool = False) -> tf.Tensor:
        if not training:
            return super().call(inputs)
        return self.activation(plus_bias(self.convolution_op(inputs, self.kernel), tf.convert_to_tensor(self.bias)))

    def of_patches(self, patches: tf.Tensor) -> tf.Tensor:
        """Each `[N, size^2, C]` is all that one output cell sees -> `[N, filters]`."""
        flat = tf.reshape(patches, [-1, patches.shape[1] * patches.shape[2]])
        product = tf.matmul(flat, tf.reshape(self.kernel, [-1, self.filters]))
        return self.activation(tf.nn.bias_add(product, self.bias))


class _SeparableConv(tf_keras.layers.SeparableConv2D):
    """A depthwise and a pointwise convolution with `plus_bias` in training."""

    def call(self, inputs: tf.Tensor, training: bool = False) -> tf.Tensor:
        if not training:
            return super().call(inputs)
        convolved = tf.nn.separable_conv2d(
            inputs, self.depthwise_kernel, self.pointwise_kernel, [1, 1, 1, 1], self.padding.upper()
        )
        return self.activation(plus_bias(convolved, tf.convert_to_tensor(self.bias)))

    def of_patches(self, patches: tf.Tensor) -> tf.Tensor:
        """See `_Conv.of_patches`."""
        depthwise = tf.reshape(self.depthwise_kernel, patches.shape[1:])
        product = tf.matmul(tf.reduce_sum(patches * depthwise, 1), self.pointwise_kernel[0, 0])
        return self.activation(tf.nn.bias_add(product, self.bias))


# A CPU's vectors hold so many float32. From 256 channels of 128x128 cells oneDNN makes 96 others in three quarters of
# the time that it takes for 90 (AVX-512).
_VECTOR = 16
_NEVER = -1e9  # a logit whose probability is 0


def heatmap_filled_up(head: tf_keras.Sequential, features: tf.Tensor) -> tf.Tensor:
    """A head's logits `[B, H, W, C]`; where it makes a CPU faster, with some channels more, of probability 0."""
    *hidden, last = head.layers
    missing = -last.filters % _VECTOR
    if missing > last.filters // 8 or head.compute_dtype != "float32" or not on_plain_cpu():
        return head(features)
    for layer in hidden:
        features = layer(features)
    kernel = tf.pad(last.kernel, [[0, 0], [0, 0], [0, 0], [0, missing]])
    bias = tf.pad(last.bias, [[0, missing]], constant_values=_NEVER)
    return tf.nn.bias_add(tf.nn.conv2d(features, kernel, 1, "SAME"), bias)


@dataclass(frozen=True)
class OnDemand:
    """A head's output map, computed in the cells where it is looked at: a hundred centres of some ten thousand cells.

    Attributes:
      head: of `prediction_head`, for which `sees_one_patch` holds. features: its input `[B, H, W, C]` float32.
    """

    head: tf_keras.Sequential
    features: tf.Tensor

    @property
    def shape(self) -> tf.TensorShape:
        """Of the map: `[B, H, W, D]`."""
        return tf.TensorShape([*self.features.shape[:3], self.head.output_shape[-1]])

    def at(self, y: tf.Tensor, x: tf.Tensor) -> tf.Tensor:
        """The map's values at cells y, x, integers `[B, N]` within it -> `[B, N, D]`."""
        height, width, channels = self.features.shape[1:]
        size = self.head.layers[0].kernel_size[0]
        step = tf.range(size) - (size - 1) // 2  # as SAME pads
        # [B, N, size, size]
        rows, columns = y[..., None, None] + step[:, None], x[..., None, None] + step
        inside = (rows >= 0) & (rows < height) & (columns >= 0) & (columns < width)
        cells = tf.clip_by_value(rows, 0, height - 1) * width + tf.clip_by_value(columns, 0, width - 1)
        seen = tf.gather(tf.reshape(self.features, [-1, height * width, channels]), cells, batch_dims=1)
        values = tf.reshape(tf.where(inside[..., None], seen, 0.0), [-1, size**2, channels])
        for layer in self.head.layers:
            values = layer.of_patches(values)[:, None]
        return tf.reshape(values, [-1, y.shape[1], self.shape[-1]])


def sees_one_patch(head: tf_keras.Sequential) -> bool:
    """Whether only its first convolution looks beyond a cell, so that zeros pad the features and nothing else."""
    return all(layer.kernel_size == (1, 1) for layer in head.layers[1:])


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
