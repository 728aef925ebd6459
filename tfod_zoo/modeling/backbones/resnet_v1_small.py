"""ResNet-18 and -34 as TFOD has them for CenterNet: basic blocks with pre-activation (spec: CenterNet, 4.2).

TFOD calls them V1, yet norm and ReLU come before the convolutions, as in V2 (He et al., arXiv:1603.05027).
"""

import tf_keras

BATCH_NORM_MOMENTUM = 0.99
BATCH_NORM_EPSILON = 1.001e-5

_STAGE_FILTERS = (64, 128, 256, 512)
_STAGE_STRIDES = (1, 2, 2, 2)  # each on the stage's last block
_STAGE_BLOCKS = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3)}


def _norm_relu(x, name: str):
    layers = tf_keras.layers
    x = layers.BatchNormalization(momentum=BATCH_NORM_MOMENTUM, epsilon=BATCH_NORM_EPSILON, name=f"{name}_bn")(x)
    return layers.Activation("relu", name=f"{name}_relu")(x)


def _convolution(x, filters: int, stride: int, name: str):
    x = tf_keras.layers.ZeroPadding2D(1, name=f"{name}_pad")(x)
    return tf_keras.layers.Conv2D(filters, 3, strides=stride, use_bias=False, name=f"{name}_conv")(x)


def _basic_block(x, filters: int, stride: int, widen: bool, name: str):
    """Two 3x3 convolutions beside a 1x1 convolution (`widen`), a subsampled input, or the input; no ReLU at the end."""
    active = _norm_relu(x, f"{name}_preact")
    if widen:
        shortcut = tf_keras.layers.Conv2D(filters, 1, name=f"{name}_0_conv")(active)
    else:
        shortcut = tf_keras.layers.MaxPooling2D(1, strides=stride, name=f"{name}_0_pool")(x) if stride > 1 else x
    y = _norm_relu(_convolution(active, filters, 1, f"{name}_1"), f"{name}_1")
    y = _norm_relu(_convolution(y, filters, stride, f"{name}_2"), f"{name}_2")
    return tf_keras.layers.Add(name=f"{name}_out")([shortcut, y])


def resnet_v1_small(depth: int, height: int, width: int) -> tuple[tf_keras.Model, tf_keras.Model]:
    """Builds the body with random weights.

    Args:
      depth: 18 or 34.
      height, width: input size in pixels, each a multiple of 32.

    Returns:
      network: a functional model from `[B, height, width, 3]` float32 (BGR, channel means subtracted) to the outputs of
        its four stages: 64, 128, 256 and 512 channels at strides 4, 8, 16 and 32.
      published: the model around it. Its last batch norm, `post_bn`, is not applied, but is stored in checkpoints.
        Its layer order numbers the checkpoint's keys, so padding and activations are layers of their own.
    """
    layers = tf_keras.layers
    inputs = tf_keras.Input((height, width, 3))
    x = layers.ZeroPadding2D(3, name="conv1_pad")(inputs)
    x = layers.Conv2D(64, 7, strides=2, name="conv1_conv")(x)
    x = layers.ZeroPadding2D(1, name="pool1_pad")(x)
    x = layers.MaxPooling2D(3, strides=2, name="pool1_pool")(x)
    taps = []
    stages = zip(_STAGE_FILTERS, _STAGE_BLOCKS[depth], _STAGE_STRIDES, strict=True)
    for stage, (filters, blocks, stride) in enumerate(stages, start=2):
        for block in range(1, blocks + 1):
            name = f"conv{stage}_block{block}"
            x = _basic_block(x, filters, stride if block == blocks else 1, widen=block == 1, name=name)
        taps.append(x)
    published = tf_keras.Model(inputs, _norm_relu(x, "post"), name=f"resnet_v1_{depth}")
    return tf_keras.Model(inputs, taps, name=f"resnet_v1_{depth}_stages"), published
