"""A config's Hyperparams as layers: how convolutions start, what holds them back, and how they are normalised."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import tensorflow as tf
import tf_keras

from tfod_zoo.errors import ZooError

_ACTIVATIONS: dict[str, Callable[[tf.Tensor], tf.Tensor]] = {
    "NONE": tf.identity,
    "RELU": tf.nn.relu,
    "RELU_6": tf.nn.relu6,
    "SWISH": tf.nn.silu,
}


def _he_like() -> tf_keras.initializers.Initializer:
    return tf_keras.initializers.VarianceScaling(1.0, "fan_in", "truncated_normal")


class TapConv2D(tf_keras.layers.Conv2D):
    """A SAME convolution of stride 1 made of matrix products, one for each place of the kernel.

    For many channels on small maps, where it takes half to three quarters of the time of oneDNN's convolution: products
    run at a CPU's full rate, and what a kernel's place has outside the map is not computed (of a 3x3 on a 4x4 map, 44
    in 144). Backwards oneDNN is the faster one.
    """

    def convolution_op(self, inputs: tf.Tensor, kernel: tf.Tensor) -> tf.Tensor:
        if self.kernel_size == (1, 1) or self.dilation_rate != (1, 1):
            return self._products(inputs, kernel)

        @tf.custom_gradient
        def convolve(x, kernel):
            def gradient(upstream):
                options = {"out_backprop": upstream, "strides": [1, 1, 1, 1], "padding": "SAME"}
                return (
                    tf.raw_ops.Conv2DBackpropInput(input_sizes=tf.shape(x), filter=kernel, **options),
                    tf.raw_ops.Conv2DBackpropFilter(input=x, filter_sizes=tf.shape(kernel), **options),
                )

            return self._products(x, kernel), gradient

        return convolve(inputs, tf.convert_to_tensor(kernel))

    def _products(self, inputs: tf.Tensor, kernel: tf.Tensor) -> tf.Tensor:
        height, width, channels = inputs.shape[1:]
        total = None
        for i in range(self.kernel_size[0]):
            for j in range(self.kernel_size[1]):
                down = self.dilation_rate[0] * (i - (self.kernel_size[0] - 1) // 2)
                right = self.dilation_rate[1] * (j - (self.kernel_size[1] - 1) // 2)
                if abs(down) >= height or abs(right) >= width:
                    continue
                seen = inputs[:, max(down, 0) : height + min(down, 0), max(right, 0) : width + min(right, 0)]
                product = tf.matmul(tf.reshape(seen, [-1, channels]), kernel[i, j])
                product = tf.reshape(product, [-1, *seen.shape[1:3], self.filters])
                spare = [[0, 0], [max(-down, 0), max(down, 0)], [max(-right, 0), max(right, 0)], [0, 0]]
                product = tf.pad(product, spare) if down or right else product
                total = product if total is None else total + product
        return total


@dataclass(frozen=True)
class ConvStyle:
    """What the convolutions of one network have in common. The defaults are TFOD's ResNet bodies (spec, section 3.3).

    Attributes:
      activation: applied by the network, after normalisation.
      initializer: makes a kernel initializer, a new one for each layer.
      l2: kernels add this times the sum of their squares to the loss; 0 for nothing.
      momentum, epsilon, center, scale: of batch norm.
      layer: what convolutions are made of.
      update_statistics: False keeps batch norm on its moving averages in training too; its scale and shift still train.
    """

    activation: Callable[[tf.Tensor], tf.Tensor] = tf.nn.relu
    initializer: Callable[[], tf_keras.initializers.Initializer] = _he_like
    l2: float = 0.0
    momentum: float = 0.997
    epsilon: float = 1e-5
    center: bool = True
    scale: bool = True
    layer: type[tf_keras.layers.Conv2D] = tf_keras.layers.Conv2D
    update_statistics: bool = True

    def conv(self, filters: int, size: int, *, use_bias: bool = False, **options: Any) -> tf_keras.layers.Conv2D:
        """A convolution, SAME unless `options` say otherwise, without activation."""
        return self.layer(
            filters,
            size,
            use_bias=use_bias,
            kernel_initializer=self.initializer(),
            kernel_regularizer=tf_keras.regularizers.L2(self.l2) if self.l2 else None,
            **{"padding": "same", **options},
        )

    def norm(self, **options: Any) -> "BatchNorm":
        """A batch norm of the last axis."""
        return BatchNorm(
            self.update_statistics,
            momentum=self.momentum,
            epsilon=self.epsilon,
            center=self.center,
            scale=self.scale,
            **options,
        )


class BatchNorm(tf_keras.layers.BatchNormalization):
    """Batch norm that can stay on its moving averages in training while its scale and shift train on."""

    def __init__(self, update_statistics: bool, **options: Any):
        super().__init__(**options)
        self.update_statistics = update_statistics

    def call(self, inputs: tf.Tensor, training: bool = False) -> tf.Tensor:
        return super().call(inputs, training=bool(training) and self.update_statistics)


def normalized(
    conv: tf_keras.layers.Conv2D,
    norm: "BatchNorm",
    activation: Callable[[tf.Tensor], tf.Tensor],
    x: tf.Tensor,
    training: bool = False,
) -> tf.Tensor:
    """A convolution without bias, its batch norm and an activation; both layers are built.

    On moving averages the first two are one convolution with another kernel and a bias. TensorFlow sees that by itself
    where it knows a convolution, but not in the products of a `TapConv2D`.
    """
    if (training and norm.update_statistics) or not isinstance(conv, TapConv2D):
        return activation(norm(conv(x), training=training))
    scale = tf.math.rsqrt(norm.moving_variance + norm.epsilon)
    scale = scale if norm.gamma is None else scale * norm.gamma
    shift = -norm.moving_mean * scale
    shift = shift if norm.beta is None else shift + norm.beta
    kernel = conv.kernel * scale
    if conv.kernel_size != (1, 1):
        return activation(tf.nn.bias_add(conv.convolution_op(x, kernel), shift))
    # Product, bias and activation next to each other become one operation.
    y = activation(tf.nn.bias_add(tf.matmul(tf.reshape(x, [-1, x.shape[-1]]), kernel[0, 0]), shift))
    return tf.reshape(y, [-1, *x.shape[1:3], conv.filters])


def conv_style(hyperparams: Any, where: str, *, update_statistics: bool = True) -> ConvStyle:
    """Reads a Hyperparams message.

    Args:
      hyperparams: the message. where: its path in the config, for errors.
      update_statistics: see `ConvStyle`.

    Raises:
      ZooError: it asks for something that is not supported; it names the field.
    """
    norm = hyperparams.batch_norm
    if hyperparams.WhichOneof("normalizer_oneof") not in (None, "batch_norm"):
        raise ZooError(f"{where}: only batch_norm is supported as normalisation; use it, or none.")
    activation = hyperparams.DESCRIPTOR.fields_by_name["activation"].enum_type.values_by_number[hyperparams.activation]
    return ConvStyle(
        activation=_ACTIVATIONS[activation.name],
        initializer=_initializer(hyperparams.initializer, where),
        l2=_l2(hyperparams.regularizer, where),
        momentum=norm.decay,
        epsilon=norm.epsilon,
        center=norm.center,
        scale=norm.scale,
        update_statistics=update_statistics and norm.train,
    )


def _initializer(message: Any, where: str) -> Callable[[], tf_keras.initializers.Initializer]:
    kind = message.WhichOneof("initializer_oneof") or "truncated_normal_initializer"
    if kind == "keras_initializer_by_name":
        raise ZooError(f"{where}.initializer.{kind} is not supported; use truncated_normal_initializer.")
    options = getattr(message, kind)
    if kind == "variance_scaling_initializer":
        mode = options.DESCRIPTOR.fields_by_name["mode"].enum_type.values_by_number[options.mode].name.lower()
        distribution = "uniform" if options.uniform else "truncated_normal"
        return lambda: tf_keras.initializers.VarianceScaling(options.factor, mode, distribution)
    maker = {
        "truncated_normal_initializer": tf_keras.initializers.TruncatedNormal,
        "random_normal_initializer": tf_keras.initializers.RandomNormal,
    }[kind]
    return lambda: maker(options.mean, options.stddev)


def _l2(message: Any, where: str) -> float:
    kind = message.WhichOneof("regularizer_oneof")
    if kind == "l1_regularizer":
        raise ZooError(f"{where}.regularizer.l1_regularizer is not supported; use l2_regularizer.")
    # TFOD's weight belongs to half the sum of squares, Keras's to the whole sum (spec, trap 17).
    return message.l2_regularizer.weight / 2 if kind else 0.0
