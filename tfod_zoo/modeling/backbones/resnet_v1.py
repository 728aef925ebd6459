"""ResNet V1 (He et al., arXiv:1512.03385) of Keras applications, which is TFOD's body too (spec: CenterNet, 4.2)."""

import tf_keras

from tfod_zoo.modeling.batch_norm import join_bias_and_norm

_BUILDERS = {50: tf_keras.applications.ResNet50, 101: tf_keras.applications.ResNet101}

# Strides 4, 8, 16, 32; the last block of each stage.
_TAPS = {
    50: ("conv2_block3_out", "conv3_block4_out", "conv4_block6_out", "conv5_block3_out"),
    101: ("conv2_block3_out", "conv3_block4_out", "conv4_block23_out", "conv5_block3_out"),
}


def resnet_v1(depth: int, height: int, width: int) -> tf_keras.Model:
    """Builds the body with random weights.

    Args:
      depth: 50 or 101.
      height, width: input size in pixels, each a multiple of 32.

    Returns:
      A functional model from `[B, height, width, 3]` float32 (BGR, channel means subtracted) to the outputs of its
      four stages: 256, 512, 1024 and 2048 channels at strides 4, 8, 16 and 32. Its layer order numbers the zoo
      checkpoint's keys: the shortcut of a stage's first block comes after `_2_bn`.
    """
    body = join_bias_and_norm(_BUILDERS[depth](input_shape=(height, width, 3), include_top=False, weights=None))
    return tf_keras.Model(body.inputs, [body.get_layer(tap).output for tap in _TAPS[depth]], name=f"resnet_v1_{depth}")
