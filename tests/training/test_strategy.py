"""The global batch defines the result: over two replicas, two workers, or many."""

import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
import tf_keras
import tiny_run

from tfod_zoo.errors import UsageError
from tfod_zoo.training.batch_norm import synchronize_batch_norm
from tfod_zoo.training.devices import described, device_kind, make_strategy, num_workers

STEPS = 20
REPO = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("strategies")
    tiny_run.tiny_shapes(folder / "shapes")
    return folder


def start(model_dir, environment=None, **options):
    env = {**os.environ, "PYTHONPATH": str(REPO), "TF_CPP_MIN_LOG_LEVEL": "3", **(environment or {})}
    command = [sys.executable, tiny_run.__file__, str(model_dir), json.dumps(options)]
    return subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def finished(process):
    output, _ = process.communicate()
    assert process.returncode == 0, output
    return output


def assert_same(one, other, tolerance=1e-5):
    """Weights to 1e-5 of each variable's largest value, losses and moving averages to `tolerance`."""
    assert set(one) == set(other)
    for key, value in one.items():
        bound = tolerance if key == "losses" or "moving_" in key else 1e-5
        assert np.abs(other[key] - value).max() <= bound * max(np.abs(value).max(), 1), key


def assert_moved(model_dir, result, steps=STEPS, least=5e-5):
    """The comparison is about something: weights went further than it allows."""
    begun = tf.train.load_checkpoint(str(model_dir / "ckpt-0"))
    keys = [key for key in result if "kernel" in key]
    moves = [np.abs(begun.get_tensor(key) - result[key]).max() for key in keys]
    assert len(result["losses"]) == steps and max(moves) > least


def compare_two_replicas(folder, kind, steps=STEPS, least=5e-5, tolerance=1e-5):
    # Two stages' kernels add up in no fixed order, unless they are told to: up to 1e-5 after some steps.
    options = {"kind": kind, "steps": steps, "sync_batch_norm": True, "deterministic": True}
    for process in [start(folder / f"{kind}-{replicas}", replicas=replicas, **options) for replicas in (1, 2)]:
        finished(process)
    one, two = (dict(np.load(folder / f"{kind}-{replicas}" / "result.npz")) for replicas in (1, 2))
    assert_moved(folder / f"{kind}-1", one, steps, least)
    assert_same(one, two, tolerance)


def test_two_replicas_train_a_center_net_as_one_does(folder):
    compare_two_replicas(folder, "center_net")


@pytest.mark.slow
def test_two_replicas_train_a_faster_rcnn_as_one_does(folder):
    # Proposals are chosen: once rounding exchanges two of a random network's, the losses part. Before that they differ
    # by up to 2e-5, and conv5's averages, over crops of a few cells, by up to 1e-4.
    compare_two_replicas(folder, "faster_rcnn", steps=5, least=1e-5, tolerance=1e-3)


def free_ports(count):
    sockets = [socket.create_server(("localhost", 0)) for _ in range(count)]
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


def train_with_two_workers(model_dir, **options):
    """Both processes; the first is the chief."""
    cluster = {"worker": [f"localhost:{port}" for port in free_ports(2)]}
    return [
        start(
            model_dir,
            {"TF_CONFIG": json.dumps({"cluster": cluster, "task": {"type": "worker", "index": index}})},
            kind="center_net",
            **options,
        )
        for index in range(2)
    ]


def test_two_workers_train_as_one_process_does_and_go_on_after_both_died(folder):
    model_dir = folder / "workers"
    workers = train_with_two_workers(model_dir, steps=STEPS, checkpoint_every=4)
    for line in workers[0].stdout:  # the chief's first checkpoint after the start
        if line.startswith("step 1 of"):
            break
    while not (model_dir / "ckpt-4.index").exists() and workers[0].poll() is None:
        time.sleep(0.05)
    for process in workers:
        process.kill()
        process.communicate()
    outputs = [finished(process) for process in train_with_two_workers(model_dir, steps=STEPS, checkpoint_every=4)]
    assert all("going on from" in output for output in outputs)
    assert not list(model_dir.glob("*.part"))
    one = tiny_run.tiny_train(folder / "no-workers", kind="center_net", steps=STEPS)
    two = dict(np.load(model_dir / "result.npz"))
    one["losses"] = one["losses"][-len(two["losses"]) :]
    assert_same(one, two)


@pytest.mark.slow
@pytest.mark.parametrize("replicas", [8, 32])
def test_many_replicas_train(folder, replicas):
    model_dir = folder / f"replicas{replicas}"
    output = finished(start(model_dir, kind="center_net", replicas=replicas, batch=replicas, steps=2))
    assert "step 1 of 2" in output
    assert np.isfinite(np.load(model_dir / "result.npz")["losses"]).all()


BATCH_NORM = """
import sys, numpy as np, tensorflow as tf, tf_keras
from tfod_zoo.training.batch_norm import synchronize_batch_norm
from tfod_zoo.training.devices import make_strategy
strategy = make_strategy("cpu", int(sys.argv[1]))
images = np.random.default_rng(0).normal(30, 5, (4, 4, 4, 3)).astype(np.float32)
with strategy.scope():
    model = tf_keras.Sequential([tf_keras.layers.BatchNormalization(momentum=0.5, input_shape=(4, 4, 3))])
    synchronize_batch_norm(model, every_layer=True)
@tf.function
def step():
    def replica():
        place = tf.distribute.get_replica_context().replica_id_in_sync_group
        share = tf.reshape(tf.constant(images), [strategy.num_replicas_in_sync, -1, 4, 4, 3])[place]
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(tf.sin(model(share, training=True))) / strategy.num_replicas_in_sync
        gradients = tape.gradient(loss, model.trainable_variables)
        return tf.distribute.get_replica_context().all_reduce("SUM", gradients)
    return [strategy.experimental_local_results(each)[0] for each in strategy.run(replica)]
gradients = [each.numpy() * int(sys.argv[1]) for each in step()]
np.savez(sys.argv[2], *gradients, *[each.numpy() for each in model.layers[0].non_trainable_variables])
"""


def test_synchronised_batch_norm_sees_the_global_batch(tmp_path):
    env = {**os.environ, "PYTHONPATH": str(REPO), "TF_CPP_MIN_LOG_LEVEL": "3"}
    for replicas in (1, 2):
        command = [sys.executable, "-c", BATCH_NORM, str(replicas), str(tmp_path / f"{replicas}.npz")]
        subprocess.run(command, env=env, check=True)
    one, two = np.load(tmp_path / "1.npz"), np.load(tmp_path / "2.npz")
    assert len(one.files) == 4
    for key in one.files:
        np.testing.assert_allclose(two[key], one[key], rtol=1e-4, atol=1e-4)


def test_one_replica_keeps_the_fused_kernel():
    model = tf_keras.Sequential([tf_keras.layers.BatchNormalization(input_shape=(4, 4, 3))])
    synchronize_batch_norm(model, every_layer=True)
    assert model.layers[0].fused


def test_the_device_there_is():
    strategy = make_strategy("cpu")
    assert (described(strategy), device_kind(strategy), num_workers(strategy)) == ("1 CPU", "CPU", 1)


def test_devices_that_are_not_there_are_refused(monkeypatch):
    for device, replicas, sentence in (
        ("npu", None, "no device"),
        ("cpu", 0, "0 replicas"),
        ("tpu", 4, "leave it out"),
        ("cpu", 64, "in use already"),
    ):
        tf.config.list_logical_devices()
        with pytest.raises(UsageError, match=sentence):
            make_strategy(device, replicas)
    if not tf.config.list_physical_devices("GPU"):
        with pytest.raises(UsageError, match="no GPU"):
            make_strategy("gpu")
    monkeypatch.setenv("TF_CONFIG", '{"cluster": {"worker": ["a:1", "b:1"]}, "task": {"type": "worker", "index": 2}}')
    with pytest.raises(UsageError, match="TF_CONFIG cannot be used"):
        make_strategy("cpu")
