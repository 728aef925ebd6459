"""The values of `feature_extractor.type`: body, neck, and the pixels that they expect (spec: CenterNet, 4 and 14)."""

import functools
from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf
import tf_keras

from tfod_zoo.errors import UsageError
from tfod_zoo.modeling import checkpoint
from tfod_zoo.modeling.backbones.hourglass import VARIANTS, Hourglass
from tfod_zoo.modeling.backbones.mobilenet_v2 import mobilenet_v2
from tfod_zoo.modeling.backbones.resnet_v1 import resnet_v1
from tfod_zoo.modeling.backbones.resnet_v1_small import resnet_v1_small
from tfod_zoo.modeling.backbones.resnet_v2 import resnet_v2
from tfod_zoo.modeling.necks.deconvolution import Deconvolution
from tfod_zoo.modeling.necks.fpn import TopDownPyramid
from tfod_zoo.modeling.placement import in_another_runtime

OUTPUT_STRIDE = 4  # input pixels per output cell, for every extractor
BODY_STRIDE = 32  # input pixels per cell of the coarsest map of a classification network
CAFFE_MEANS_BGR = (103.939, 116.779, 123.68)  # ImageNet means that Keras applications' "caffe" mode subtracts


def reverse_channels(images: tf.Tensor) -> tf.Tensor:
    """RGB <-> BGR, `[B, H, W, 3]` float32."""
    if in_another_runtime():  # OpenVINO 2026.4 reverses 512x512 pixels in 1.2 ms, a fiftieth of a ResNet-50 in bfloat16
        return tf.nn.conv2d(images, np.eye(3, dtype=np.float32)[None, None, ::-1], 1, "VALID")
    return tf.reverse(images, [-1])


def caffe_scaling(images: tf.Tensor) -> tf.Tensor:
    """RGB in 0..255 -> BGR around zero, as ResNet V1 expects."""
    # Reversed last: around zero, low precision loses less.
    return reverse_channels(images - tf.constant(CAFFE_MEANS_BGR[::-1]))


def unit_scaling(images: tf.Tensor) -> tf.Tensor:
    """RGB in 0..255 -> [-1, 1], as ResNet V2 and MobileNetV2 expect."""
    return images / 127.5 - 1.0


class FeatureExtractor(tf_keras.layers.Layer):
    """A network from normalised pixels to maps at stride 4; built when made."""

    def scale(self, images: tf.Tensor) -> tf.Tensor:
        """The scaling that the body expects after the config's own means and stds."""
        return images

    def call(self, inputs: tf.Tensor, training: bool = False) -> list[tf.Tensor]:
        """`[B, H, W, 3]` float32 -> one map `[B, H/4, W/4, D]` per output of the network."""
        raise NotImplementedError

    @property
    def tfod_tree(self):
        """The extractor's variables under TFOD's attribute names: what a checkpoint calls `_feature_extractor`."""
        raise NotImplementedError

    @property
    def classification_tree(self):
        """What a classification checkpoint calls `feature_extractor`; None where there is no such checkpoint."""
        return None

    def recompute_gradients(self, recompute: bool) -> None:
        """See `CenterNet.recompute_gradients`.

        Raises:
          UsageError: this extractor cannot.
        """
        if recompute:
            raise UsageError("only hourglass networks can recompute their gradients; train this one without.")


class BodyAndNeck(FeatureExtractor):
    """A classification network and a neck.

    Args:
      body: functional model to a list of maps.
      neck: layer from that list to one map, with `checkpoint_layers()`.
      scaling: see `FeatureExtractor.scale`.
      stored_body: what checkpoints hold as `_base_model`, where it is more than `body`.
    """

    def __init__(
        self,
        body: tf_keras.Model,
        neck: tf_keras.layers.Layer,
        scaling: Callable[[tf.Tensor], tf.Tensor],
        stored_body: tf_keras.Model | None = None,
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.body, self.neck, self.stored_body = body, neck, stored_body or body
        self._scaling = scaling
        neck([tf_keras.Input(output.shape[1:]) for output in body.outputs])  # creates the neck's variables

    def scale(self, images: tf.Tensor) -> tf.Tensor:
        return self._scaling(images)

    def call(self, inputs: tf.Tensor, training: bool = False) -> list[tf.Tensor]:
        features = self.body(inputs, training=training)
        return [self.neck(features if isinstance(features, (list, tuple)) else [features], training=training)]

    @functools.cached_property
    def tfod_tree(self):
        return checkpoint.tree(
            _base_model=self.stored_body,  # numbered by Keras
            _feature_extractor_model=checkpoint.numbered(self.neck.checkpoint_layers(), start=1),
        )

    @property
    def classification_tree(self):
        return self.stored_body


class MobileNetV2Deconvolution(BodyAndNeck):
    """MobileNetV2 and transposed convolutions, which TFOD stores as one network with the body nested in it."""

    @functools.cached_property
    def tfod_tree(self):
        return checkpoint.tree(_network=self.classification_tree)

    @functools.cached_property
    def classification_tree(self):
        """The neck is in it: for this extractor "classification" restores the whole network (spec, section 15)."""
        return checkpoint.numbered([self.body, *self.neck.checkpoint_layers()], start=0)


class HourglassExtractor(FeatureExtractor):
    """An hourglass network is body and neck in one."""

    def __init__(self, depth: int, height: int, width: int, **kwargs):
        super().__init__(**kwargs)
        self.network = Hourglass(depth, name=f"hourglass_{depth}")
        self.network(tf_keras.Input((height, width, 3)))  # creates the variables

    def call(self, inputs: tf.Tensor, training: bool = False) -> list[tf.Tensor]:
        return self.network(inputs, training=training)

    @functools.cached_property
    def tfod_tree(self):
        return checkpoint.tree(_network=self.network)

    def recompute_gradients(self, recompute: bool) -> None:
        self.network.recompute_gradients(recompute)


Builder = Callable[[Any, int, int], FeatureExtractor]  # (feature_extractor message, height, width)


def _resnet_v1_fpn(depth: int) -> Builder:
    return lambda config, height, width: BodyAndNeck(
        resnet_v1(depth, height, width), TopDownPyramid((256, 128, 64, 64), name="fpn"), caffe_scaling
    )


def _resnet_v1_small_fpn(depth: int) -> Builder:
    def builder(config, height: int, width: int) -> FeatureExtractor:
        network, published = resnet_v1_small(depth, height, width)
        pyramid = TopDownPyramid((256, 128, 64, 64), name="fpn")
        return BodyAndNeck(network, pyramid, caffe_scaling, stored_body=published)

    return builder


def _resnet_v2(depth: int) -> Builder:
    def builder(config, height: int, width: int) -> FeatureExtractor:
        network, published = resnet_v2(depth, height, width)
        return BodyAndNeck(network, Deconvolution(name="deconvolution"), unit_scaling, stored_body=published)

    return builder


def _mobilenet_v2_fpn(separable: bool) -> Builder:
    return lambda config, height, width: BodyAndNeck(
        mobilenet_v2(height, width, config.depth_multiplier),
        TopDownPyramid(
            (64, 32, 24, 24), separable or config.use_separable_conv, config.upsampling_interpolation, name="fpn"
        ),
        unit_scaling,
    )


def _mobilenet_v2(config, height: int, width: int) -> FeatureExtractor:
    return MobileNetV2Deconvolution(
        mobilenet_v2(height, width, config.depth_multiplier),
        Deconvolution(kernel_size=1, name="deconvolution"),
        unit_scaling,
    )


def _hourglass(depth: int) -> Builder:
    return lambda config, height, width: HourglassExtractor(depth, height, width)


FEATURE_EXTRACTORS: dict[str, Builder] = {
    "hourglass_104": _hourglass(104),
    "hourglass_52": _hourglass(52),
    "hourglass_32": _hourglass(32),
    "hourglass_20": _hourglass(20),
    "hourglass_10": _hourglass(10),
    "resnet_v1_18_fpn": _resnet_v1_small_fpn(18),
    "resnet_v1_34_fpn": _resnet_v1_small_fpn(34),
    "resnet_v1_50_fpn": _resnet_v1_fpn(50),
    "resnet_v1_101_fpn": _resnet_v1_fpn(101),
    "resnet_v2_50": _resnet_v2(50),
    "resnet_v2_101": _resnet_v2(101),
    "mobilenet_v2": _mobilenet_v2,
    "mobilenet_v2_fpn": _mobilenet_v2_fpn(separable=False),
    "mobilenet_v2_fpn_sep_conv": _mobilenet_v2_fpn(separable=True),
}


def required_multiple(kind: str) -> int:
    """What height and width of the input must be multiples of: the coarsest stride of a key of `FEATURE_EXTRACTORS`."""
    family, _, depth = kind.partition("_")
    return OUTPUT_STRIDE * 2 ** VARIANTS[int(depth)].levels if family == "hourglass" else BODY_STRIDE
