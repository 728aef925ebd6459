"""How long a call takes: the first call apart, warm-up left out, then enough calls for the tail to mean something."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tfod_zoo.benchmark.entry import MIN_CALLS, MIN_SECONDS

# After the first call, which traces and compiles, a few more until allocator and thread pools have settled.
WARMUP_CALLS = 5


@dataclass(frozen=True)
class Timing:
    """Seconds: `first_call` alone, and `calls`, one entry a timed call."""

    first_call: float
    calls: tuple[float, ...]

    def summary(self, batch_size: int) -> dict[str, float]:
        """Milliseconds a call (of `batch_size` images) at p50, p90, p99 and mean; images a second over all calls."""
        return {
            "first_call_ms": self.first_call * 1e3,
            "timed_calls": len(self.calls),
            "timed_seconds": sum(self.calls),
            **latency_ms(self.calls),
            "images_per_second": batch_size * len(self.calls) / sum(self.calls),
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
    while len(calls) < max(1, min_calls) or total < min_seconds:
        calls.append(once())
        total += calls[-1]
    return Timing(first_call, tuple(calls))
