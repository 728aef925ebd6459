"""Batch-norm averages are those of the data, after however few steps."""

import numpy as np
import pytest
import tensorflow as tf
import tf_keras
from hypothesis import given
from hypothesis import strategies as st

from tfod_zoo.training.batch_norm import BatchNormRamp, ramped_momentum

SLOW = 0.9997  # the zoo's MobileNetV2 configs


def small_network() -> tf_keras.Model:
    tf_keras.utils.set_random_seed(1)
    normalise = tf_keras.layers.BatchNormalization
    return tf_keras.Sequential(
        [
            tf_keras.layers.Conv2D(8, 3, input_shape=(16, 16, 3)),
            normalise(momentum=SLOW),
            tf_keras.layers.ReLU(),
            tf_keras.Sequential([tf_keras.layers.Conv2D(4, 3), normalise(momentum=0.99)]),
        ]
    )


def batches(count: int) -> np.ndarray:
    return np.random.default_rng(0).normal(3.0, 5.0, (count, 8, 16, 16, 3)).astype(np.float32)


def train(model: tf_keras.Model, steps: int, ramp: BatchNormRamp | None, jit: bool = False) -> None:
    """A slow SGD, so that the statistics move during training as they do in life."""
    count = tf.Variable(0, dtype=tf.int64)

    @tf.function(jit_compile=jit)
    def step(batch):
        with tf.GradientTape() as tape:
            if ramp is None:
                outputs = model(batch, training=True)
            else:
                with ramp.at(count):
                    outputs = model(batch, training=True)
            loss = tf.reduce_mean((outputs - 1.0) ** 2)
        for variable, gradient in zip(
            model.trainable_variables, tape.gradient(loss, model.trainable_variables), strict=True
        ):
            variable.assign_sub(0.01 * gradient)
        count.assign_add(1)

    for batch in batches(steps):
        step(batch)


def worst_lag(model: tf_keras.Model) -> float:
    """How far the moving statistics are from ones estimated afresh over training batches, in standard deviations."""
    layers = [layer for layer in model.submodules if isinstance(layer, tf_keras.layers.BatchNormalization)]
    kept = [(layer.moving_mean.numpy(), layer.moving_variance.numpy()) for layer in layers]
    means = [[np.zeros_like(mean), np.zeros_like(mean)] for mean, _ in kept]
    data = batches(12)
    for batch in data:
        # Momentum 0 leaves this batch's own statistics behind.
        for layer in layers:
            layer.momentum = 0.0
        model(batch, training=True)
        for total, layer in zip(means, layers, strict=True):
            total[0] += layer.moving_mean.numpy() / len(data)
            total[1] += layer.moving_variance.numpy() / len(data)
    lags = []
    for (mean, variance), (true_mean, true_variance) in zip(kept, means, strict=True):
        lags.append(np.abs(mean - true_mean) / np.sqrt(true_variance))
        lags.append(np.abs(variance / true_variance - 1.0))
    return max(float(lag.max()) for lag in lags)


def test_averages_are_true_after_a_short_training_and_the_plain_ones_are_not():
    with_ramp, plain = small_network(), small_network()
    train(with_ramp, 60, BatchNormRamp(with_ramp))
    train(plain, 60, None)
    assert worst_lag(with_ramp) < 0.1
    assert worst_lag(plain) > 0.5


def test_the_ramp_compiles_with_xla_to_the_same_averages():
    eager, compiled = small_network(), small_network()
    train(eager, 5, BatchNormRamp(eager))
    train(compiled, 5, BatchNormRamp(compiled), jit=True)
    for one, other in zip(eager.non_trainable_variables, compiled.non_trainable_variables, strict=True):
        # XLA's batch norm leaves out the factor n / (n - 1) of the fused kernel's variance; n is over 1,000 here.
        np.testing.assert_allclose(one, other, rtol=5e-3, atol=1e-4)


def test_python_momentum_is_back_afterwards_even_after_an_error():
    model = small_network()
    ramp = BatchNormRamp(model)
    with pytest.raises(RuntimeError), ramp.at(tf.constant(3)):
        assert all(
            tf.is_tensor(layer.momentum)
            for layer in model.submodules
            if isinstance(layer, tf_keras.layers.BatchNormalization)
        )
        raise RuntimeError
    momenta = [
        layer.momentum for layer in model.submodules if isinstance(layer, tf_keras.layers.BatchNormalization)
    ]
    assert sorted(momenta) == [0.99, SLOW]


@given(st.floats(0.0, 0.9999), st.integers(0, 10**7))
def test_the_ramp_never_passes_the_configured_momentum(configured, step):
    momentum = float(ramped_momentum(configured, tf.constant(step, tf.int64)))
    assert momentum == pytest.approx(min(configured, (1 + step) / (10 + step)), rel=1e-6)


def test_a_long_run_averages_with_the_configured_momentum():
    assert float(ramped_momentum(SLOW, tf.constant(30_000))) == pytest.approx(SLOW, rel=1e-7)
    assert float(ramped_momentum(SLOW, tf.constant(29_000))) < SLOW
    assert float(ramped_momentum(0.1, tf.constant(0))) == pytest.approx(0.1)  # Hourglass
