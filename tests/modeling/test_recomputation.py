"""Recomputed gradients of an hourglass equal the plain ones, and so do the batch norms' averages."""

import numpy as np
import pytest
import tensorflow as tf
import tf_keras

import tfod_zoo
from tfod_zoo.errors import UsageError
from tfod_zoo.modeling.backbones.hourglass import ResidualBlock
from tfod_zoo.modeling.backbones.recomputation import recomputed

NAME = "centernet_hg104_512x512_coco17_tpu-8"


def build(kind, side=64):
    pipeline = tfod_zoo.generate_pipeline(NAME)
    center_net = pipeline.model.center_net
    center_net.feature_extractor.type, center_net.num_classes = kind, 2
    resizer = center_net.image_resizer.keep_aspect_ratio_resizer
    resizer.min_dimension = resizer.max_dimension = side
    tf_keras.utils.set_random_seed(0)  # a network of its own each time may round a ReLU to the other side
    return tfod_zoo.build(pipeline, training=True)


def steps(model, number=2, **function):
    """Losses and gradients of some steps of gradient descent, one after the other, and all variables at the end."""
    groundtruth = {
        "boxes": tf.constant([[[0.1, 0.1, 0.5, 0.6]], [[0.3, 0.2, 0.9, 0.7]]]),
        "classes": tf.constant([[1], [0]]),
        "weights": tf.constant([[1.0], [1.0]]),
    }
    images = tf.random.stateless_uniform([2, 64, 64, 3], [1, 2], 0, 255)

    def step():
        inputs, shapes = model.preprocess(images)
        with tf.GradientTape() as tape:
            losses = model.compute_losses(model(inputs, shapes, training=True), groundtruth, shapes)
            total = tf.add_n(list(losses.values()))
        gradients = tape.gradient(total, model.trainable_variables)
        for variable, gradient in zip(model.trainable_variables, gradients, strict=True):
            variable.assign_sub(1e-4 * gradient)
        return total, gradients

    run = tf.function(step, **function) if function.pop("graph", True) else step
    results = [run() for _ in range(number)]
    totals = [float(total) for total, _ in results]
    return totals, [g.numpy() for _, gradients in results for g in gradients], [v.numpy() for v in model.variables]


@pytest.mark.parametrize(
    ("kind", "function"),
    [("hourglass_20", {}), ("hourglass_10", {"graph": False}), ("hourglass_10", {"jit_compile": True})],
    ids=["graph", "eager", "xla"],
)
def test_recomputation_changes_no_number(kind, function):
    plain, saving = build(kind), build(kind)
    for one, other in zip(plain.variables, saving.variables, strict=True):
        other.assign(one)
    before = [variable.numpy() for variable in plain.variables]
    saving.recompute_gradients()
    losses, gradients, variables = steps(plain, **function)
    again, other_gradients, other_variables = steps(saving, **function)
    assert again == pytest.approx(losses, rel=1e-5)
    scale = max(np.abs(gradient).max() for gradient in gradients)
    for one, other in zip(gradients, other_gradients, strict=True):
        np.testing.assert_allclose(other, one, rtol=1e-3, atol=1e-5 * scale)
    averages = [index for index, variable in enumerate(plain.variables) if not variable.trainable]
    assert averages
    for index in averages:
        assert not np.allclose(variables[index], before[index], rtol=1e-3)  # two steps moved it
        np.testing.assert_allclose(other_variables[index], variables[index], rtol=1e-3, atol=1e-4)


def test_a_block_runs_twice_for_its_gradient_and_once_without():
    block, runs = ResidualBlock(4), []
    x = tf.random.stateless_normal([2, 8, 8, 4], [1, 2])
    block(x)

    def function(inputs):
        runs.append(1)
        return block(inputs, training=True)

    recomputed(block, function, x)
    assert len(runs) == 1
    with tf.GradientTape() as tape:
        total = tf.reduce_sum(recomputed(block, function, x) ** 2)
    tape.gradient(total, block.trainable_variables)
    assert len(runs) == 3


def test_it_can_be_switched_off_and_is_off_in_inference():
    model = build("hourglass_10")
    model.recompute_gradients()
    blocks = [block for block in model.extractor.submodules if isinstance(block, ResidualBlock)]
    assert blocks and all(block.recompute for block in blocks)
    inputs, shapes = model.preprocess(np.zeros([1, 64, 64, 3], np.uint8))
    before = [variable.numpy() for variable in model.non_trainable_variables]
    model(inputs, shapes, training=False)
    for variable, value in zip(model.non_trainable_variables, before, strict=True):
        np.testing.assert_array_equal(variable, value)
    model.recompute_gradients(False)
    assert not any(block.recompute for block in blocks)


def test_other_networks_refuse_it():
    with pytest.raises(UsageError, match="only hourglass"):
        build("mobilenet_v2_fpn").recompute_gradients()
