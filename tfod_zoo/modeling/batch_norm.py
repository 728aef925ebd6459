"""Batch norm behind a convolution with a bias that in inference costs no pass over a map of its own."""

import weakref

import tensorflow as tf
import tf_keras

from tfod_zoo.modeling.conv_style import BodyConv2D


def learns(norm: tf_keras.layers.BatchNormalization, training: bool) -> bool:
    """Whether batch norm goes by the batch; a frozen one does not in training either."""
    return bool(training) and norm.trainable


class _LeavesBias:
    """A convolution that in inference leaves its bias to the batch norm behind it.

    TensorFlow makes one operation of a convolution, its batch norm and its activation, but not if there is a bias in
    between.
    """

    norm: "weakref.ref[NormWithBias] | None" = None  # not itself, or Keras would count it as a part

    def leaves_bias(self, training: bool) -> bool:
        norm = self.norm() if self.norm else None
        return norm is not None and norm.takes_bias(training)


class ConvWithoutBias(_LeavesBias, BodyConv2D):
    """See `_LeavesBias`."""

    def call(self, inputs: tf.Tensor, training: bool = False) -> tf.Tensor:
        if not self.leaves_bias(training):
            return super().call(inputs, training)
        if self.is_products(inputs, training):
            return self.products(inputs, tf.convert_to_tensor(self.kernel), None, training=training)
        return self.convolution_op(inputs, self.kernel)


class SeparableConvWithoutBias(_LeavesBias, tf_keras.layers.SeparableConv2D):
    """See `_LeavesBias`; with strides of 1."""

    def call(self, inputs: tf.Tensor, training: bool = False) -> tf.Tensor:
        if not self.leaves_bias(training):
            return super().call(inputs)
        return tf.nn.separable_conv2d(
            inputs, self.depthwise_kernel, self.pointwise_kernel, [1, 1, 1, 1], self.padding.upper()
        )


class NormWithBias(tf_keras.layers.BatchNormalization):
    """The batch norm behind a convolution that may leave its bias to it."""

    convolution: "weakref.ref[ConvWithoutBias | SeparableConvWithoutBias] | None" = None

    def takes_bias(self, training: bool) -> bool:
        """Whether the convolution's bias is left to this layer."""
        return not learns(self, training) and self.compute_dtype == "float32"

    def call(self, inputs: tf.Tensor, training: bool = False) -> tf.Tensor:
        convolution = self.convolution() if self.convolution else None
        if convolution is None or not self.takes_bias(training):
            return super().call(inputs, training=training)
        # With the shift, whose gradient the operation knows; it has none for the mean.
        shift = self.beta + convolution.bias * self.gamma * tf.math.rsqrt(self.moving_variance + self.epsilon)
        normalized, _, _ = tf.compat.v1.nn.fused_batch_norm(
            inputs, self.gamma, shift, self.moving_mean, self.moving_variance, self.epsilon, is_training=False
        )
        return normalized


def join(convolution: ConvWithoutBias | SeparableConvWithoutBias, norm: NormWithBias) -> None:
    """Says that the one is behind the other."""
    norm.convolution, convolution.norm = weakref.ref(convolution), weakref.ref(norm)


def join_bias_and_norm(body: tf_keras.Model) -> tf_keras.Model:
    """A copy of a functional model of Keras applications, each convolution's bias joined with the norm behind it.

    Args:
      body: its convolutions are called `NAME_conv`, the batch norms behind them `NAME_bn`.

    Returns:
      A model with the same layers' names, in the same order, and new weights of its own.
    """
    kinds = {tf_keras.layers.Conv2D: ConvWithoutBias, tf_keras.layers.BatchNormalization: NormWithBias}

    def copy(layer: tf_keras.layers.Layer) -> tf_keras.layers.Layer:
        return kinds.get(type(layer), layer.__class__).from_config(layer.get_config())

    joined = tf_keras.models.clone_model(body, clone_function=copy)
    layers = {layer.name: layer for layer in joined.layers}
    for name, norm in layers.items():
        if isinstance(norm, NormWithBias):
            join(layers[name.removesuffix("_bn") + "_conv"], norm)
    return joined
