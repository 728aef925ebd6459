"""Statistics of timed calls, on a clock that the test moves, and the facts of the machine."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tfod_zoo.benchmark.machine import describe_machine, machine_line, memory_bytes, peak_memory_bytes
from tfod_zoo.benchmark.picture import HEIGHT, WIDTH, photograph_like
from tfod_zoo.benchmark.timing import latency_ms, time_calls

DURATIONS = st.lists(st.floats(1e-6, 1e3), min_size=1, max_size=200)


class Clock:
    """Time passes only while a call runs: each takes the next of the durations."""

    def __init__(self, durations):
        self.now, self.calls, self._durations = 0.0, 0, iter(durations)

    def __call__(self):
        return self.now

    def call(self):
        self.calls += 1
        self.now += next(self._durations)


@given(DURATIONS)
def test_percentiles_are_ordered_and_within_what_was_measured(seconds):
    ms = latency_ms(seconds)
    low, high = min(seconds) * 1e3, max(seconds) * 1e3
    slack = 1 + 1e-9
    assert low / slack <= ms["p50_ms"] <= ms["p90_ms"] * slack <= ms["p99_ms"] * slack**2 <= high * slack**3
    assert low / slack <= ms["mean_ms"] <= high * slack


@given(DURATIONS, st.randoms())
def test_order_does_not_matter(seconds, random):
    shuffled = list(seconds)
    random.shuffle(shuffled)
    assert latency_ms(shuffled) == pytest.approx(latency_ms(seconds))


def test_percentiles_of_known_calls():
    assert latency_ms([i / 1e3 for i in range(1, 102)]) == pytest.approx(
        {"p50_ms": 51.0, "p90_ms": 91.0, "p99_ms": 100.0, "mean_ms": 51.0}
    )


def test_first_call_and_warm_up_are_not_timed():
    clock = Clock(itertools.chain([30.0], [10.0] * 5, itertools.repeat(0.25)))
    timing = time_calls(clock.call, min_calls=4, min_seconds=0.5, clock=clock)
    assert timing.first_call == 30.0
    assert timing.calls == (0.25,) * 4
    assert timing.summary(batch_size=8)["images_per_second"] == pytest.approx(32.0)
    assert timing.summary(batch_size=8)["first_call_ms"] == 30_000.0


@given(st.integers(1, 30), st.floats(0, 20), st.floats(0.125, 4))
def test_both_minimums_are_met_and_no_call_more(min_calls, min_seconds, duration):
    clock = Clock(itertools.repeat(duration))
    timing = time_calls(clock.call, min_calls=min_calls, min_seconds=min_seconds, clock=clock)
    assert len(timing.calls) >= min_calls and sum(timing.calls) >= min_seconds
    assert len(timing.calls) == min_calls or sum(timing.calls[:-1]) < min_seconds


def test_the_picture_is_always_the_same_and_looks_like_a_photograph():
    picture = photograph_like()
    assert picture.shape == (HEIGHT, WIDTH, 3) and picture.dtype == np.uint8
    assert np.array_equal(picture, photograph_like())
    assert (picture.min(), picture.max()) == (0, 255)
    neighbours = np.abs(np.diff(picture.astype(int), axis=1)).mean()
    assert neighbours < 0.3 * picture.std(), "near pixels are alike in a photograph, in white noise they are not"


def test_the_machine_is_described():
    machine = describe_machine()
    assert machine["cpu"] and machine["cores"] >= 1 and machine["memory_gib"] > 0
    assert machine["tensorflow"].startswith("2.")
    assert machine["cpu"] in machine_line(machine)
    assert 0 < peak_memory_bytes() < memory_bytes()
