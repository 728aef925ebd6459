"""ResNet V2 (He et al., arXiv:1603.05027) of Keras applications, which is TFOD's body too (spec: CenterNet, 4.3)."""

import functools

import tf_keras

from tfod_zoo.modeling.conv_style import BodyConv2D

_BUILDERS = {50: tf_keras.applications.ResNet50V2, 101: tf_keras.applications.ResNet101V2}
_TAP = "conv5_block3_out"


def _copy(layer: tf_keras.layers.Layer, model: tf_keras.Model) -> tf_keras.layers.Layer:
    """A copy; a 3x3 convolution of stride 1 pads by itself, which is a pass less, and may go Winograd's way."""
    config = layer.get_config()
    if isinstance(layer, tf_keras.layers.Conv2D) and _pads_itself(layer):
        return BodyConv2D.from_config({**config, "padding": "same"})
    if layer.name.endswith("_2_pad") and _pads_itself(model.get_layer(layer.name.replace("_pad", "_conv"))):
        return tf_keras.layers.Activation("linear", name=layer.name)
    return layer.__class__.from_config(config)


def _pads_itself(layer: tf_keras.layers.Conv2D) -> bool:
    return layer.kernel_size == (3, 3) and layer.strides == (1, 1)


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
    original = _BUILDERS[depth](input_shape=(height, width, 3), include_top=False, weights=None)
    published = tf_keras.models.clone_model(original, clone_function=functools.partial(_copy, model=original))
    network = tf_keras.Model(published.inputs, [published.get_layer(_TAP).output], name=f"resnet_v2_{depth}")
    return network, published
