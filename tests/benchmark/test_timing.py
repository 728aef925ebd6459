"""Statistics of timed calls, on a clock that the test moves, and the facts of the machine."""

import itertools
import math
import os

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tfod_zoo.benchmark.duration import format_duration, parse_duration
from tfod_zoo.benchmark.energy import read_microjoules, spent_joules
from tfod_zoo.benchmark.machine import describe_machine, machine_line, memory_bytes, peak_memory_bytes
from tfod_zoo.benchmark.picture import HEIGHT, WIDTH, photograph_like
from tfod_zoo.benchmark.timing import latency_ms, time_calls, timing_doubts
from tfod_zoo.errors import UsageError

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


def test_cores_and_calls_are_of_the_timed_calls_alone():
    clock = Clock(itertools.chain([30.0], [10.0] * 5, itertools.repeat(0.25)))
    cpu = iter([100.0, 101.5])
    timing = time_calls(clock.call, min_calls=4, min_seconds=0.5, clock=clock, cpu_clock=lambda: next(cpu))
    summary = timing.summary(batch_size=1)
    assert summary["cores_used"] == pytest.approx(1.5)
    assert summary["calls_ms"] == [250.0] * 4
    assert summary["cores_allowed"] == len(os.sched_getaffinity(0))


def test_one_thread_of_real_work_uses_one_core():
    def work():
        sum(math.sqrt(number) for number in range(40_000))

    summary = time_calls(work, min_calls=20, min_seconds=0.3).summary(batch_size=1)
    assert 0.02 < summary["cores_used"] < 1.1, "a busy machine leaves less than one, never more"
    assert summary["cores_used_by_others"] >= 0


ON_ONE_CORE = {"device": "CPU", "cores_used": 1.02, "cores_allowed": 2, "cores_used_by_others": 0.03,
               "cores_of_machine": 2, "machine": {"intra_op_threads": 0}}


@pytest.mark.parametrize(
    "change, said",
    [
        ({}, "It ran on one core"),
        ({"cores_used": 1.9}, ""),
        ({"cores_used_by_others": 0.9}, "Other processes took 0.9"),  # its cores were taken: no fault of its own
        ({"machine": {"intra_op_threads": 1}}, ""),
        ({"entry": {"threads": 1}}, ""),
        ({"device": "NVIDIA H100"}, ""),
        ({"cores_allowed": 1}, "affinity mask allowed one core of the machine's 2"),
        ({"cores_allowed": 1, "cores_of_machine": 1}, ""),
        ({"cores_used": None}, ""),
    ],
)
def test_doubts_about_a_timing_are_said(change, said):
    doubts = timing_doubts(ON_ONE_CORE | change)
    assert len(doubts) == (1 if said else 0)
    assert said in "".join(doubts)


def powercap(root, **microjoules):
    """A tree as Linux shows it."""
    for name, value in microjoules.items():
        folder = root / name.replace("_", ":").replace("rapl", "intel-rapl")
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "energy_uj").write_text(f"{value}\n")
        (folder / "max_energy_range_uj").write_text("999999999\n")
    return read_microjoules(root)


def test_energy_is_of_the_packages_and_survives_a_turn_of_the_counter(tmp_path):
    before = powercap(tmp_path, rapl_0=999_000_000, rapl_1=1_000_000, rapl_0_0=5)
    after = powercap(tmp_path, rapl_0=2_000_000, rapl_1=4_000_000, rapl_0_0=900_000_000)
    assert sorted(before) == ["intel-rapl:0", "intel-rapl:1"]
    assert spent_joules(before, after) == pytest.approx(3.0 + 3.0)


def test_no_energy_where_the_machine_does_not_tell(tmp_path):
    assert read_microjoules(tmp_path) == {} and spent_joules({}, {}) is None
    powercap(tmp_path, rapl_0=1, rapl_1=1)
    (tmp_path / "intel-rapl:1" / "energy_uj").unlink()
    assert read_microjoules(tmp_path) == {}, "half of the packages would be a wrong sum"
    clock = Clock(itertools.repeat(0.25))
    timing = time_calls(clock.call, min_calls=2, min_seconds=0, clock=clock)
    assert ("joules_per_image" in timing.summary(1)) == bool(read_microjoules())


def test_durations():
    assert [parse_duration(text) for text in ("90", "90s", "30m", "1.5h", " 2H ")] == [90, 90, 1800, 5400, 7200]
    for wrong in ("", "x", "0", "-3m", "2 days", "1h30"):
        with pytest.raises(UsageError):
            parse_duration(wrong)
    assert [format_duration(seconds) for seconds in (40, 720, 7500)] == ["40 s", "12 min", "2 h 5 min"]
