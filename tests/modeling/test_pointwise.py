"""1x1 convolutions with their bias or batch norm, against TensorFlow's operations one by one."""

import numpy as np
import pytest
import tensorflow as tf
import tf_keras
from hypothesis import given, settings
from hypothesis import strategies as st

from tfod_zoo.modeling import pointwise
from tfod_zoo.modeling.backbones import mobilenet_v2


def make_norm(channels, rng):
    norm = tf_keras.layers.BatchNormalization(momentum=0.9, epsilon=1e-3)
    norm.build([None, None, None, channels])
    norm.set_weights([rng.uniform(0.5, 2, channels), *rng.normal(0, 1, (2, channels)), rng.uniform(0.5, 2, channels)])
    return norm


@settings(deadline=None, max_examples=20)
@given(st.integers(0, 2**32 - 1), st.integers(1, 12), st.integers(1, 20), st.floats(0, 30))
def test_normalizing_by_the_inputs_moments_is_batch_norm(seed, channels, filters, offset):
    rng = np.random.default_rng(seed)
    x = tf.constant(offset + rng.normal(0, 1, (2, 5, 7, channels)), tf.float32)
    kernel = tf.Variable(rng.normal(0, 0.5, (1, 1, channels, filters)), dtype=tf.float32)
    upstream = tf.constant(rng.normal(0, 1, (2, 5, 7, filters)), tf.float32)
    norm = make_norm(filters, np.random.default_rng(seed))
    # Batch norm's formula in float64: TensorFlow's own in float32 loses two digits of the kernel's gradient.
    start = (x, kernel, norm.gamma, norm.beta, norm.moving_mean, norm.moving_variance)
    inputs, weights, scale, shift, mean_before, variance_before = (tf.cast(value, tf.float64) for value in start)
    with tf.GradientTape() as tape:
        tape.watch([inputs, weights, scale, shift])
        convolved = tf.tensordot(inputs, weights[0, 0], 1)
        mean, variance = tf.nn.moments(convolved, [0, 1, 2])
        y = (convolved - mean) * tf.math.rsqrt(variance + norm.epsilon) * scale + shift
    wanted = [y, *tape.gradient(y, [inputs, weights, scale, shift], output_gradients=tf.cast(upstream, tf.float64))]
    cells = 2 * 5 * 7
    wanted += [0.9 * mean_before + 0.1 * mean, 0.9 * variance_before + 0.1 * variance * cells / (cells - 1)]
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = pointwise.convolve_and_normalize(x, kernel, norm)
    found = [y, *tape.gradient(y, [x, kernel, norm.gamma, norm.beta], output_gradients=upstream)]
    for got, true in zip([*found, norm.moving_mean, norm.moving_variance], wanted, strict=True):
        np.testing.assert_allclose(got, true, rtol=1e-3, atol=2e-3 * max(1, np.abs(true).max()))


def test_a_bias_and_its_gradient():
    rng = np.random.default_rng(0)
    x = tf.constant(rng.normal(0, 1, (2, 3, 4, 5)), tf.float32)
    bias = tf.Variable(rng.normal(0, 1, 5), dtype=tf.float32)
    with tf.GradientTape(persistent=True) as tape:
        tape.watch(x)
        ours, plain = tf.square(pointwise.plus_bias(x, bias)), tf.square(x + bias)
    np.testing.assert_allclose(ours, plain)
    for got, wanted in zip(tape.gradient(ours, [x, bias]), tape.gradient(plain, [x, bias]), strict=True):
        np.testing.assert_allclose(got, wanted, rtol=1e-5)


def body_results(body, image, training):
    with tf.GradientTape() as tape:
        maps = body(image, training=training)
        loss = tf.add_n([tf.reduce_mean(tf.square(features)) for features in maps])
    gradients = tape.gradient(loss, body.trainable_variables)
    return [*maps, *gradients, *(tf.identity(variable) for variable in body.non_trainable_variables)]


@pytest.mark.parametrize("frozen", [False, True])
def test_a_body_learns_as_layer_by_layer(frozen, monkeypatch):
    tf_keras.utils.set_random_seed(0)
    body = mobilenet_v2.mobilenet_v2(64, 64, alpha=0.5)
    for layer in body.layers:
        if frozen and isinstance(layer, tf_keras.layers.BatchNormalization):
            layer.trainable = False
    start = body.get_weights()
    image = tf.random.uniform([2, 64, 64, 3], -1, 1)
    joined = body_results(body, image, training=True)
    assert any(np.any(a != b.numpy()) for a, b in zip(start, body.weights, strict=True)) is not frozen
    body.set_weights(start)
    monkeypatch.setattr(mobilenet_v2, "normalizes", lambda norm, channels: False)
    for got, wanted in zip(joined, body_results(body, image, training=True), strict=True):
        # As a whole: rounding moves a few activations over the edges of ReLU6.
        assert np.linalg.norm(got - wanted) <= 1e-2 * np.linalg.norm(wanted) + 1e-5


def test_where_others_count_it_is_not_had():
    norm = make_norm(640, np.random.default_rng(0))
    assert pointwise.normalizes(norm, 16)
    assert not pointwise.normalizes(norm, 160)
    assert not pointwise.normalizes(make_norm(16, np.random.default_rng(0)), 16)
    norm.trainable = False
    assert not pointwise.normalizes(norm, 16)
    for options in ({"dtype": "mixed_bfloat16"}, {"scale": False}, {"center": False}):
        norm = tf_keras.layers.BatchNormalization(**options)
        norm.build([None, None, None, 640])
        assert not pointwise.normalizes(norm, 16), options
