"""Devices, memory, disk and the store."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from tfod_zoo.benchmark.machine import cpu_model, memory_bytes, usable_cores
from tfod_zoo.doctor.finding import BROKEN, OK, WARNING, Finding
from tfod_zoo.zoo.inventory import stored_models
from tfod_zoo.zoo.store import store_path

_GIB = 2**30
# An hourglass's training step on one image peaks at 5 GiB (README, Keypoints), its archive has 1.5 GB and unpacks to 2.
_ENOUGH_MEMORY = 4 * _GIB
_ENOUGH_DISK = 5 * _GIB
_SECONDS = 180  # a first import of TensorFlow from a slow disk takes a minute
_CGROUP_LIMITS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")

# Runs in a process of its own: a TensorFlow that does not suit the processor or its libraries kills it.
_TRY_TENSORFLOW = """
import json
import tensorflow as tf
import tf_keras
devices = {kind: len(tf.config.list_physical_devices(kind)) for kind in ("GPU", "TPU")}
names = [tf.config.experimental.get_device_details(gpu).get("device_name", "GPU")
         for gpu in tf.config.list_physical_devices("GPU")]
assert float(tf.reduce_sum(tf.matmul(tf.ones([8, 8]), tf.ones([8, 8])))) == 512
print(json.dumps({"devices": devices, "names": names}))
"""


def check_tensorflow() -> Iterator[Finding]:
    """Whether TensorFlow starts and computes, and on what."""
    try:
        done = subprocess.run(
            [sys.executable, "-c", _TRY_TENSORFLOW], capture_output=True, text=True, timeout=_SECONDS,
            env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"},
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        yield Finding(
            "TensorFlow", BROKEN, f"did not start within {_SECONDS} seconds", "look whether disk or GPU driver hang"
        )
        return
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or [f"it ended with {done.returncode}"])[-1]
        advice = "make a fresh environment and pip install tfod-zoo there"
        if done.returncode < 0:
            reason = f"it was ended by signal {-done.returncode}"
            advice = "its wheels need a processor with AVX; on others TensorFlow must be built from source"
        yield Finding("TensorFlow", BROKEN, f"does not work: {reason}", advice)
        return
    found = json.loads(done.stdout.strip().splitlines()[-1])
    yield Finding("TensorFlow", OK, "starts and computes")
    yield _devices(found["devices"], found["names"])


def _devices(counts: dict[str, int], names: list[str]) -> Finding:
    cpu = f"{cpu_model()}, {usable_cores()} cores"
    if counts["TPU"]:
        return Finding("devices", OK, f"{counts['TPU']} TPU cores; {cpu}")
    if names:
        return Finding("devices", OK, f"{', '.join(names)}; {cpu}")
    if Path("/proc/driver/nvidia/version").exists() or shutil.which("nvidia-smi"):
        return Finding(
            "devices", WARNING, f"there is an NVIDIA driver, but TensorFlow sees no GPU; {cpu}",
            "pip install 'tfod-zoo[gpu]'",
        )  # fmt: skip
    return Finding("devices", OK, f"no GPU or TPU; {cpu}")


def check_memory() -> Finding:
    """Memory that this process may use, in a container its share."""
    total = min([memory_bytes(), *_container_limits()])
    text = f"{total / _GIB:.1f} GiB"
    if total < _ENOUGH_MEMORY:
        return Finding("memory", WARNING, text, "small models alone, with --batch-size 1")
    return Finding("memory", OK, text)


def _container_limits() -> Iterator[int]:
    for path in map(Path, _CGROUP_LIMITS):
        try:
            yield int(path.read_text())
        except (OSError, ValueError):  # "max", or no such file
            continue


def check_disk(store: str | None) -> Iterator[Finding]:
    """Room, and whether the store can be written."""
    folder = store_path(store)
    try:
        count = len(stored_models(folder)) if folder.is_dir() else 0
        standing = _standing_folder(folder)
        with tempfile.TemporaryFile(dir=standing):
            pass
        yield Finding("store", OK, f"{folder} with {count} model{'' if count == 1 else 's'}")
    except OSError as error:
        yield Finding(
            "store", BROKEN, f"{folder} cannot be written ({error.strerror})", "give --store DIR or set TFOD_ZOO_STORE"
        )
        return
    free = shutil.disk_usage(standing).free
    text = f"{free / _GIB:.1f} GiB free for the store"
    if free < _ENOUGH_DISK:
        yield Finding("disk", WARNING, text, "`tfod-zoo store gc` and `tfod-zoo store remove NAME` make room")
    else:
        yield Finding("disk", OK, text)


def _standing_folder(folder: Path) -> Path:
    """The folder, or the nearest one above it that exists."""
    folder = folder.absolute()
    return next(place for place in (folder, *folder.parents) if place.exists())
