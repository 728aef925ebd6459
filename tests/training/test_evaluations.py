"""Evaluation during training: the best checkpoint, early stop, and a process that follows."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
import tiny_run

import tfod_zoo
from tfod_zoo.config.pipeline import merge_text
from tfod_zoo.errors import UsageError, ZooError
from tfod_zoo.evaluation.moving_average import restore_for_evaluation
from tfod_zoo.training.checkpoints import BestCheckpoint
from tfod_zoo.training.follow import follow

LARGE = "DetectionBoxes_Precision/mAP (large)"
PIPELINE = tiny_run.generate_pipeline("centernet_hg104_512x512_coco17_tpu-8")


def save(folder, step):
    checkpoint = tf.train.Checkpoint(step=tf.Variable(step))
    return tf.train.CheckpointManager(checkpoint, str(folder), max_to_keep=2).save(checkpoint_number=step)


def test_the_best_checkpoint_stays_when_the_run_has_dropped_it(tmp_path):
    for step, value in ((10, 0.1), (20, 0.3), (30, 0.2), (40, 0.2)):
        # A run that goes on makes a new one.
        best = BestCheckpoint(tmp_path, PIPELINE)
        assert best.add(save(tmp_path, step), step, {"AP": value, "AR": 0.5}) == (step in (10, 20))
        assert best.evaluated_step == step
    assert (best.value, best.step, best.evaluations_since) == (0.3, 20, 2)
    assert not (tmp_path / "ckpt-20.index").exists()
    kept = tf.train.latest_checkpoint(str(tmp_path / "best"))
    assert kept == str(tmp_path / "best" / "ckpt-20")
    assert tf.train.load_variable(kept, "step/.ATTRIBUTES/VARIABLE_VALUE") == 20
    assert sorted(path.name for path in (tmp_path / "best").iterdir()) == [
        "best.json", "checkpoint", "ckpt-20.data-00000-of-00001", "ckpt-20.index", "pipeline.config",
    ]  # fmt: skip


def test_another_metric_begins_anew_and_a_wrong_one_is_named(tmp_path):
    BestCheckpoint(tmp_path, PIPELINE).add(save(tmp_path, 10), 10, {"AP": 0.9, "AR": 0.5})
    best = BestCheckpoint(tmp_path, PIPELINE, "AR")
    assert best.add(save(tmp_path, 20), 20, {"AP": 0.1, "AR": 0.4})
    assert json.loads((tmp_path / "best" / "best.json").read_text())["metric"] == "AR"
    with pytest.raises(ZooError, match="no metric 'mAP'.*AP, AR"):
        BestCheckpoint(tmp_path, PIPELINE, "mAP").add(save(tmp_path, 30), 30, {"AP": 0.1, "AR": 0.4})


def test_a_checkpoint_that_is_gone_is_not_half_copied(tmp_path):
    with pytest.raises(FileNotFoundError):
        BestCheckpoint(tmp_path, PIPELINE).add(str(tmp_path / "ckpt-5"), 5, {"AP": 0.1})


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("evaluations")


@pytest.fixture(scope="module")
def run(folder):
    """A run that ends early: of objects that large the data have none, so it never becomes better."""
    lines = []
    tiny_run.tiny_train(
        folder / "run", kind="center_net", steps=40, eval_every=1, early_stop=2, best_metric=LARGE, batch=2,
        say=lines.append,
    )  # fmt: skip
    return folder / "run", lines


def test_training_ends_early_and_keeps_the_best(run):
    folder, lines = run
    best = json.loads((folder / "best" / "best.json").read_text())
    assert best == {"metric": LARGE, "value": -1.0, "step": 1, "evaluated_step": 3, "evaluations_since": 2}
    assert lines[-1].startswith(f"ended early: {LARGE} was not better than -1.000, of step 1, in 2 evaluations")
    loaded = tfod_zoo.load(folder / "best").keyed_variables
    stored = tf.train.load_checkpoint(str(folder / "best" / f"ckpt-{best['step']}"))
    for key, variable in loaded.items():
        np.testing.assert_array_equal(variable, stored.get_tensor(key))


def test_pictures_of_detections_beside_the_truth(run):
    folder, _ = run
    tags = set()
    for file in (folder / "eval").rglob("events*"):
        for event in tf.compat.v1.train.summary_iterator(str(file)):
            tags |= {value.tag for value in event.summary.value}
    assert {f"eval_side_by_side_{index}_0" for index in range(4)} | {"DetectionBoxes_Precision/mAP"} <= tags


def test_a_process_follows_a_run_to_its_end(folder):
    followed, lines = folder / "followed", []
    tiny_run.tiny_shapes(folder / "shapes")
    options = {"kind": "center_net", "steps": 40, "checkpoint_every": 20, "batch": 2}
    env = {**os.environ, "PYTHONPATH": str(Path(tfod_zoo.__file__).parents[1]), "TF_CPP_MIN_LOG_LEVEL": "3"}
    command = [sys.executable, tiny_run.__file__, str(followed), json.dumps(options)]
    with subprocess.Popen(command, env=env, stdout=subprocess.DEVNULL) as process:
        metrics = follow(followed, timeout=600, say=lines.append)
    assert process.returncode == 0
    # However slow the machine, the last one is evaluated; those before as far as there is time.
    assert lines[-1].startswith("step 40: AP ") and metrics["DetectionBoxes_Precision/mAP"] >= 0
    assert (followed / "best" / "best.json").exists()
    with pytest.raises(UsageError, match="no checkpoint in 0 s"):
        follow(folder / "nothing", timeout=0)


def test_averages_are_evaluated_in_place_of_weights(folder, tmp_path):
    pipeline = merge_text(
        tiny_run.tiny_pipeline(folder / "shapes", "center_net"), "eval_config { use_moving_averages: true }"
    )
    model = tfod_zoo.build(pipeline)
    optimizer = tfod_zoo_average(model)
    prefix = tf.train.Checkpoint(model=model.tfod_tree, optimizer=optimizer).write(str(tmp_path / "ckpt-1"))
    averages = [optimizer.get_slot(variable, "average").numpy() for variable in model.trainable_variables]
    restore_for_evaluation(model, prefix, pipeline)
    for average, variable in zip(averages, model.trainable_variables, strict=True):
        np.testing.assert_array_equal(average, variable)
    model.save_checkpoint(tmp_path / "plain" / "ckpt-1")
    with pytest.raises(ZooError, match="has no averages"):
        restore_for_evaluation(model, str(tmp_path / "plain" / "ckpt-1"), pipeline)


def tfod_zoo_average(model):
    """An optimizer after one step of averaging."""
    from tfod_zoo.training.optimizer import build_optimizer

    text = "momentum_optimizer { learning_rate { constant_learning_rate { learning_rate: 0.1 } } }"
    message = merge_text(type(PIPELINE)(), f"train_config {{ optimizer {{ {text} }} }}").train_config.optimizer
    optimizer = build_optimizer(message)
    optimizer.shadow_copy(model)
    optimizer.apply_gradients([(tf.ones_like(variable), variable) for variable in model.trainable_variables])
    return optimizer
