"""The unit that the benchmarks count in, so that their figures hold on a slower or busier machine.

A unit is one float32 `tf.matmul` of 2048x2048 by 2048x2048 (17.2 GFLOP), timed in turn with what is measured, in the
same process. TFOD's figures were taken the same way.
"""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np

from tfod_zoo.benchmark.machine import describe_machine, machine_line

_SIZE = 2048
_WARM_UP = 3


@dataclass(frozen=True)
class Cost:
    """Units (quartiles and median) of a call, the unit's milliseconds, and the process's peak memory in GiB."""

    low: float
    units: float
    high: float
    unit_ms: float
    peak_gib: float

    def __str__(self) -> str:
        return (
            f"{self.units:.2f} units (quartiles {self.low:.2f} to {self.high:.2f}), a unit {self.unit_ms:.0f} ms, "
            f"peak {self.peak_gib:.2f} GiB"
        )


def seconds_of(function: Callable[[], object]) -> float:
    """Wall time of one call."""
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def make_unit() -> Callable[[], object]:
    """The product, traced and warm."""
    import tensorflow as tf

    matrix = tf.random.normal([_SIZE, _SIZE])
    product = tf.function(lambda: tf.reduce_sum(tf.matmul(matrix, matrix)))
    for _ in range(_WARM_UP):
        product().numpy()
    return lambda: product().numpy()


def cost_of(call: Callable[[], object], rounds: int) -> Cost:
    """Measures `call`, which must wait for its results, `rounds` times, each between two units."""
    unit = make_unit()
    for _ in range(_WARM_UP):
        call()
    pairs = []
    for _ in range(rounds):
        before, taken, after = seconds_of(unit), seconds_of(call), seconds_of(unit)
        pairs.append((taken, (before + after) / 2))
    low, units, high = np.percentile([taken / one for taken, one in pairs], [25, 50, 75])
    unit_ms = 1e3 * float(np.median([one for _, one in pairs]))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    return Cost(float(low), float(units), float(high), unit_ms, peak)


def run_each(script: str, names: list[str], measure: Callable[[str], int]) -> int:
    """Measures the one name on the command line, or every name in a process of its own, for the memory.

    Args:
      script: the benchmark's `__file__`.
      measure: prints a line, and returns 0 where the name is within its bounds.
    """
    parser = argparse.ArgumentParser(
        description=sys.modules["__main__"].__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("name", nargs="?", choices=names, metavar="NAME", help=f"{', '.join(names)}; all by default")
    name = parser.parse_args().name
    if name:
        return measure(name)
    print(machine_line(describe_machine()), flush=True)
    return max(subprocess.run([sys.executable, script, name], check=False).returncode for name in names)
