"""What the machine can do at most: the rate of a matrix product and of a copy in memory, measured.

    python -m tfod_zoo.benchmark.roofline

prints both as one line of JSON; a sweep runs it once, in a process of its own, before its first entry.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from tfod_zoo.benchmark.death import death_reason
from tfod_zoo.benchmark.machine import usable_cores
from tfod_zoo.errors import ZooError

# Large enough that a product is bound by arithmetic and a copy leaves every cache.
_MATRIX = 2048
_COPY_BYTES = 256 * 2**20
_WARM_UP = 3
_SECONDS = 1.5  # of each, at least


def measure_peaks() -> dict[str, float]:
    """`matmul_gflops` (float32, 10^9 operations a second), `copy_gbs` (read plus written, 10^9 bytes a second) and
    `cores_used` by the product, of the device that TensorFlow uses; the best call of some seconds of them.

    Raises:
        ZooError: the process that measures did not end well.
    """
    command = [sys.executable, "-m", "tfod_zoo.benchmark.roofline"]
    environment = os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    if done.returncode:
        reason = death_reason("measuring", done.returncode, done.stderr)
        raise ZooError(f"The machine's peak rates could not be measured ({reason}); try `{' '.join(command)}`.")
    return json.loads(done.stdout.splitlines()[-1])


def peak_share(row: dict[str, Any]) -> float | None:
    """The row's arithmetic rate over the matrix product's, 0 to 1 and, by noise, a little above; None if not known."""
    peak = row.get("peaks", {}).get("matmul_gflops")
    if not peak or "gflop" not in row or "p50_ms" not in row:
        return None
    return row["gflop"] * row["entry"]["batch_size"] / (row["p50_ms"] / 1e3) / peak


def _measure() -> dict[str, float]:
    import tensorflow as tf

    matrix = tf.random.stateless_normal([_MATRIX, _MATRIX], seed=[1, 2])
    # Only the sum crosses to the host, so that waiting for it is waiting for the product and no more.
    product = tf.function(lambda: tf.reduce_sum(tf.matmul(matrix, matrix)))
    cpu, wall = time.process_time(), time.perf_counter()
    fastest = _fastest(lambda: product().numpy())
    cores_used = (time.process_time() - cpu) / (time.perf_counter() - wall)
    copy = _device_copy(tf) if tf.config.list_physical_devices("GPU") else _memory_copy()
    return {
        "matmul_gflops": 2 * _MATRIX**3 / fastest / 1e9,
        "copy_gbs": 2 * _COPY_BYTES / _fastest(copy) / 1e9,
        "cores_used": cores_used,
    }


def _memory_copy() -> Callable[[], object]:
    """Every core copies its share; NumPy lets the others run meanwhile."""
    cores = usable_cores()
    source = np.ones(_COPY_BYTES // 4, np.float32)
    target = np.zeros_like(source)
    pool = ThreadPoolExecutor(cores)
    shares = list(zip(np.array_split(target, cores), np.array_split(source, cores), strict=True))
    return lambda: list(pool.map(lambda share: np.copyto(*share), shares))


def _device_copy(tf: Any) -> Callable[[], object]:
    source = tf.ones([_COPY_BYTES // 4])
    add = tf.function(lambda: source + 1.0)  # an identity would copy nothing
    return lambda: add()[0].numpy()


def _fastest(call: Callable[[], object]) -> float:
    for _ in range(_WARM_UP):
        call()
    best, total = float("inf"), 0.0
    while total < _SECONDS:
        start = time.perf_counter()
        call()
        taken = time.perf_counter() - start
        best, total = min(best, taken), total + taken
    return best


if __name__ == "__main__":
    print(json.dumps(_measure()))
