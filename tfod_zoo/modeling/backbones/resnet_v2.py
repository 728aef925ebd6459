"""ResNet V2 (He et al., arXiv:1603.05027) of Keras applications, which is TFOD's body too (spec: CenterNet, 4.3)."""

import tf_keras

_BUILDERS = {50: tf_keras.applications.ResNet50V2, 101: tf_keras.applications.ResNet101V2}
_TAP = "conv5_block3_out"


def resnet_v2(depth: int, height: int, width: int) -> tuple[tf_keras.Model, tf_keras.Model]:
    """Builds the body with random weights.

    Args:
      depth: 50 or 101.
      height, width: input size in pixels, each a multiple of 32.

    Returns:
      network: a functional model from `[B, height, width, 3]` float32 in [-1, 1] to one map: the raw sum of the last
        block, 2048 channels at stride 32.
      published: the Keras model around it. Its last batch norm, `post_bn`, is not applied by TFOD, but is stored in
        every checkpoint.
    """
    published = _BUILDERS[depth](input_shape=(height, width, 3), include_top=False, weights=None)
    network = tf_keras.Model(published.inputs, [published.get_layer(_TAP).output], name=f"resnet_v2_{depth}")
    return network, published
