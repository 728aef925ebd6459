"""Learning rates and optimizers against the reference's values (pipeline spec §6)."""

import math

import numpy as np
import pytest
import tensorflow as tf
import tf_keras
from hypothesis import given, settings
from hypothesis import strategies as st

from tfod_zoo.config.pipeline import read_pipeline
from tfod_zoo.errors import ZooError
from tfod_zoo.training.optimizer import (
    CosineWithWarmup,
    ExponentialWithBurnin,
    ManualSteps,
    build_optimizer,
    schedule_end,
)


def optimizer_message(text: str):
    return read_pipeline(f"train_config {{ optimizer {{ {text} }} }}").train_config.optimizer


@pytest.mark.parametrize(
    ("step", "rate"), [(0, 0.013333), (1000, 0.0266665), (2000, 0.04), (13500, 0.02), (25000, 0.0), (25001, 0.0)]
)
def test_cosine_has_the_values_the_reference_printed(step, rate):
    schedule = CosineWithWarmup(0.04, 25000, 0.013333, 2000)
    assert float(schedule(step)) == pytest.approx(rate, abs=1e-8)


def test_cosine_holds_its_base_rate():
    schedule = CosineWithWarmup(1.0, 100, 0.0, 10, hold_steps=20)
    assert [float(schedule(step)) for step in (5, 10, 29, 30, 65, 100)] == pytest.approx(
        [0.5, 1.0, 1.0, 1.0, 0.5 * (1 + math.cos(math.pi * 35 / 70)), 0.0], abs=1e-6
    )


@given(st.integers(1, 50), st.integers(0, 50), st.integers(0, 20), st.integers(0, 150))
@settings(max_examples=40, deadline=None)
def test_cosine_stays_between_zero_and_its_base(falling, warmup, hold, step):
    rate = float(CosineWithWarmup(0.5, warmup + hold + falling, 0.1, warmup, hold)(step))
    assert -1e-7 <= rate <= 0.5 + 1e-7


def test_cosine_refuses_what_cannot_be():
    with pytest.raises(ZooError, match="total_steps"):
        CosineWithWarmup(0.1, 10, 0.0, 11)
    with pytest.raises(ZooError, match="warm-up must rise"):
        CosineWithWarmup(0.1, 10, 0.2, 5)


def test_manual_steps_change_at_their_boundary():
    schedule = ManualSteps([90, 120], [1e-3, 1e-4, 1e-5])
    assert [float(schedule(step)) for step in (0, 89, 90, 119, 120, 999)] == pytest.approx(
        [1e-3, 1e-3, 1e-4, 1e-4, 1e-5, 1e-5]
    )


def test_manual_warmup_is_a_line_to_the_first_scheduled_rate():
    schedule = ManualSteps([10, 20], [0.0, 1.0, 0.1], warmup=True)
    assert [float(schedule(step)) for step in (0, 5, 9, 10, 20)] == pytest.approx([0.0, 0.5, 0.9, 1.0, 0.1])


@pytest.mark.parametrize("boundaries", [[0, 5], [5, 5], [7, 3]])
def test_manual_boundaries_must_rise(boundaries):
    with pytest.raises(ZooError, match="must be over 0 and rise"):
        ManualSteps(boundaries, [1.0, 0.1, 0.01])


def test_exponential_with_burnin_staircase_and_minimum():
    schedule = ExponentialWithBurnin(1.0, 10, 0.5, burnin_rate=0.1, burnin_steps=5, minimum=0.2)
    assert [float(schedule(step)) for step in (0, 4, 5, 14, 15, 25, 99)] == pytest.approx(
        [0.2, 0.2, 1.0, 1.0, 0.5, 0.25, 0.2]
    )
    smooth = ExponentialWithBurnin(1.0, 10, 0.5, staircase=False, burnin_steps=5)
    assert [float(smooth(step)) for step in (0, 10)] == pytest.approx([1.0, 0.5**0.5])


def test_adam_is_kerass_with_the_configs_epsilon():
    optimizer = build_optimizer(
        optimizer_message(
            "adam_optimizer { epsilon: 1e-7 learning_rate { manual_step_learning_rate { initial_learning_rate: 0.1 } }"
            " } use_moving_average: false"
        )
    )
    weight = tf.Variable(1.0)
    optimizer.apply_gradients([(tf.constant(0.5), weight)])
    m, v = 0.1 * 0.5, 0.001 * 0.25
    expected = 1.0 - 0.1 * math.sqrt(1 - 0.999) / (1 - 0.9) * m / (math.sqrt(v) + 1e-7)
    assert float(weight) == pytest.approx(expected, rel=1e-5)


def test_momentum_follows_the_schedule_of_the_step_before_its_increment():
    optimizer = build_optimizer(
        optimizer_message(
            "momentum_optimizer { momentum_optimizer_value: 0.9 learning_rate { manual_step_learning_rate {"
            " initial_learning_rate: 1.0 schedule { step: 1 learning_rate: 0.5 } } } } use_moving_average: false"
        )
    )
    weight = tf.Variable(0.0)
    for _ in range(2):
        optimizer.apply_gradients([(tf.constant(1.0), weight)])
    # v1 = -1, w1 = -1; v2 = 0.9 * v1 - 0.5 = -1.4, w2 = -2.4
    assert float(weight) == pytest.approx(-2.4)


def test_rmsprop_decay_divides_the_learning_rate_as_tfod_does():
    optimizer = build_optimizer(
        optimizer_message(
            "rms_prop_optimizer { decay: 0.8 epsilon: 1.0 momentum_optimizer_value: 0.0"
            " learning_rate { constant_learning_rate { learning_rate: 1.0 } } } use_moving_average: false"
        )
    )
    assert optimizer.get_config()["decay"] == pytest.approx(0.8)
    assert optimizer.get_config()["rho"] == pytest.approx(0.9)
    weight, square, expected = tf.Variable(0.0), 0.0, 0.0
    for step in range(2):
        optimizer.apply_gradients([(tf.constant(1.0), weight)])
        square = 0.9 * square + 0.1
        expected -= 1.0 / (1 + 0.8 * step) / (math.sqrt(square) + 1.0)
    assert float(weight) == pytest.approx(expected, rel=1e-5)


def test_moving_average_is_the_default_of_the_schema_and_starts_at_zero():
    optimizer = build_optimizer(
        optimizer_message("momentum_optimizer { learning_rate { constant_learning_rate { learning_rate: 1.0 } } }")
    )
    model = tf_keras.Sequential([tf_keras.layers.Dense(1, use_bias=False, input_shape=(1,))])
    model.set_weights([np.array([[4.0]], np.float32)])
    optimizer.shadow_copy(model)
    optimizer.apply_gradients([(tf.constant([[1.0]]), model.trainable_variables[0])])
    average = optimizer.get_slot(model.trainable_variables[0], "average")
    # After the first update t = 1: decay min(0.9999, 2 / 11), weight 3.
    assert float(average[0, 0]) == pytest.approx(3.0 * (1 - 2 / 11), rel=1e-5)


def test_no_optimizer_and_no_schedule_are_named():
    with pytest.raises(ZooError, match="no optimizer"):
        build_optimizer(optimizer_message("use_moving_average: false"))
    with pytest.raises(ZooError, match="no learning_rate"):
        build_optimizer(optimizer_message("adam_optimizer { }"))


def test_only_a_cosine_ends():
    cosine = "cosine_decay_learning_rate { total_steps: 70 warmup_steps: 3 }"
    assert schedule_end(optimizer_message(f"adam_optimizer {{ learning_rate {{ {cosine} }} }}")) == 70
    constant = "constant_learning_rate { }"
    assert schedule_end(optimizer_message(f"adam_optimizer {{ learning_rate {{ {constant} }} }}")) is None
