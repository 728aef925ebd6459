"""The values of `feature_extractor.type`: what both stages see of an image (spec, sections 3 and 14)."""

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import tensorflow as tf
import tf_keras

from tfod_zoo.errors import ZooError
from tfod_zoo.modeling import checkpoint
from tfod_zoo.modeling.backbones.resnet_v1_bias_free import BLOCKS, ResNetV1, Stage
from tfod_zoo.modeling.conv_style import ConvStyle, ProductConv2D, conv_style
from tfod_zoo.modeling.faster_rcnn.feature_pyramid import FeaturePyramid

_FINEST_LEVEL, _COARSEST_LEVEL = 2, 5  # of a ResNet: strides 4 to 32
_DENSE_UNITS = 1024  # of the pyramid's second stage


class FeatureExtractor(tf_keras.layers.Layer):
    """What the first stage sees, and what the second makes of a crop of it; built by the model.

    Attributes:
      levels: log2 of the stride of each map that `call` returns.
      crop_step: `box_features` takes only every so many-th row and column of a crop.
    """

    levels: Sequence[int]
    crop_step = 1

    def feature_sizes(self, height: int, width: int) -> list[tuple[int, int]]:
        """Sizes in cells of the maps of an input of height x width pixels."""
        return [(math.ceil(height / 2**level), math.ceil(width / 2**level)) for level in self.levels]

    def call(self, inputs: tf.Tensor, training: bool = False) -> list[tf.Tensor]:
        """`[B, H, W, 3]` -> the maps, fine to coarse, that the first stage searches and the second crops."""
        raise NotImplementedError

    def box_features(self, crops: tf.Tensor, training: bool = False) -> tf.Tensor:
        """Pooled crops `[N, h, w, C]`, thinned out by `crop_step` -> `[N, h', w', D]`."""
        raise NotImplementedError

    def tfod_trees(self) -> dict:
        """The two parts under TFOD's attribute names."""
        raise NotImplementedError

    def classification_layers(self) -> Sequence[tf_keras.layers.Layer]:
        """The layers of the classification network in its checkpoint's order."""
        raise NotImplementedError


class ResNetExtractor(FeatureExtractor):
    """ResNet up to conv4 for the first stage, conv5 for the second."""

    levels = (4,)
    # conv5 begins with 1x1 convolutions of stride 2, which see every other cell: cropped without the others, they are
    # the same with stride 1, and cropping costs a third.
    crop_step = 2

    def __init__(self, depth: int, style: ConvStyle, **kwargs):
        super().__init__(**kwargs)
        self.body = ResNetV1(depth, last=4, style=style, name="body")
        self.conv5 = Stage(depth, 5, replace(style, layer=ProductConv2D), stride=1)

    def call(self, inputs: tf.Tensor, training: bool = False) -> list[tf.Tensor]:
        return self.body(inputs, training=training)[-1:]

    def box_features(self, crops: tf.Tensor, training: bool = False) -> tf.Tensor:
        return self.conv5(crops, training=training)

    def tfod_trees(self) -> dict:
        return {
            "_feature_extractor_for_proposal_features": checkpoint.numbered(self.body.checkpoint_layers(), 0),
            "_feature_extractor_for_box_classifier_features": checkpoint.numbered(self.conv5.checkpoint_layers(), 0),
        }

    def classification_layers(self) -> Sequence[tf_keras.layers.Layer]:
        return [*self.body.checkpoint_layers(), *self.conv5.checkpoint_layers()]


class PyramidExtractor(FeatureExtractor):
    """ResNet with a feature pyramid for the first stage, two dense layers for the second.

    Args:
      body_style, style: of the ResNet, and of the pyramid and the dense layers' batch norm.
      min_level, max_level: finest and coarsest level, log2 of their strides.
      channels: of every level.
    """

    def __init__(
        self,
        depth: int,
        body_style: ConvStyle,
        style: ConvStyle,
        min_level: int,
        max_level: int,
        channels: int,
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.levels = tuple(range(min_level, max_level + 1))
        self._taken = slice(min_level - _FINEST_LEVEL, max_level - _FINEST_LEVEL + 1)
        laterals = min(max_level, _COARSEST_LEVEL) - min_level + 1
        self.body = ResNetV1(depth, last=_COARSEST_LEVEL, style=body_style, name="body")
        self.pyramid = FeaturePyramid(laterals, max(max_level - _COARSEST_LEVEL, 0), channels, style, name="pyramid")
        self.dense_1 = tf_keras.layers.Dense(_DENSE_UNITS, activation="relu", name="dense_1")
        self.norm = style.norm(name="norm")
        self.dense_2 = tf_keras.layers.Dense(_DENSE_UNITS, activation="relu", name="dense_2")

    def call(self, inputs: tf.Tensor, training: bool = False) -> list[tf.Tensor]:
        height, width = inputs.shape[1:3]
        multiple = 2**_COARSEST_LEVEL  # so that every level is exactly half the size of the one before
        padded = tf.pad(inputs, [[0, 0], [0, -height % multiple], [0, -width % multiple], [0, 0]])
        return self.pyramid(self.body(padded, training=training)[self._taken], training=training)

    def feature_sizes(self, height: int, width: int) -> list[tuple[int, int]]:
        multiple = 2**_COARSEST_LEVEL
        return super().feature_sizes(height + -height % multiple, width + -width % multiple)

    def box_features(self, crops: tf.Tensor, training: bool = False) -> tf.Tensor:
        flat = self.dense_1(tf.reshape(crops, [-1, math.prod(crops.shape[1:])]))
        return self.dense_2(self.norm(flat, training=training))[:, None, None]

    def tfod_trees(self) -> dict:
        return {
            "_feature_extractor_for_proposal_features": checkpoint.tree(
                classification_backbone=checkpoint.numbered(self.body.checkpoint_layers(), 0),
                **self.pyramid.tfod_nodes(),
            ),
            "_feature_extractor_for_box_classifier_features": checkpoint.numbered(
                [self.dense_1, self.norm, self.dense_2], 0
            ),
        }

    def classification_layers(self) -> Sequence[tf_keras.layers.Layer]:
        return self.body.checkpoint_layers()


_DEPTHS = {f"faster_rcnn_resnet{depth}_keras": depth for depth in BLOCKS}
_PYRAMID_DEPTHS = {f"faster_rcnn_resnet{depth}_fpn_keras": depth for depth in BLOCKS}


def build_feature_extractor(config: Any, training: bool) -> FeatureExtractor:
    """The extractor of a FasterRcnnFeatureExtractor message; its variables come with the first call.

    Args:
      training: whether batch norm may follow the batch (it also needs `batch_norm_trainable`).

    Raises:
      ZooError: there is no such type here, or a field of it is not supported.
    """
    where = "model.faster_rcnn.feature_extractor"
    follow = training and config.batch_norm_trainable
    body_style = ConvStyle(update_statistics=follow)
    if config.type in _DEPTHS:
        stride = config.first_stage_features_stride
        if stride != 16:
            raise ZooError(f"{where}.first_stage_features_stride is {stride}; {config.type} has 16.")
        return ResNetExtractor(_DEPTHS[config.type], body_style, name="extractor")
    if config.type not in _PYRAMID_DEPTHS:
        raise ZooError(
            f'{where}.type "{config.type}" has no network here; there are {", ".join([*_DEPTHS, *_PYRAMID_DEPTHS])}.'
        )
    fpn = config.fpn
    if not _FINEST_LEVEL <= fpn.min_level < min(fpn.max_level, _COARSEST_LEVEL):
        raise ZooError(f"{where}.fpn needs 2 <= min_level < 5 and a larger max_level.")
    style = conv_style(config.conv_hyperparams, f"{where}.conv_hyperparams", update_statistics=follow)
    return PyramidExtractor(
        _PYRAMID_DEPTHS[config.type],
        style if config.override_base_feature_extractor_hyperparams else body_style,
        style,
        fpn.min_level,
        fpn.max_level,
        fpn.additional_layer_depth,
        name="extractor",
    )
