"""The top-down pyramid of TFOD's CenterNets: one output map at stride 4 (spec: CenterNet, 4.2 and 4.5)."""

from collections.abc import Sequence

import tensorflow as tf
import tf_keras

from tfod_zoo.modeling.batch_norm import ConvWithoutBias, NormWithBias, SeparableConvWithoutBias, join
from tfod_zoo.modeling.placement import in_another_runtime

BATCH_NORM_MOMENTUM = 0.99
BATCH_NORM_EPSILON = 1e-3


def double_nearest(x: tf.Tensor) -> tf.Tensor:
    """Repeats every cell of `[B, H, W, C]` twice in both directions, by broadcasting: XLA cannot compile the gradient
    of TensorFlow's nearest-neighbour resize, and this is the same."""
    height, width, channels = x.shape[1:]
    if in_another_runtime():  # one operation there, while six axes are more than some know
        return tf.raw_ops.ResizeNearestNeighbor(images=x, size=[2 * height, 2 * width])
    x = tf.broadcast_to(x[:, :, None, :, None, :], [tf.shape(x)[0], height, 2, width, 2, channels])
    return tf.reshape(x, [-1, 2 * height, 2 * width, channels])


def double_bilinear(x: tf.Tensor) -> tf.Tensor:
    """Doubles `[B, H, W, C]` by linear interpolation between cell centres, as TensorFlow's half-pixel bilinear resize
    does; of plain sums, because XLA cannot compile that resize's gradient either."""
    if in_another_runtime():
        size = [2 * x.shape[1], 2 * x.shape[2]]
        return tf.raw_ops.ResizeBilinear(images=x, size=size, half_pixel_centers=True)
    for axis in (1, 2):
        size = x.shape[axis]
        before, after = tf.range(-1, size - 1), tf.range(1, size + 1)
        near = [tf.gather(x, tf.clip_by_value(cells, 0, size - 1), axis=axis) for cells in (before, after)]
        doubled = tf.stack([0.75 * x + 0.25 * neighbour for neighbour in near], axis + 1)
        shape = [x.shape[1], x.shape[2], x.shape[3]]
        shape[axis - 1] *= 2
        x = tf.reshape(doubled, [-1, *shape])
    return x


# The values of `upsampling_interpolation`.
UPSAMPLING = {"nearest": double_nearest, "bilinear": double_bilinear}


class TopDownPyramid(tf_keras.layers.Layer):
    """Merges a backbone's four maps from the coarsest to the finest.

    Each step doubles the size, adds a 1x1 lateral of the next finer map, and brings the sum to the next step's width
    by 3x3 convolution, batch norm and ReLU.

    Args:
      filters: widths of the lateral at each step, coarse to fine, and of the output at the end; e.g. (64, 32, 24, 24)
        for MobileNetV2: laterals 64, 32 and 24 wide, output 24 channels.
      separable: depthwise separable 3x3 convolutions (`use_separable_conv`).
      interpolation: a key of `UPSAMPLING` (`upsampling_interpolation`).
    """

    def __init__(self, filters: Sequence[int], separable: bool = False, interpolation: str = "nearest", **kwargs):
        super().__init__(**kwargs)
        convolution = SeparableConvWithoutBias if separable else ConvWithoutBias
        self.top = tf_keras.layers.Conv2D(filters[0], 1, name="top")
        self.upsample = UPSAMPLING[interpolation]
        self.laterals, self.convolutions, self.norms = [], [], []
        for step, (lateral, output) in enumerate(zip(filters[:-1], filters[1:], strict=True)):
            self.laterals.append(tf_keras.layers.Conv2D(lateral, 1, name=f"lateral_{step}"))
            self.convolutions.append(convolution(output, 3, padding="same", name=f"conv_{step}"))
            self.norms.append(
                NormWithBias(momentum=BATCH_NORM_MOMENTUM, epsilon=BATCH_NORM_EPSILON, name=f"norm_{step}")
            )
            join(self.convolutions[-1], self.norms[-1])

    def build(self, input_shape: Sequence) -> None:
        shapes = [tf.TensorShape(shape) for shape in input_shape]
        self.top.build(shapes[-1])
        for lateral, convolution, norm, shape in zip(
            self.laterals, self.convolutions, self.norms, reversed(shapes[:-1]), strict=True
        ):
            lateral.build(shape)
            merged = tf.TensorShape([*shape[:-1], lateral.filters])
            convolution.build(merged)
            norm.build(tf.TensorShape([*shape[:-1], convolution.filters]))
        super().build(input_shape)

    def call(self, inputs: Sequence[tf.Tensor], training: bool = False) -> tf.Tensor:
        """`[C2, C3, C4, C5]` at strides 4 to 32 -> `[B, H/4, W/4, filters[-1]]`."""
        x = self.top(inputs[-1])
        for lateral, convolution, norm, features in zip(
            self.laterals, self.convolutions, self.norms, reversed(inputs[:-1]), strict=True
        ):
            x = self.upsample(x) + lateral(features)
            x = tf.nn.relu(norm(convolution(x), training=training))
        return x

    def checkpoint_layers(self) -> list[tf_keras.layers.Layer]:
        """The layers with variables in the order of TFOD's `layer_with_weights-N`, N from 1 (N = 0 is the body)."""
        steps = zip(self.laterals, self.convolutions, self.norms, strict=True)
        return [self.top, *(layer for step in steps for layer in step)]
