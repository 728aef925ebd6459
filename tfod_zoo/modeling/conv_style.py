"""A config's Hyperparams as layers: how convolutions start, what holds them back, and how they are normalised."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import tensorflow as tf
import tf_keras

from tfod_zoo.errors import ZooError
from tfod_zoo.modeling import winograd
from tfod_zoo.modeling.placement import in_another_runtime, on_plain_cpu
from tfod_zoo.modeling.pointwise import convolve_and_normalize, normalizes

_LEAST_SIDE = 16  # cells; hourglass-104's and ResNet-50's maps of 8x8 take longer by Winograd's products than without
_ACTIVATIONS: dict[str, Callable[[tf.Tensor], tf.Tensor]] = {
    "NONE": tf.identity,
    "RELU": tf.nn.relu,
    "RELU_6": tf.nn.relu6,
    "SWISH": tf.nn.silu,
}


def _he_like() -> tf_keras.initializers.Initializer:
    return tf_keras.initializers.VarianceScaling(1.0, "fan_in", "truncated_normal")


class WinogradConv2D(tf_keras.layers.Conv2D):
    """A convolution without activation that takes Winograd's way in training, where that is faster.

    Not in inference: it rounds three times as coarsely, which Faster R-CNN's choice of proposals makes worse.
    """

    def is_products(self, inputs: tf.Tensor, training: bool = False) -> bool:
        """Whether a call is made of matrix products, which TensorFlow does not know as a convolution."""
        same = self.padding == "same" and self.strides == (1, 1) and self.dilation_rate == (1, 1)
        return training and same and on_plain_cpu() and winograd.pays(inputs, self.kernel.shape)

    def call(self, inputs: tf.Tensor, training: bool = False) -> tf.Tensor:
        """`[N, H, W, C]` -> `[N, h, w, filters]`."""
        if not self.is_products(inputs, training):
            return super().call(inputs)
        return self.products(inputs, tf.convert_to_tensor(self.kernel), self.bias, training=training)

    def products(
        self,
        inputs: tf.Tensor,
        kernel: tf.Tensor,
        bias: tf.Tensor | None,
        activation: Callable[[tf.Tensor], tf.Tensor] = tf.identity,
        training: bool = False,
    ) -> tf.Tensor:
        """The convolution with a kernel like this layer's, made of matrix products, a bias and an activation."""
        return activation(_biased(winograd.convolve(inputs, kernel, training), bias))


class ProductConv2D(WinogradConv2D):
    """One for the deep layers at a network's end: Winograd's way in inference, too, and 1x1 kernels as a product."""

    def is_products(self, inputs: tf.Tensor, training: bool = False) -> bool:
        if in_another_runtime():
            return False
        return self._is_one_product() or super().is_products(inputs, training=True)

    def products(
        self,
        inputs: tf.Tensor,
        kernel: tf.Tensor,
        bias: tf.Tensor | None,
        activation: Callable[[tf.Tensor], tf.Tensor] = tf.identity,
        training: bool = False,
    ) -> tf.Tensor:
        if not self._is_one_product():
            return super().products(inputs, kernel, bias, activation, training)
        product = tf.matmul(tf.reshape(inputs, [-1, inputs.shape[-1]]), tf.reshape(kernel, kernel.shape[2:]))
        # Product, bias and activation next to each other become one operation.
        return tf.reshape(activation(_biased(product, bias)), [-1, *inputs.shape[1:3], self.filters])

    def _is_one_product(self) -> bool:
        return self.kernel_size == (1, 1) and self.strides == (1, 1)


class BodyConv2D(WinogradConv2D):
    """One for large maps: Winograd's way in inference, too."""

    def is_products(self, inputs: tf.Tensor, training: bool = False) -> bool:
        return super().is_products(inputs, training or is_large(inputs))


def is_large(maps: tf.Tensor) -> bool:
    """Whether maps `[B, H, W, C]` of a single image make up for transforming a kernel."""
    return all(side is not None and side >= _LEAST_SIDE for side in maps.shape[1:3])


def _biased(x: tf.Tensor, bias: tf.Tensor | None) -> tf.Tensor:
    return x if bias is None else tf.nn.bias_add(x, bias)


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
    layer: type[WinogradConv2D] = WinogradConv2D
    update_statistics: bool = True

    def conv(self, filters: int, size: int, *, use_bias: bool = False, **options: Any) -> WinogradConv2D:
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
    conv: WinogradConv2D,
    norm: BatchNorm,
    activation: Callable[[tf.Tensor], tf.Tensor],
    x: tf.Tensor,
    training: bool = False,
) -> tf.Tensor:
    """A convolution without bias, its batch norm and an activation; both layers are built.

    On moving averages the first two are one convolution with another kernel and a bias. TensorFlow sees that by itself
    where it knows a convolution, but not in matrix products. Where the averages learn, a 1x1 convolution may know them
    before it begins.
    """
    learns = training and norm.update_statistics
    if learns and conv.kernel_size == conv.strides == (1, 1) and normalizes(norm, x.shape[-1]):
        return activation(convolve_and_normalize(x, tf.convert_to_tensor(conv.kernel), norm))
    if learns or x.dtype != tf.float32 or not conv.is_products(x, training):
        return activation(norm(conv(x, training=training), training=training))
    scale = tf.math.rsqrt(norm.moving_variance + norm.epsilon)
    scale = scale if norm.gamma is None else scale * norm.gamma
    shift = -norm.moving_mean * scale
    shift = shift if norm.beta is None else shift + norm.beta
    # When its turn comes, or the kernels of all layers would be scaled, and held, from the start.
    with tf.control_dependencies([x]):
        kernel = conv.kernel * scale
    return conv.products(x, kernel, shift, activation, training)


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
