"""Every `feature_extractor.type` of CenterNet: what it builds, computes, stores and restores."""

import numpy as np
import pytest
import tensorflow as tf

import tfod_zoo
from tfod_zoo.errors import UsageError, ZooError
from tfod_zoo.modeling.backbones.mobilenet_v2 import mobilenet_v2
from tfod_zoo.modeling.center_net.feature_extractors import FEATURE_EXTRACTORS
from tfod_zoo.modeling.checkpoint import SUFFIX
from tfod_zoo.modeling.necks.fpn import double_bilinear

BODY = "model/_feature_extractor/_base_model/"


def small(kind, side=64, **extractor):
    pipeline = tfod_zoo.generate_pipeline("centernet_resnet50_v2_512x512_coco17_tpu-8")
    center_net = pipeline.model.center_net
    center_net.feature_extractor.type, center_net.num_classes = kind, 2
    for field, value in extractor.items():
        setattr(center_net.feature_extractor, field, value)
    resizer = center_net.image_resizer.keep_aspect_ratio_resizer
    resizer.min_dimension = resizer.max_dimension = side
    return pipeline


def randomize(model):
    """Values with which every variable matters."""
    for index, variable in enumerate(model.variables):
        low, high = (0.5, 1.5) if "variance" in variable.name or "gamma" in variable.name else (-0.1, 0.1)
        variable.assign(tf.random.stateless_uniform(variable.shape, [index, 5], low, high))


@pytest.mark.parametrize(
    ("kind", "channels", "side"),
    [
        ("resnet_v1_18_fpn", 64, 64),
        ("resnet_v1_34_fpn", 64, 64),
        ("resnet_v1_50_fpn", 64, 64),
        ("resnet_v2_50", 64, 64),
        ("mobilenet_v2", 64, 64),
        ("mobilenet_v2_fpn", 24, 64),
        ("mobilenet_v2_fpn_sep_conv", 24, 64),
        ("hourglass_10", 64, 64),
        ("hourglass_20", 96, 64),
        ("hourglass_32", 96, 64),
        ("hourglass_52", 128, 128),
    ],
)
def test_output_at_stride_4(kind, channels, side):
    extractor = FEATURE_EXTRACTORS[kind](small(kind).model.center_net.feature_extractor, side, side)
    outputs = extractor(tf.zeros([2, side, side, 3]))
    assert [output.shape.as_list() for output in outputs] == [[2, side // 4, side // 4, channels]]


@pytest.mark.parametrize(
    ("kind", "side", "multiple"),
    [
        ("resnet_v1_18_fpn", 80, 32),
        ("resnet_v2_50", 80, 32),
        ("mobilenet_v2", 80, 32),
        ("mobilenet_v2_fpn", 80, 32),
        ("hourglass_10", 68, 8),
        ("hourglass_32", 80, 32),
        ("hourglass_104", 64, 128),
    ],
)
def test_an_input_that_does_not_divide_is_refused(kind, side, multiple):
    with pytest.raises(ZooError, match=f"{side}x{side}; {kind} needs multiples of {multiple}"):
        tfod_zoo.build(small(kind, side))


def test_every_type_of_the_schema_is_there():
    assert set(FEATURE_EXTRACTORS) == {
        *(f"hourglass_{depth}" for depth in (10, 20, 32, 52, 104)),
        *(f"resnet_v1_{depth}_fpn" for depth in (18, 34, 50, 101)),
        *(f"resnet_v2_{depth}" for depth in (50, 101)),
        *("mobilenet_v2", "mobilenet_v2_fpn", "mobilenet_v2_fpn_sep_conv"),
    }


class Stored:
    """A network's variables as the checkpoint numbers them; the tests compute with them what the paper says."""

    def __init__(self, variables, prefix):
        self.variables, self.prefix = variables, prefix

    def __call__(self, number, name):
        return self.variables[f"{self.prefix}layer_with_weights-{number}/{name}{SUFFIX}"]

    def convolution(self, number, x, stride=1, pad=0):
        x = tf.pad(x, [[0, 0], [pad, pad], [pad, pad], [0, 0]])
        x = tf.nn.conv2d(x, self(number, "kernel"), stride, "VALID")
        bias = f"{self.prefix}layer_with_weights-{number}/bias{SUFFIX}"
        return x + self.variables[bias] if bias in self.variables else x

    def norm_relu(self, number, x, epsilon=1.001e-5):
        values = (self(number, name) for name in ("moving_mean", "moving_variance", "beta", "gamma"))
        return tf.nn.relu(tf.nn.batch_normalization(x, *values, epsilon))


@pytest.mark.parametrize(("depth", "blocks"), [(18, (2, 2, 2, 2)), (34, (3, 4, 6, 3))])
def test_resnet_of_basic_blocks(depth, blocks):
    """The whole body again from plain operations, its weights found by their numbers in a checkpoint."""
    model = tfod_zoo.build(small(f"resnet_v1_{depth}_fpn"))
    randomize(model)
    stored = Stored(model.keyed_variables, BODY)
    inputs = tf.random.stateless_uniform([1, 64, 64, 3], [1, 2], -100, 100)
    x = stored.convolution(0, inputs, stride=2, pad=3)
    x = tf.nn.max_pool2d(tf.pad(x, [[0, 0], [1, 1], [1, 1], [0, 0]]), 3, 2, "VALID")
    number, expected = 1, []
    for stage, count in enumerate(blocks):
        for block in range(count):
            stride = 2 if stage > 0 and block == count - 1 else 1
            active = stored.norm_relu(number, x)
            y = stored.norm_relu(number + 2, stored.convolution(number + 1, active, pad=1))
            y = stored.norm_relu(number + 4, stored.convolution(number + 3, y, stride, pad=1))
            x = y + (stored.convolution(number + 5, active) if block == 0 else x[:, ::stride, ::stride])
            number += 6 if block == 0 else 5
        expected.append(x)
    assert stored(number, "gamma").shape == [512]  # post_bn, stored but not applied
    assert f"{BODY}layer_with_weights-{number + 1}/gamma{SUFFIX}" not in model.keyed_variables
    for got, want in zip(model.extractor.body(inputs), expected, strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-4 * float(tf.math.reduce_std(want)))


def test_mobilenet_with_transposed_convolutions_is_stored_as_one_network(tmp_path):
    model = tfod_zoo.build(small("mobilenet_v2"))
    randomize(model)
    shapes = {key.removesuffix(SUFFIX): value.shape.as_list() for key, value in model.keyed_variables.items()}
    network = "model/_feature_extractor/_network/"
    assert shapes[f"{network}layer_with_weights-0/layer_with_weights-0/kernel"] == [3, 3, 3, 32]
    assert shapes[f"{network}layer_with_weights-0/layer_with_weights-102/kernel"] == [1, 1, 320, 1280]
    # Per width a 1x1 convolution and a 3x3 transposed one, each with its norm.
    for number, (inner, outer) in zip((1, 5, 9), ((1280, 256), (256, 128), (128, 64)), strict=True):
        assert shapes[f"{network}layer_with_weights-{number}/kernel"] == [1, 1, inner, outer]
        assert shapes[f"{network}layer_with_weights-{number + 2}/kernel"] == [3, 3, outer, outer]
    assert f"{network}layer_with_weights-12/gamma" in shapes

    tf.train.Checkpoint(feature_extractor=model.extractor.classification_tree).write(str(tmp_path / "body"))
    other = tfod_zoo.build(small("mobilenet_v2"))
    report = other.restore_checkpoint(tmp_path / "body", mode="classification")
    assert len(report.restored) == len(model.extractor.variables)  # the transposed convolutions too
    assert all("_prediction_head_dict" in key for key in report.missing)
    images = tf.random.stateless_uniform([1, 64, 64, 3], [1, 2], -1, 1)
    np.testing.assert_array_equal(other.extractor(images)[0], model.extractor(images)[0])


def test_classification_restores_a_resnet_body_and_no_hourglass(tmp_path):
    model = tfod_zoo.build(small("resnet_v1_18_fpn"))
    tf.train.Checkpoint(feature_extractor=model.extractor.classification_tree).write(str(tmp_path / "body"))
    other = tfod_zoo.build(small("resnet_v1_18_fpn"))
    report = other.restore_checkpoint(tmp_path / "body", mode="classification")
    assert all(key.startswith("feature_extractor/layer_with_weights-") for key in report.restored)
    assert "feature_extractor/layer_with_weights-45/gamma" + SUFFIX in report.restored  # post_bn
    assert any("_feature_extractor_model" in key for key in report.missing)
    with pytest.raises(UsageError, match='hourglass_10; use "detection"'):
        tfod_zoo.build(small("hourglass_10")).restore_checkpoint(tmp_path / "body", mode="classification")


def test_separable_by_option_equals_separable_by_type():
    by_option = tfod_zoo.build(small("mobilenet_v2_fpn", use_separable_conv=True)).keyed_variables
    by_type = tfod_zoo.build(small("mobilenet_v2_fpn_sep_conv")).keyed_variables
    assert {key: value.shape for key, value in by_option.items()} == {k: v.shape for k, v in by_type.items()}
    assert any("_feature_extractor_model" in key and "pointwise_kernel" in key for key in by_option)


@pytest.mark.parametrize(("alpha", "last", "tap"), [(0.5, 640, 16), (0.75, 960, 24), (1.0, 1280, 24), (1.4, 1792, 32)])
def test_width_multiplier(alpha, last, tap):
    """Unlike Keras applications, the last convolution narrows with the others."""
    outputs = mobilenet_v2(64, 64, alpha).outputs
    assert (outputs[-1].shape[-1], outputs[0].shape[-1]) == (last, tap)


@pytest.mark.parametrize("size", [(1, 1), (2, 5), (8, 8)])
def test_bilinear_doubling_is_tensorflow_s(size):
    x = tf.random.stateless_normal([2, *size, 3], [1, 2])
    np.testing.assert_allclose(double_bilinear(x), tf.image.resize(x, [2 * size[0], 2 * size[1]]), atol=1e-6)


def test_upsampling_interpolation_changes_the_network():
    outputs = {}
    for interpolation in ("nearest", "bilinear"):
        model = tfod_zoo.build(small("mobilenet_v2_fpn", upsampling_interpolation=interpolation))
        randomize(model)
        outputs[interpolation] = model.extractor(tf.random.stateless_uniform([1, 64, 64, 3], [1, 2], -1, 1))[0]
    difference = tf.reduce_max(tf.abs(outputs["nearest"] - outputs["bilinear"]))
    assert float(difference) > 1e-3
