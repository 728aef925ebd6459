"""A run that is killed, again and again and at any moment, ends as the one that never was."""

import json
import os
import random
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
import tiny_run

from tfod_zoo.errors import ZooError
from tfod_zoo.training.checkpoints import newest_whole_checkpoint

REPO = Path(__file__).resolve().parents[2]
OPTIONS = {"kind": "center_net", "steps": 60, "checkpoint_every": 2, "batch": 2}
LONGEST_LIFE = 4.0  # seconds after the first step; shorter than the run takes on any machine


def start(model_dir, **options):
    env = {**os.environ, "PYTHONPATH": str(REPO), "TF_CPP_MIN_LOG_LEVEL": "3"}
    command = [sys.executable, tiny_run.__file__, str(model_dir), json.dumps({**OPTIONS, **options})]
    return subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def kill_and_compare(folder, kills, **options):
    choice = random.Random(0)
    killed = 0
    for _ in range(kills):
        process = start(folder / "killed", **options)
        for line in process.stdout:
            if line.startswith("step"):  # it trains, and saves most of the time
                break
        time.sleep(choice.uniform(0, LONGEST_LIFE))
        process.kill()
        killed += process.wait() != 0
        process.stdout.close()
    process = start(folder / "killed", **options)
    output, _ = process.communicate()
    assert process.returncode == 0, output
    assert killed
    process = start(folder / "whole", **options)
    output, _ = process.communicate()
    assert process.returncode == 0, output
    whole, survived = (dict(np.load(folder / name / "result.npz")) for name in ("whole", "killed"))
    for key, value in whole.items():
        if key == "losses":  # those since the last kill
            value = value[len(value) - len(survived[key]) :]
        np.testing.assert_array_equal(survived[key], value, err_msg=key)


def test_three_kills_change_nothing(tmp_path):
    kill_and_compare(tmp_path, 3)


@pytest.mark.slow
def test_twenty_kills_change_nothing(tmp_path):
    kill_and_compare(tmp_path, 20, steps=200)


@pytest.mark.slow
def test_kills_change_nothing_where_samplers_choose_at_random(tmp_path):
    # Two stages' kernels add up in no fixed order, unless they are told to.
    kill_and_compare(tmp_path, 2, kind="faster_rcnn", steps=12, deterministic=True)


def save(folder, *steps):
    manager = tf.train.CheckpointManager(tf.train.Checkpoint(step=tf.Variable(7)), str(folder), max_to_keep=5)
    for step in steps:
        manager.save(checkpoint_number=step)


def test_a_damaged_checkpoint_gives_way_to_the_one_before(tmp_path):
    save(tmp_path, 10, 20, 30)
    (tmp_path / "ckpt-30.index").unlink()
    data = tmp_path / "ckpt-20.data-00000-of-00001"
    data.write_bytes(data.read_bytes()[:-1] + b"x")
    lines = []
    assert newest_whole_checkpoint(tmp_path, lines.append) == str(tmp_path / "ckpt-10")
    assert [line.split(" ")[0] for line in lines] == [str(tmp_path / "ckpt-30"), str(tmp_path / "ckpt-20")]


def test_a_folder_of_damaged_checkpoints_is_not_begun_anew(tmp_path):
    assert newest_whole_checkpoint(tmp_path, print) is None
    save(tmp_path, 10)
    (tmp_path / "ckpt-10.index").unlink()
    with pytest.raises(ZooError, match="all checkpoints"):
        newest_whole_checkpoint(tmp_path, lambda line: None)
