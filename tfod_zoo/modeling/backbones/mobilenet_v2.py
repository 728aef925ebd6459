"""MobileNetV2 (Sandler et al., arXiv:1801.04381) as TFOD's CenterNet extractors use it (spec: CenterNet, 4.4)."""

import functools
from collections.abc import Callable

import tensorflow as tf
import tf_keras

from tfod_zoo.modeling.batch_norm import learns
from tfod_zoo.modeling.pointwise import convolve_and_normalize, normalizes

# Every batch norm of the body: the values that TFOD writes over those of Keras applications.
BATCH_NORM_MOMENTUM = 0.9997
BATCH_NORM_EPSILON = 1e-3
KERNEL_STDDEV = 0.09  # truncated normal, all convolutions of the body

# Strides 4, 8, 16, 32.
TAPS = ("block_2_add", "block_5_add", "block_9_add", "out_relu")


# How the names of Keras applications' layers end.
_DEPTHWISE, _EXPAND = "depthwise", "expand"
WIDTH_MULTIPLE = 8  # widths are rounded to multiples of it
LAST_WIDTH = 1280  # of Conv_1 at alpha 1


def _last_width(alpha: float) -> int:
    """Channels of `Conv_1`: TFOD narrows it with alpha too, Keras applications only widens it."""
    exact = LAST_WIDTH * alpha
    rounded = max(WIDTH_MULTIPLE, int(exact + WIDTH_MULTIPLE / 2) // WIDTH_MULTIPLE * WIDTH_MULTIPLE)
    return rounded if rounded >= 0.9 * exact else rounded + WIDTH_MULTIPLE  # never more than a tenth narrower


class _Depthwise(tf_keras.layers.DepthwiseConv2D):
    """A depthwise convolution that in inference does its batch norm's work, too.

    TensorFlow makes one operation of a plain convolution, its batch norm and its activation, but of a depthwise one
    only with a bias: left apart, batch norm takes a pass over the map of its own, as long as the convolution's.
    """

    # A function, so that Keras does not count it as a part; None until the body stands.
    norm: Callable[[], tf_keras.layers.BatchNormalization] | None = None

    def call(self, inputs: tf.Tensor, training: bool = False) -> tf.Tensor:
        norm = self.norm() if self.norm else None
        if norm is None or learns(norm, training):
            return super().call(inputs)
        scale = norm.gamma * tf.math.rsqrt(norm.moving_variance + norm.epsilon)
        kernel = tf.cast(self.depthwise_kernel, scale.dtype) * scale[:, None]
        folded = tf.nn.depthwise_conv2d(inputs, tf.cast(kernel, inputs.dtype), [1, *self.strides, 1], "SAME")
        return tf.nn.bias_add(folded, tf.cast(norm.beta - norm.moving_mean * scale, inputs.dtype))


class _NormOfDepthwise(tf_keras.layers.BatchNormalization):
    """The batch norm behind a `_Depthwise`, which has done its work in inference."""

    def call(self, inputs: tf.Tensor, training: bool = False) -> tf.Tensor:
        return super().call(inputs, training=True) if learns(self, training) else inputs


class _Expand(tf_keras.layers.Conv2D):
    """A block's first convolution, to six times the channels, which in training may do its batch norm's work, too."""

    norm: Callable[[], tf_keras.layers.BatchNormalization] | None = None

    def call(self, inputs: tf.Tensor, training: bool = False) -> tf.Tensor:
        norm = self.norm() if self.norm else None
        if norm is None or not norm.is_done(training):
            return super().call(inputs)
        return convolve_and_normalize(inputs, tf.convert_to_tensor(self.kernel), norm)


class _NormOfExpand(tf_keras.layers.BatchNormalization):
    """The batch norm behind an `_Expand` of so many input channels."""

    in_channels: int

    def is_done(self, training: bool) -> bool:
        """Whether the convolution does this layer's work."""
        return learns(self, training) and normalizes(self, self.in_channels)

    def call(self, inputs: tf.Tensor, training: bool = False) -> tf.Tensor:
        return inputs if self.is_done(training) else super().call(inputs, training=training)


def _tfod_layer(layer: tf_keras.layers.Layer, alpha: float) -> tf_keras.layers.Layer:
    """A copy of a Keras applications layer with TFOD's settings."""
    if isinstance(layer, tf_keras.layers.ZeroPadding2D):
        # The explicit pad before a stride-2 convolution equals SAME for even sizes; SAME saves a copy of the map.
        return tf_keras.layers.Activation("linear", name=layer.name)
    config = layer.get_config()
    if isinstance(layer, tf_keras.layers.DepthwiseConv2D):
        config.update(padding="same", depthwise_initializer=tf_keras.initializers.TruncatedNormal(stddev=KERNEL_STDDEV))
        return _Depthwise.from_config(config)
    elif isinstance(layer, tf_keras.layers.Conv2D):
        config.update(padding="same", kernel_initializer=tf_keras.initializers.TruncatedNormal(stddev=KERNEL_STDDEV))
        if layer.name == "Conv_1":
            config.update(filters=_last_width(alpha))
        if layer.name.endswith(_EXPAND):
            return _Expand.from_config(config)
    elif isinstance(layer, tf_keras.layers.BatchNormalization):
        config.update(momentum=BATCH_NORM_MOMENTUM, epsilon=BATCH_NORM_EPSILON)
        if layer.name.endswith(f"{_DEPTHWISE}_BN"):
            return _NormOfDepthwise.from_config(config)
        if layer.name.endswith(f"{_EXPAND}_BN"):
            return _NormOfExpand.from_config(config)
    return layer.__class__.from_config(config)


def mobilenet_v2(height: int, width: int, alpha: float = 1.0) -> tf_keras.Model:
    """Builds the body with random weights.

    Args:
      height, width: input size in pixels, each a multiple of 32.
      alpha: width multiplier (TFOD's `depth_multiplier`), above 0.

    Returns:
      A functional model from `[B, height, width, 3]` float32 in [-1, 1] to the four maps of `TAPS` (for alpha 1:
      24, 32, 64 and 1280 channels at strides 4, 8, 16 and 32). Its layer order numbers the zoo checkpoint's keys.
    """
    published = tf_keras.applications.MobileNetV2(
        input_shape=(height, width, 3), alpha=alpha, include_top=False, weights=None
    )
    body = tf_keras.models.clone_model(published, clone_function=functools.partial(_tfod_layer, alpha=alpha))
    for layer in body.layers:
        if isinstance(layer, _Depthwise | _Expand):
            layer.norm = functools.partial(body.get_layer, f"{layer.name}_BN")
        if isinstance(layer, _Expand):
            body.get_layer(f"{layer.name}_BN").in_channels = layer.input_shape[-1]
    return tf_keras.Model(body.inputs, [body.get_layer(tap).output for tap in TAPS], name="mobilenet_v2")
