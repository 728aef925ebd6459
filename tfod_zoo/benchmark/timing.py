"""How long a call takes: the first call apart, warm-up left out, then enough calls for the tail to mean something."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tfod_zoo.benchmark.energy import read_microjoules, spent_joules
from tfod_zoo.benchmark.entry import MIN_CALLS, MIN_SECONDS
from tfod_zoo.benchmark.machine import busy_core_seconds, usable_cores

# After the first call, which traces and compiles, a few more until allocator and thread pools have settled.
WARMUP_CALLS = 5

# In cores. A network on all of two cores keeps 1.6 and more busy; one thread of work, with what the others add, 1.0 to
# 1.1. A system at rest takes a few hundredths.
_ONE_CORE = 1.2
_IDLE = 0.5
_BUSY = 0.2


@dataclass(frozen=True)
class Timing:
    """Seconds: `first_call` alone, and `calls`, one entry a timed call.

    Over the timed calls: `cpu_seconds` is the processor time of all threads of this process, `others_seconds` that of
    all other processes on this one's cores, `joules` what the processor packages spent (None: the machine does not
    tell).
    """

    first_call: float
    calls: tuple[float, ...]
    cpu_seconds: float
    others_seconds: float | None = None
    joules: float | None = None

    def summary(self, batch_size: int) -> dict[str, Any]:
        """Milliseconds a call (of `batch_size` images) at p50, p90, p99 and mean; images a second over all calls.

        `cores_used` is processor time over wall time, by this process, and `cores_used_by_others` by all others on its
        cores. It and `joules_per_image` are absent where the machine does not tell.
        """
        images, seconds = batch_size * len(self.calls), sum(self.calls)
        told = {}
        if self.others_seconds is not None:
            told["cores_used_by_others"] = self.others_seconds / seconds
        if self.joules is not None:
            told["joules_per_image"] = self.joules / images
        return {
            "first_call_ms": self.first_call * 1e3,
            "timed_calls": len(self.calls),
            "timed_seconds": seconds,
            **latency_ms(self.calls),
            "images_per_second": images / seconds,
            "cores_used": self.cpu_seconds / seconds,
            "cores_allowed": usable_cores(),
            "cores_of_machine": os.cpu_count(),
            **told,
            # To a tenth of a microsecond, below what the clock resolves: the distribution, in the order of the calls.
            "calls_ms": [round(seconds * 1e3, 4) for seconds in self.calls],
        }


def latency_ms(seconds: Sequence[float]) -> dict[str, float]:
    """p50 <= p90 <= p99 (linear interpolation between calls) and mean of at least one duration, in milliseconds."""
    milliseconds = np.asarray(seconds, np.float64) * 1e3
    p50, p90, p99 = np.percentile(milliseconds, [50, 90, 99])
    return {"p50_ms": float(p50), "p90_ms": float(p90), "p99_ms": float(p99), "mean_ms": float(milliseconds.mean())}


def time_calls(
    call: Callable[[], Any],
    *,
    min_calls: int = MIN_CALLS,
    min_seconds: float = MIN_SECONDS,
    warmup_calls: int = WARMUP_CALLS,
    clock: Callable[[], float] = time.perf_counter,
    cpu_clock: Callable[[], float] = time.process_time,
) -> Timing:
    """Times `call`, which must return only when its result is there, until both minimums are met.

    `min_calls` is at least 1; `min_seconds` counts the timed calls only.
    """

    def once() -> float:
        started = clock()
        call()
        return clock() - started

    first_call = once()
    for _ in range(warmup_calls):
        call()
    calls: list[float] = []
    total = 0.0
    energy, busy, cpu = read_microjoules(), busy_core_seconds(), cpu_clock()
    while len(calls) < max(1, min_calls) or total < min_seconds:
        calls.append(once())
        total += calls[-1]
    cpu_seconds, busy_now = cpu_clock() - cpu, busy_core_seconds()
    # The kernel counts the cores' time in ticks, so that a quiet machine may seem to have done a little less than this.
    others = max(0.0, busy_now - busy - cpu_seconds) if busy is not None and busy_now is not None else None
    return Timing(first_call, tuple(calls), cpu_seconds, others, spent_joules(energy, read_microjoules()))


def timing_doubts(row: dict[str, Any]) -> list[str]:
    """What speaks against a row's latency, in sentences: a process that kept to one core, a machine that was not quiet.

    Only of rows on the CPU; a row that does not tell has none.
    """
    used, allowed, others = row.get("cores_used"), row.get("cores_allowed", 1), row.get("cores_used_by_others", 0.0)
    if used is None or row.get("device") != "CPU":
        return []
    doubts = []
    if allowed == 1 and row.get("cores_of_machine", 1) > 1:
        doubts.append(f"Its affinity mask allowed one core of the machine's {row['cores_of_machine']}.")
    idle = allowed - used - others
    one_asked_for = 1 in (row.get("machine", {}).get("intra_op_threads"), row.get("entry", {}).get("threads"))
    if used < _ONE_CORE and idle > _IDLE and not one_asked_for:
        doubts.append(
            f"It ran on one core ({used:.2f} in use, {allowed} allowed, {idle:.1f} idle): measure it again, or with "
            "--threads."
        )
    if others > _BUSY:
        doubts.append(
            f"Other processes took {others:.1f} of the cores allowed to it ({allowed}): the machine was not quiet."
        )
    return doubts
