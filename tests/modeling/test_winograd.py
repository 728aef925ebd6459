"""Winograd's way gives the convolution and its gradients, on maps of any size, and is taken where it pays."""

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from tfod_zoo.modeling import winograd
from tfod_zoo.modeling.conv_style import ProductConv2D, WinogradConv2D


def exact(x, kernel):
    return tf.nn.conv2d(tf.cast(x, tf.float64), tf.cast(kernel, tf.float64), 1, "SAME").numpy()


@settings(max_examples=20, deadline=None)
@given(
    batch=st.integers(1, 3),
    height=st.integers(1, 13),
    width=st.integers(1, 13),
    channels=st.integers(1, 5),
    filters=st.integers(1, 5),
)
def test_equals_the_convolution(batch, height, width, channels, filters):
    x = tf.random.stateless_normal([batch, height, width, channels], [height, width])
    kernel = tf.random.stateless_normal([3, 3, channels, filters], [channels, filters])
    upstream = tf.random.stateless_normal([batch, height, width, filters], [batch, 1])
    np.testing.assert_allclose(winograd.convolve(x, kernel), exact(x, kernel), atol=1e-4)
    gradients = []
    for convolve in (winograd.convolve, lambda x, kernel: tf.nn.conv2d(x, kernel, 1, "SAME")):
        with tf.GradientTape() as tape:
            tape.watch([x, kernel])
            y = convolve(x, kernel)
        gradients.append(tape.gradient(y, [x, kernel], upstream))
    for got, want in zip(*gradients, strict=True):
        np.testing.assert_allclose(got, want, atol=1e-3)


def test_rounds_little():
    x = tf.nn.relu(tf.random.stateless_normal([1, 20, 20, 256], [0, 1]))
    kernel = tf.random.stateless_normal([3, 3, 256, 128], [0, 2]) * 0.02
    want = exact(x, kernel)
    assert np.sqrt(np.mean((winograd.convolve(x, kernel) - want) ** 2)) < 5e-6 * want.std()


@pytest.mark.parametrize(
    ("shape", "filters", "options"),
    [
        ((2, 10, 9, 128), 130, {}),
        ((2, 10, 9, 128), 130, {"dilation_rate": 2}),
        ((2, 10, 9, 128), 130, {"strides": 2}),
        ((2, 10, 9, 128), 130, {"padding": "valid"}),
        ((2, 2, 2, 128), 130, {}),
        ((2, 10, 9, 127), 130, {}),
        ((2, 10, 9, 128), 120, {}),
    ],
)
def test_the_layer_is_the_convolution(shape, filters, options):
    layer = ProductConv2D(filters, 3, **{"padding": "same", **options})
    layer.build(shape)
    x = tf.random.stateless_normal(shape, [0, 3])
    batch_unknown = tf.function(layer, input_signature=[tf.TensorSpec([None, *shape[1:]])])
    want = tf.nn.conv2d(x, layer.kernel, layer.strides, layer.padding.upper(), dilations=layer.dilation_rate)
    np.testing.assert_allclose(layer(x), want, atol=1e-4)
    np.testing.assert_allclose(batch_unknown(x), want, atol=1e-4)
    assert layer.is_products(x) == (not options and shape[1] > 2 and shape[3] >= 128 and filters >= 128)


def test_a_body_takes_it_in_training_only():
    layer = WinogradConv2D(128, 3, padding="same", bias_initializer="ones")
    x = tf.random.stateless_normal([1, 8, 8, 128], [0, 5])
    layer.build(x.shape)
    assert layer.is_products(x, training=True) and not layer.is_products(x)
    np.testing.assert_allclose(layer(x, training=True), layer(x), atol=1e-4)


def test_a_compiler_sees_the_convolution():
    layer = ProductConv2D(128, 3, padding="same")
    layer.build([1, 8, 8, 128])
    x = tf.random.stateless_normal([1, 8, 8, 128], [0, 4])
    assert layer.is_products(x)
    taken = []

    @tf.function(jit_compile=True)
    def compiled(x):
        taken.append(layer.is_products(x))
        return layer(x)

    np.testing.assert_allclose(compiled(x), layer(x), atol=1e-4)
    assert taken == [False]
