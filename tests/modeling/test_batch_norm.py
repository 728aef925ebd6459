"""Bias and batch norm that are one in inference give what they give one after the other."""

import numpy as np
import pytest
import tensorflow as tf
import tf_keras

from tfod_zoo.modeling.backbones.resnet_v1 import resnet_v1
from tfod_zoo.modeling.backbones.resnet_v2 import resnet_v2
from tfod_zoo.modeling.batch_norm import ConvWithoutBias, NormWithBias, join
from tfod_zoo.modeling.conv_style import BodyConv2D


@pytest.mark.parametrize("frozen", [False, True])
@pytest.mark.parametrize("training", [False, True])
def test_joined_layers_equal_separate_ones(training, frozen):
    rng = np.random.default_rng(0)
    x = tf.constant(rng.normal(size=(2, 6, 5, 3)).astype(np.float32))
    convolution, norm = ConvWithoutBias(4, 3), NormWithBias()
    plain = tf_keras.layers.Conv2D(4, 3), tf_keras.layers.BatchNormalization()
    for layer in (convolution, plain[0]):
        layer.build(x.shape)
    for layer in (norm, plain[1]):
        layer.build([None, None, None, 4])
        layer.trainable = not frozen
    plain[0].set_weights([rng.normal(size=weight.shape) for weight in convolution.get_weights()])
    plain[1].set_weights([rng.uniform(0.5, 2, 4) for _ in range(4)])
    convolution.set_weights(plain[0].get_weights())
    norm.set_weights(plain[1].get_weights())
    join(convolution, norm)
    with tf.GradientTape() as tape:
        between = convolution(x, training=training)
        got = norm(between, training=training)
    with tf.GradientTape() as plain_tape:
        want = plain[1](plain[0](x), training=training)
    np.testing.assert_allclose(got, want, atol=1e-5)
    by_batch = training and not frozen
    assert np.allclose(between, plain[0](x), atol=1e-6) == by_batch  # else the bias was left out
    for ours, theirs in zip([convolution, norm], plain, strict=True):
        np.testing.assert_allclose(ours.get_weights()[-1], theirs.get_weights()[-1], atol=1e-6)
    sides = (
        tape.gradient(got, convolution.weights + norm.weights[:2]),
        plain_tape.gradient(want, plain[0].weights + plain[1].weights[:2]),
    )
    for ours, theirs in zip(*sides, strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-3)


@pytest.mark.parametrize("version", [1, 2])
def test_a_body_is_that_of_keras_applications(version):
    """At a size where 3x3 convolutions are made of matrix products."""
    tf_keras.utils.set_random_seed(0)
    builder = tf_keras.applications.ResNet50 if version == 1 else tf_keras.applications.ResNet50V2
    published = builder(input_shape=(128, 128, 3), include_top=False, weights=None)
    body = resnet_v1(50, 128, 128) if version == 1 else resnet_v2(50, 128, 128)[1]
    rng = np.random.default_rng(1)
    weights = [weight + rng.uniform(0.0, 0.2, weight.shape) * (weight.ndim == 1) for weight in published.get_weights()]
    published.set_weights(weights)
    body.set_weights(weights)
    assert [weight.name for weight in body.weights] == [weight.name for weight in published.weights]
    image = tf.random.stateless_normal([1, 128, 128, 3], [0, 1])
    want = published(image).numpy()
    got = body(image)
    np.testing.assert_allclose(got[-1] if version == 1 else got, want, atol=1e-4 * want.std())
    kinds = [layer for layer in body.layers if isinstance(layer, BodyConv2D)]
    by_products = [layer for layer in kinds if layer.is_products(tf.zeros([1, 16, 16, layer.kernel.shape[2]]))]
    assert len(by_products) == (13 if version == 1 else 11)  # of three stages; V2 begins two with its 3x3
    if version == 1:
        assert sum(isinstance(layer, NormWithBias) and layer.takes_bias(False) for layer in body.layers) == 53
