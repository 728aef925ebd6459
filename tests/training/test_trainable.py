"""What train_config does to the gradients of a step: freezing, slower biases, clipping."""

import numpy as np
import pytest
import tensorflow as tf
import tf_keras
import tiny_run

from tfod_zoo.config.pipeline import merge_text
from tfod_zoo.errors import UsageError
from tfod_zoo.modeling.checkpoint import SUFFIX
from tfod_zoo.training.optimizer import build_optimizer
from tfod_zoo.training.task import DetectionTask
from tfod_zoo.training.trainable import apply_freezing, biases


@pytest.fixture(scope="module")
def shapes(tmp_path_factory):
    return tmp_path_factory.mktemp("freezing") / "shapes"


def moves(shapes, text):
    """What a step adds to every variable, by its key; at a rate at which rounding does not matter."""
    rate = "optimizer { momentum_optimizer { learning_rate { constant_learning_rate { learning_rate: 1000 } } } }"
    pipeline = tiny_run.tiny_pipeline(shapes, "center_net", batch=2)
    merge_text(pipeline, f"train_config {{ {rate} {text} }}")
    tf_keras.utils.set_random_seed(0)
    task = DetectionTask(pipeline)
    model = task.build_model()
    before = {key: variable.numpy() for key, variable in model.keyed_variables.items()}
    batch = next(iter(task.build_inputs()))
    optimizer = build_optimizer(pipeline.train_config.optimizer)
    tf.function(lambda: task.train_step(batch, model, optimizer), autograph=False)()
    return {key: variable.numpy() - before[key] for key, variable in model.keyed_variables.items()}


def largest(shapes, text):
    return {key: np.abs(move).max() for key, move in moves(shapes, text).items()}


def test_what_is_frozen_stays(shapes):
    moved = largest(shapes, 'freeze_variables: "_feature_extractor/.*decoder"')
    frozen = {key for key in moved if "decoder" in key}
    assert frozen and not any(moved[key] for key in frozen)  # moving averages too
    assert np.mean([moved[key] > 0 for key in moved if key.endswith(f"kernel{SUFFIX}") and key not in frozen]) > 0.8


def test_biases_go_slower(shapes):
    plain, slowed = largest(shapes, ""), largest(shapes, "bias_grad_multiplier: 0.5")
    assert any(key.endswith(f"/bias{SUFFIX}") for key in plain)
    for key, move in plain.items():
        assert slowed[key] == pytest.approx(move / 2 if key.endswith(f"/bias{SUFFIX}") else move, rel=1e-3)


def test_gradients_are_clipped_by_their_common_norm(shapes):
    clipped = moves(shapes, "gradient_clipping_by_norm: 1e-3")
    learned = np.concatenate([move.ravel() for key, move in clipped.items() if "/moving_" not in key])
    assert np.linalg.norm(learned.astype(np.float64)) == pytest.approx(1000 * 1e-3, rel=1e-2)


def fake_model():
    norm = tf_keras.layers.BatchNormalization(input_shape=(2, 2, 3), name="norm")
    model = tf_keras.Sequential([norm, tf_keras.layers.Conv2D(2, 1, name="conv")])
    names = ("norm/gamma", "norm/beta", "conv/kernel", "conv/bias", "norm/moving_mean", "norm/moving_variance")
    model.keyed_variables = {
        f"model/{name}/.ATTRIBUTES/VARIABLE_VALUE": variable
        for name, variable in zip(names, [*model.trainable_variables, *model.non_trainable_variables], strict=True)
    }
    return model


def config(text):
    return merge_text(tiny_run.generate_pipeline("centernet_hg104_512x512_coco17_tpu-8"), text).train_config


@pytest.mark.parametrize(
    ("text", "learning", "norm_follows"),
    [
        ("", ["norm/gamma", "norm/beta", "conv/kernel", "conv/bias"], True),
        ('freeze_variables: "norm/(gamma|beta)$"', ["conv/kernel", "conv/bias"], True),
        ('freeze_variables: "norm"', ["conv/kernel", "conv/bias"], False),
        ('update_trainable_variables: "conv" freeze_variables: ["bias"]', ["conv/kernel"], False),
    ],
)
def test_patterns_choose(text, learning, norm_follows):
    model = fake_model()
    variables = apply_freezing(model, config(f"train_config {{ {text} }}"))
    keys = {id(variable): key for key, variable in model.keyed_variables.items()}
    assert [keys[id(variable)].split("/.")[0] for variable in variables] == [f"model/{name}" for name in learning]
    assert model.layers[0].trainable == norm_follows
    assert {keys[key] for key in biases(model)} == {"model/conv/bias/.ATTRIBUTES/VARIABLE_VALUE"}


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ('freeze_variables: "FeatureExtractor"', "finds no variable"),
        ('freeze_variables: "("', "no regular expression"),
        ('freeze_variables: "."', "nothing to learn"),
    ],
)
def test_patterns_that_cannot_be_are_refused(text, sentence):
    with pytest.raises(UsageError, match=sentence):
        apply_freezing(fake_model(), config(f"train_config {{ {text} }}"))
