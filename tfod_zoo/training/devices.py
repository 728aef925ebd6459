"""Which devices train together, as a distribution strategy made by Model Garden's factory."""

from __future__ import annotations

import glob
import json
import os
from typing import Any

import tensorflow as tf

from tfod_zoo.errors import UsageError, ZooError, reason_of
from tfod_zoo.training.model_garden import distribute_utils

DEVICES = ("auto", "cpu", "gpu", "tpu")

# Device files of a TPU VM: of the generations up to v4, and of the later ones.
_TPU_DEVICES = ("/dev/accel0", "/dev/vfio/0")


def make_strategy(device: str = "auto", replicas: int | None = None) -> tf.distribute.Strategy:
    """The strategy over the devices of this machine or, with TF_CONFIG, of several; make it before anything else.

    A process group is recognised by the environment variable TF_CONFIG (`cluster.worker` with more than one address,
    `task` with this worker's index), a TPU by its device files or by TPU_NAME ("local" on a TPU VM).

    Args:
      device: "auto" takes TPUs, else GPUs, else the CPU; the others insist.
      replicas: how many GPUs to use, all by default; of a CPU, how many parts to divide it into, which is slower than
        one and gives the results that so many devices would.

    Raises:
      UsageError: the device is not there, or TensorFlow is in use already and cannot be divided any more.
      ZooError: the TPU does not answer.
    """
    if device not in DEVICES:
        raise UsageError(f'there is no device "{device}"; give one of {", ".join(DEVICES)}.')
    if replicas is not None and replicas < 1:
        raise UsageError(f"{replicas} replicas cannot train; give 1 or more.")
    workers = _number_of_workers()
    if device == "auto":
        device = "tpu" if _has_tpu() else "gpu" if tf.config.list_physical_devices("GPU") else "cpu"
    if replicas and (device == "tpu" or workers > 1):
        raise UsageError("the number of replicas of a TPU, or of several machines, is what they have; leave it out.")
    if device == "tpu":
        return _tpu_strategy()
    if device == "cpu":
        _hide_gpus()
    gpus = len(tf.config.list_physical_devices("GPU")) if device == "gpu" else 0
    if device == "gpu" and not gpus:
        raise UsageError(
            "TensorFlow sees no GPU here; install the package with its extra [gpu] beside a driver (nvidia-smi shows "
            "it), or train with --device cpu."
        )
    if workers > 1:
        return distribute_utils.get_distribution_strategy("multi_worker_mirrored", num_gpus=gpus)
    if device == "cpu":
        strategy = _cpu_strategy(replicas or 1)
        _let_xla_announce_itself()  # losses are compiled by it on a CPU
        return strategy
    if (replicas or gpus) > gpus:
        raise UsageError(f"there are {gpus} GPUs here, not {replicas}; give at most that many replicas.")
    return distribute_utils.get_distribution_strategy(
        "mirrored" if (replicas or gpus) > 1 else "one_device", num_gpus=replicas or gpus
    )


def described(strategy: tf.distribute.Strategy) -> str:
    """`1 CPU`, `4 GPUs`, `8 TPU cores`, `2 workers of 1 GPU each`."""
    kind = device_kind(strategy)
    workers, count = num_workers(strategy), strategy.num_replicas_in_sync
    each = count // workers
    one = {"CPU": "CPU" if workers > 1 or count == 1 else "CPU part", "TPU": "TPU core"}.get(kind, kind)
    text = f"{each} {one}{'s' if each > 1 else ''}"
    return f"{workers} workers of {text} each" if workers > 1 else text


def device_kind(strategy: tf.distribute.Strategy) -> str:
    """"CPU", "GPU" or "TPU"."""
    if isinstance(strategy, tf.distribute.TPUStrategy):
        return "TPU"
    if isinstance(strategy, (tf.distribute.MirroredStrategy, tf.distribute.OneDeviceStrategy)):
        return str(tf.DeviceSpec.from_string(strategy.extended.worker_devices[0]).device_type)
    return "GPU" if tf.config.list_logical_devices("GPU") else "CPU"


def num_workers(strategy: tf.distribute.Strategy) -> int:
    """Processes that train together."""
    resolver = strategy.cluster_resolver
    if not isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy) or resolver is None:
        return 1
    return max(len(resolver.cluster_spec().as_dict().get("worker", ())), 1)


def worker_index(strategy: tf.distribute.Strategy) -> int:
    """This process's place among the workers; 0 is the one that writes the checkpoints that stay."""
    return int(strategy.cluster_resolver.task_id or 0) if num_workers(strategy) > 1 else 0


def _number_of_workers() -> int:
    text = os.environ.get("TF_CONFIG")
    try:
        config: Any = json.loads(text) if text else {}
        workers, task = config.get("cluster", {}).get("worker", []), config.get("task", {})
        if len(workers) > 1 and (task.get("type") != "worker" or not 0 <= int(task["index"]) < len(workers)):
            raise ValueError("its task is none of the workers")
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UsageError(
            f"the environment variable TF_CONFIG cannot be used ({error}); it looks like "
            '{"cluster": {"worker": ["host1:port", "host2:port"]}, "task": {"type": "worker", "index": 0}}.'
        ) from error
    return len(workers)


def _has_tpu() -> bool:
    return bool(os.environ.get("TPU_NAME")) or any(glob.glob(pattern) for pattern in _TPU_DEVICES)


def _tpu_strategy() -> tf.distribute.Strategy:
    name = os.environ.get("TPU_NAME", "local")
    try:
        return distribute_utils.get_distribution_strategy("tpu", tpu_address=name)
    except Exception as error:  # a wrong wheel, a wrong name and a sleeping TPU fail in as many ways
        raise ZooError(
            f"the TPU {name!r} does not answer ({reason_of(error)}); on a TPU VM install tensorflow-tpu in place of "
            "tensorflow and set TPU_NAME=local, elsewhere name the TPU in TPU_NAME."
        ) from error


def _hide_gpus() -> None:
    try:
        tf.config.set_visible_devices([], "GPU")
    except RuntimeError as error:
        if tf.config.list_logical_devices("GPU"):
            raise UsageError("TensorFlow uses the GPU already; choose the CPU before anything else runs.") from error


def _cpu_strategy(parts: int) -> tf.distribute.Strategy:
    if parts == 1:
        return distribute_utils.get_distribution_strategy("off")
    try:
        logical = [tf.config.LogicalDeviceConfiguration()] * parts
        tf.config.set_logical_device_configuration(tf.config.list_physical_devices("CPU")[0], logical)
    except RuntimeError as error:
        if len(tf.config.list_logical_devices("CPU")) < parts:
            raise UsageError(
                f"TensorFlow is in use already; divide the CPU into {parts} before anything else runs."
            ) from error
    # The factory knows one CPU only.
    return tf.distribute.MirroredStrategy([f"CPU:{index}" for index in range(parts)])


def _let_xla_announce_itself() -> None:
    """XLA tells stderr of the first program that it compiles in a process, at any log level: here nobody sees it."""
    stderr = os.dup(2)
    try:
        with open(os.devnull, "w") as nowhere:
            os.dup2(nowhere.fileno(), 2)
        tf.function(lambda: tf.constant(0.0), jit_compile=True, autograph=False)()
    finally:
        os.dup2(stderr, 2)
        os.close(stderr)
