"""Mixed precision: what it is in, and that it learns what float32 learns."""

import numpy as np
import pytest
import tensorflow as tf
import tf_keras
import tiny_run

from tfod_zoo.errors import UsageError
from tfod_zoo.training import precision
from tfod_zoo.training.optimizer import build_optimizer
from tfod_zoo.training.task import TOTAL_LOSS, DetectionTask


def test_the_config_is_followed_where_the_device_computes_so():
    lines = []
    assert precision.choose_precision(None, True, "TPU", lines.append) == "bfloat16"
    assert precision.choose_precision(None, False, "TPU", lines.append) == "float32"
    assert not lines
    assert precision.choose_precision(None, True, "CPU", lines.append) == "float32"
    assert "use_bfloat16" in lines[0]
    assert precision.choose_precision("bfloat16", False, "CPU", lines.append) == "bfloat16"
    assert precision.choose_precision("float16", False, "GPU", lines.append) == "float16"
    with pytest.raises(UsageError, match="float16 is of GPUs"):
        precision.choose_precision("float16", False, "CPU", lines.append)
    with pytest.raises(UsageError, match="no precision"):
        precision.choose_precision("int8", False, "CPU", lines.append)


def steps(shapes, kind, precision_name, count=1):
    """Losses of some steps, the model, and its moves."""
    pipeline = tiny_run.tiny_pipeline(shapes, kind, batch=2)
    tf_keras.utils.set_random_seed(0)
    task = DetectionTask(pipeline, precision=precision_name)
    model = task.build_model()
    optimizer = precision.with_loss_scale(build_optimizer(pipeline.train_config.optimizer), precision_name)
    before = {key: variable.numpy() for key, variable in model.keyed_variables.items()}
    step = tf.function(lambda batch: task.train_step(batch, model, optimizer), autograph=False)
    losses = [float(step(batch)[TOTAL_LOSS]) for batch in task.build_inputs().take(count)]
    moves = {key: value.numpy() - before[key] for key, value in model.keyed_variables.items()}
    return losses, model, moves


def compare(shapes, kind, precision_name, tolerance, part=""):
    """One step of both: the losses, and the direction in which the variables with `part` in their keys move."""
    losses, model, moves = steps(shapes, kind, "float32")
    mixed_losses, mixed, mixed_moves = steps(shapes, kind, precision_name)
    assert tf_keras.mixed_precision.global_policy().name == "float32"
    assert all(variable.dtype == tf.float32 for variable in mixed.variables if variable.dtype.is_floating)
    assert any(layer.compute_dtype == precision_name for layer in mixed.submodules if hasattr(layer, "compute_dtype"))
    assert mixed_losses == pytest.approx(losses, rel=tolerance)
    moves, mixed_moves = (
        np.concatenate([move.ravel() for key, move in each.items() if part in key and "moving" not in key])
        for each in (moves, mixed_moves)
    )
    cosine = moves @ mixed_moves / np.linalg.norm(moves) / np.linalg.norm(mixed_moves)
    assert cosine > 0.9
    assert mixed_losses != losses


@pytest.fixture(scope="module")
def shapes(tmp_path_factory):
    return tmp_path_factory.mktemp("precision") / "shapes"


def test_bfloat16_learns_what_float32_learns(shapes):
    compare(shapes, "center_net", "bfloat16", 0.05)


@pytest.mark.slow
def test_bfloat16_learns_what_float32_learns_in_two_stages(shapes):
    # Of the heads: a random ResNet-50 on maps of 4x4 cells turns 8 bits' rounding into any direction below them.
    compare(shapes, "faster_rcnn", "bfloat16", 0.1, "_prediction_head")


@pytest.mark.slow
def test_float16_scales_its_loss_and_learns_the_same(shapes):
    """Refused on a CPU for its speed; of a tiny network a step can be waited for."""
    compare(shapes, "center_net", "float16", 0.05)
