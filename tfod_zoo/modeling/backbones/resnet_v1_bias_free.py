"""ResNet V1 as TFOD's Faster R-CNN has it (spec: Faster R-CNN, section 3): other strides at the start, and no biases.

Where Keras applications pad with zeros before the first pooling, this pools SAME, and no convolution has a bias, so
their network cannot serve here.
"""

from collections.abc import Sequence

import tensorflow as tf
import tf_keras

from tfod_zoo.modeling.conv_style import ConvStyle, normalized

BLOCKS = {50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3)}  # residual blocks of conv2 to conv5
_FILTERS = (64, 128, 256, 512)
_STRIDES = (1, 2, 2, 2)
_EXPANSION = 4  # a block's output is so many times wider than its 3x3


class Bottleneck(tf_keras.layers.Layer):
    """Residual block: 1x1 with the stride, 3x3, 1x1, each with batch norm, added to the input or its projection."""

    def __init__(self, filters: int, stride: int, project: bool, style: ConvStyle, **kwargs):
        super().__init__(**kwargs)
        self._activation = style.activation
        self.conv_1 = style.conv(filters, 1, strides=stride, name="1_conv")
        self.conv_2 = style.conv(filters, 3, name="2_conv")
        self.conv_3 = style.conv(_EXPANSION * filters, 1, name="3_conv")
        self.norm_1, self.norm_2, self.norm_3 = (style.norm(name=f"{i}_bn") for i in (1, 2, 3))
        self.shortcut, self.shortcut_norm = None, None
        if project:
            self.shortcut = style.conv(_EXPANSION * filters, 1, strides=stride, name="0_conv")
            self.shortcut_norm = style.norm(name="0_bn")

    def build(self, input_shape: tf.TensorShape) -> None:
        shapes = {self.conv_1: input_shape, self.shortcut: input_shape}
        shapes[self.conv_2] = shapes[self.conv_3] = (None, None, None, self.conv_1.filters)
        for conv, norm in self._pairs():
            conv.build(shapes[conv])
            norm.build((None, None, None, conv.filters))
        super().build(input_shape)

    def _pairs(self) -> list[tuple]:
        pairs = [(self.conv_1, self.norm_1), (self.conv_2, self.norm_2), (self.conv_3, self.norm_3)]
        return pairs if self.shortcut is None else [*pairs, (self.shortcut, self.shortcut_norm)]

    def call(self, x: tf.Tensor, training: bool = False) -> tf.Tensor:
        """`[N, h, w, C]` -> `[N, h / stride, w / stride, 4 * filters]`, sizes rounded up."""
        y = normalized(self.conv_1, self.norm_1, self._activation, x, training)
        y = normalized(self.conv_2, self.norm_2, self._activation, y, training)
        y = normalized(self.conv_3, self.norm_3, tf.identity, y, training)
        if self.shortcut is not None and self.shortcut_norm is not None:
            x = normalized(self.shortcut, self.shortcut_norm, tf.identity, x, training)
        return self._activation(x + y)

    def checkpoint_layers(self) -> list[tf_keras.layers.Layer]:
        """In the zoo checkpoint's order: the projection just before the last convolution, both before their norms."""
        start = [self.conv_1, self.norm_1, self.conv_2, self.norm_2]
        if self.shortcut is None:
            return [*start, self.conv_3, self.norm_3]
        return [*start, self.shortcut, self.conv_3, self.shortcut_norm, self.norm_3]


class Stage(tf_keras.layers.Layer):
    """Residual blocks at one resolution, conv2 to conv5.

    Args:
      depth: of the network, 50, 101 or 152.
      number: 2 to 5.
      stride: of the first block; None for the network's own.
    """

    def __init__(self, depth: int, number: int, style: ConvStyle, stride: int | None = None, **kwargs):
        super().__init__(name=f"conv{number}", **kwargs)
        first = _STRIDES[number - 2] if stride is None else stride
        self.blocks = [
            Bottleneck(_FILTERS[number - 2], first if i == 0 else 1, i == 0, style, name=f"block{i + 1}")
            for i in range(BLOCKS[depth][number - 2])
        ]

    def call(self, x: tf.Tensor, training: bool = False) -> tf.Tensor:
        for block in self.blocks:
            x = block(x, training=training)
        return x

    def checkpoint_layers(self) -> list[tf_keras.layers.Layer]:
        """See `Bottleneck.checkpoint_layers`."""
        return [layer for block in self.blocks for layer in block.checkpoint_layers()]


class ResNetV1(tf_keras.layers.Layer):
    """The network from pixels on.

    Args:
      depth: 50, 101 or 152.
      last: number of the last stage, 4 or 5.
    """

    def __init__(self, depth: int, last: int, style: ConvStyle, **kwargs):
        super().__init__(**kwargs)
        self._activation = style.activation
        self.conv = style.conv(64, 7, strides=2, padding="valid", name="conv1_conv")
        self.norm = style.norm(name="conv1_bn")
        self.stages = [Stage(depth, number, style) for number in range(2, last + 1)]

    def build(self, input_shape: tf.TensorShape) -> None:
        self.conv.build(input_shape)
        self.norm.build((None, None, None, self.conv.filters))
        super().build(input_shape)

    def call(self, images: tf.Tensor, training: bool = False) -> list[tf.Tensor]:
        """`[B, H, W, 3]`, RGB with the channel means subtracted -> the stages' outputs, at strides 4, 8, 16 and 32."""
        x = tf.pad(images, [[0, 0], [3, 3], [3, 3], [0, 0]])
        x = normalized(self.conv, self.norm, self._activation, x, training)
        x = tf.nn.max_pool2d(x, 3, 2, "SAME")
        outputs = []
        for stage in self.stages:
            x = stage(x, training=training)
            outputs.append(x)
        return outputs

    def checkpoint_layers(self) -> Sequence[tf_keras.layers.Layer]:
        """The layers with variables in the order of the zoo's `layer_with_weights-N`, N from 0."""
        return [self.conv, self.norm, *(layer for stage in self.stages for layer in stage.checkpoint_layers())]
