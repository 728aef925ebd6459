"""Stacked hourglasses (Newell et al., arXiv:1603.06937; Law and Deng, arXiv:1808.01244; spec: CenterNet, 4.1).

Attributes carry TFOD's names, so that tracking them gives the zoo checkpoint's keys.
"""

import functools
from dataclasses import dataclass

import tensorflow as tf
import tf_keras

from tfod_zoo.modeling.backbones.recomputation import recomputed
from tfod_zoo.modeling.conv_style import BatchNorm, ProductConv2D, is_large, normalized
from tfod_zoo.modeling.necks.fpn import double_nearest

BATCH_NORM_MOMENTUM = 0.1  # TFOD's value: a moving average takes 90 % of each new batch
BATCH_NORM_EPSILON = 1e-5


class _Convolution(ProductConv2D):
    """One that is made of matrix products in inference, too: the network takes half the time."""

    def is_products(self, inputs: tf.Tensor, training: bool = False) -> bool:
        return is_large(inputs) and super().is_products(inputs, training)


def _convolution(filters: int, size: int, stride: int) -> _Convolution:
    # At stride 2 SAME would pad even sizes on one side alone.
    padding = "same" if stride == 1 else "valid"
    return _Convolution(filters, size, strides=stride, padding=padding, use_bias=False, name="conv")


def _batch_norm() -> BatchNorm:
    # Synchronised over replicas: an hourglass batch per core is small.
    return BatchNorm(True, momentum=BATCH_NORM_MOMENTUM, epsilon=BATCH_NORM_EPSILON, synchronized=True, name="norm")


def _build(conv: _Convolution, norm: BatchNorm, channels: int) -> None:
    conv.build((None, None, None, channels))
    norm.build((None, None, None, conv.filters))


class ConvolutionBlock(tf_keras.layers.Layer):
    """Zero padding, convolution, batch norm, and ReLU unless `relu` is False."""

    def __init__(self, filters: int, size: int, stride: int = 1, relu: bool = True, **kwargs):
        super().__init__(**kwargs)
        self.pad = size // 2 if stride > 1 else 0
        self.conv = _convolution(filters, size, stride)
        self.norm = _batch_norm()
        self.activation = tf.nn.relu if relu else tf.identity

    def build(self, input_shape: tf.TensorShape) -> None:
        _build(self.conv, self.norm, input_shape[-1])
        super().build(input_shape)

    def call(self, inputs: tf.Tensor, training: bool = False) -> tf.Tensor:
        margin = [self.pad, self.pad]
        x = tf.pad(inputs, [[0, 0], margin, margin, [0, 0]]) if self.pad else inputs
        return normalized(self.conv, self.norm, self.activation, x, training)


class ResidualBlock(tf_keras.layers.Layer):
    """Two 3x3 convolutions beside an identity, or beside a 1x1 convolution where `skip`.

    Attributes:
      recompute: in training, keep only the input and compute the rest again for the gradient.
    """

    def __init__(self, filters: int, stride: int = 1, skip: bool = False, **kwargs):
        super().__init__(**kwargs)
        self.conv_block = ConvolutionBlock(filters, 3, stride)
        self.conv = _convolution(filters, 3, 1)
        self.norm = _batch_norm()
        self.skip = ConvolutionBlock(filters, 1, stride, relu=False) if skip else None
        self.recompute = False

    def build(self, input_shape: tf.TensorShape) -> None:
        _build(self.conv, self.norm, self.conv.filters)
        super().build(input_shape)

    def call(self, inputs: tf.Tensor, training: bool = False) -> tf.Tensor:
        if self.recompute and training:
            return recomputed(self, functools.partial(self._run, training=True), inputs)
        return self._run(inputs, training)

    def _run(self, inputs: tf.Tensor, training: bool) -> tf.Tensor:
        x = self.conv_block(inputs, training=training)
        x = normalized(self.conv, self.norm, tf.identity, x, training)
        shortcut = self.skip(inputs, training=training) if self.skip is not None else inputs
        return tf.nn.relu(x + shortcut)


def _repeat(
    filters: int, count: int, stride: int = 1, hidden: int | None = None, skip_first: bool = False
) -> list[ResidualBlock]:
    """`count` residual blocks: all but the last `hidden` wide, the stride on the first (spec, `Rep`)."""
    hidden = hidden or filters
    if count == 1:
        return [ResidualBlock(filters, stride, skip=stride > 1)]
    first = ResidualBlock(hidden, stride, skip=stride > 1 or skip_first)
    middle = [ResidualBlock(hidden) for _ in range(count - 2)]
    return [first, *middle, ResidualBlock(filters, skip=hidden != filters)]


def _run(blocks: list, x: tf.Tensor, training: bool) -> tf.Tensor:
    for block in blocks:
        x = block(x, training=training)
    return x


class HourglassLevel(tf_keras.layers.Layer):
    """One level: a branch at this resolution plus one at half of it, where the next level is nested.

    Args:
      widths, blocks: channels and residual blocks of this level and the ones inside it.
      levels: levels left, at least 1.
    """

    def __init__(self, widths: tuple[int, ...], blocks: tuple[int, ...], levels: int, **kwargs):
        super().__init__(**kwargs)
        width, inner = widths[:2]
        self.encoder_block1 = _repeat(width, blocks[0])
        self.encoder_block2 = _repeat(inner, blocks[0], stride=2, skip_first=width != inner)
        if levels > 1:
            self.inner_block = [HourglassLevel(widths[1:], blocks[1:], levels - 1)]
        else:
            self.inner_block = _repeat(inner, blocks[1])
        self.decoder_block = _repeat(width, blocks[0], hidden=inner)

    def call(self, inputs: tf.Tensor, training: bool = False) -> tf.Tensor:
        x = _run(self.encoder_block2, inputs, training)
        x = _run(self.decoder_block, _run(self.inner_block, x, training), training)
        return _run(self.encoder_block1, inputs, training) + double_nearest(x)


class DownsampleInput(tf_keras.layers.Layer):
    """From pixels to the first hourglass: stride 4."""

    def __init__(self, stem_width: int, width: int, **kwargs):
        super().__init__(**kwargs)
        self.conv_block = ConvolutionBlock(stem_width, 7, stride=2)
        self.residual_block = ResidualBlock(width, stride=2, skip=True)

    def call(self, inputs: tf.Tensor, training: bool = False) -> tf.Tensor:
        return self.residual_block(self.conv_block(inputs, training=training), training=training)


@dataclass(frozen=True)
class HourglassVariant:
    """Sizes of a network: width of the 7x7 stem, channels and blocks per level, and hourglasses in a row (`stacks`)."""

    stem_width: int
    widths: tuple[int, ...]
    blocks: tuple[int, ...]
    levels: int
    stacks: int = 1


# Spec, table of 4.1; the numbers name the depth.
VARIANTS = {
    104: HourglassVariant(128, (256, 256, 384, 384, 384, 512), (2, 2, 2, 2, 2, 4), levels=5, stacks=2),
    52: HourglassVariant(64, (128, 128, 192, 192, 192, 256), (2, 2, 2, 2, 2, 4), levels=5),
    32: HourglassVariant(48, (96, 96, 144, 144), (2, 2, 2, 2), levels=3),
    20: HourglassVariant(48, (96, 96, 144), (1, 2, 2), levels=2),
    10: HourglassVariant(32, (64, 64), (1, 1), levels=1),
}


class Hourglass(tf_keras.layers.Layer):
    """Hourglass-104, -52, -32, -20 or -10.

    Args:
      depth: a key of `VARIANTS`.
    """

    def __init__(self, depth: int, **kwargs):
        super().__init__(**kwargs)
        variant = VARIANTS[depth]
        width = variant.widths[0]
        self.downsample_input = DownsampleInput(variant.stem_width, width)
        self.hourglass_network = [
            HourglassLevel(variant.widths, variant.blocks, variant.levels) for _ in range(variant.stacks)
        ]
        self.output_conv = [ConvolutionBlock(width, 3) for _ in range(variant.stacks)]
        between = range(variant.stacks - 1)
        self.intermediate_conv1 = [ConvolutionBlock(width, 1, relu=False) for _ in between]
        self.intermediate_conv2 = [ConvolutionBlock(width, 1, relu=False) for _ in between]
        self.intermediate_residual = [ResidualBlock(width) for _ in between]

    def call(self, inputs: tf.Tensor, training: bool = False) -> list[tf.Tensor]:
        """`[B, H, W, 3]` float32, H and W multiples of 4 x 2^levels -> one map `[B, H/4, W/4, width]` a stack."""
        x = self.downsample_input(inputs, training=training)
        outputs = []
        for i, hourglass in enumerate(self.hourglass_network):
            outputs.append(self.output_conv[i](hourglass(x, training=training), training=training))
            if i + 1 < len(self.hourglass_network):
                merged = self.intermediate_conv1[i](x, training=training)
                merged += self.intermediate_conv2[i](outputs[i], training=training)
                x = self.intermediate_residual[i](tf.nn.relu(merged), training=training)
        return outputs

    def recompute_gradients(self, recompute: bool) -> None:
        """Trades time for memory in training: every residual block keeps only its input (`ResidualBlock.recompute`)."""
        for block in self.submodules:
            if isinstance(block, ResidualBlock):
                block.recompute = recompute
