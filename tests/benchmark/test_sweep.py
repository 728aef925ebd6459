"""Sweeps: one row an entry whatever happens, resumed after an interruption, on real small runs."""

import json
import os
from pathlib import Path

import pytest

from tfod_zoo.benchmark import sweep
from tfod_zoo.benchmark.entry import Entry
from tfod_zoo.benchmark.input_size import parse_input_size, set_input_size
from tfod_zoo.benchmark.sweep import (
    RESULTS_FILE,
    TimeBudget,
    expand_models,
    latest_rows,
    matches_file,
    plan,
    read_rows,
    run_sweep,
    run_worker,
)
from tfod_zoo.config.generate import generate_pipeline
from tfod_zoo.errors import UsageError
from tfod_zoo.zoo.registry import list_models

MOBILENET = "centernet_mobilenetv2fpn_512x512_coco17_od"
QUICK = {"weights": "random", "min_calls": 2, "min_seconds": 0.0}


def entries(*batch_sizes):
    return plan([MOBILENET], batch_sizes=batch_sizes, **QUICK)


def fast(entry):
    return {"status": "ok", "p50_ms": float(entry.batch_size)}


def test_a_real_entry_is_measured_in_its_own_process():
    row = run_worker(Entry(MOBILENET, input_size=(64, 64), **QUICK))
    assert row["status"] == "ok", row
    assert row["canvas"] == [64, 64] and row["timed_calls"] == 2
    assert 0 < row["p50_ms"] <= row["p99_ms"] < row["first_call_ms"]
    assert row["peak_memory_mib"] > row["memory_before_model_mib"] > 0
    # 4.7 GFLOP at 512x512, and operations go with the canvas's area.
    assert row["gflop"] == pytest.approx(4.7 / 64, rel=0.05)
    assert "metrics" not in row
    assert row["parameters"] > 2e6


def test_a_model_that_cannot_be_built_is_a_row_with_the_reason(tmp_path):
    folder = tmp_path / "other"
    folder.mkdir()
    (folder / "pipeline.config").write_text("model { ssd { num_classes: 3 } }")
    (row,) = run_sweep(plan([str(folder)], **QUICK), tmp_path)
    assert row["status"] == "failed" and "ssd" in row["reason"]
    assert "Traceback" not in row["reason"] and "\n" not in row["reason"]
    assert read_rows(tmp_path / RESULTS_FILE) == [json.loads(json.dumps(row))]


def test_a_worker_that_dies_is_a_row(monkeypatch, tmp_path):
    killer = tmp_path / "python"
    killer.write_text("#!/bin/sh\nkill -9 $$\n")
    killer.chmod(0o755)
    monkeypatch.setattr(sweep.sys, "executable", str(killer))
    row = run_worker(Entry(MOBILENET, **QUICK))
    assert row["status"] == "failed" and "SIGKILL" in row["reason"] and "smaller batch" in row["reason"]


def test_an_interrupted_sweep_goes_on_where_it_stopped(tmp_path):
    def interrupted(entry):
        if entry.batch_size == 2:
            raise KeyboardInterrupt
        return fast(entry)

    with pytest.raises(KeyboardInterrupt):
        run_sweep(entries(1, 2, 4), tmp_path, measure=interrupted)
    assert [row["entry"]["batch_size"] for row in read_rows(tmp_path / RESULTS_FILE)] == [1]
    with (tmp_path / RESULTS_FILE).open("a") as stream:
        stream.write('{"entry": {"mod')  # a row torn by a power cut
    measured, resumed = [], []
    rows = run_sweep(
        entries(1, 2, 4), tmp_path, measure=lambda entry: measured.append(entry.batch_size) or fast(entry),
        on_row=lambda index, row, kept: resumed.append(kept),
    )
    assert measured == [2, 4] and resumed == [True, False, False]
    assert [row["p50_ms"] for row in rows] == [1.0, 2.0, 4.0]
    assert len(read_rows(tmp_path / RESULTS_FILE)) == 3


def test_failed_rows_are_retried_and_replaced(tmp_path):
    run_sweep(entries(1), tmp_path, measure=lambda entry: {"status": "failed", "reason": "no luck"})
    (row,) = run_sweep(entries(1), tmp_path, measure=fast)
    assert row["status"] == "ok"
    assert [row["status"] for row in latest_rows(read_rows(tmp_path / RESULTS_FILE))] == ["ok"]


def test_what_does_not_fit_in_the_time_budget_is_a_row_and_measured_later(tmp_path):
    now = [0.0]

    def slow(entry):
        now[0] += 60
        return fast(entry)

    budget = TimeBudget(100, clock=lambda: now[0])
    rows = run_sweep(entries(1, 2, 4, 8), tmp_path, measure=slow, budget=budget)
    assert [row["status"] for row in rows] == ["ok", "ok", "skipped", "skipped"]
    assert "time budget of 2 min" in rows[2]["reason"] and "run the same command again" in rows[2]["reason"]
    assert [row["status"] for row in read_rows(tmp_path / RESULTS_FILE)] == ["ok", "ok", "skipped", "skipped"]
    measured = []
    again = entries(1, 2, 4, 8)
    rows = run_sweep(again, tmp_path, measure=lambda entry: measured.append(entry.batch_size) or fast(entry))
    assert measured == [4, 8] and {row["status"] for row in rows} == {"ok"}


def test_a_time_budget_is_spent_on_the_quick_ones_first(tmp_path):
    names = ["centernet_hg104_512x512_coco17_tpu-8", "sliding_window_resnet50", MOBILENET, str(tmp_path / "mine")]
    asked = [Entry(name, batch_size=batch) for name in names for batch in (4, 1)]
    measured, places = [], []

    def measure(entry):
        measured.append((Path(entry.model).name, entry.batch_size))
        return fast(entry)

    rows = run_sweep(asked, tmp_path / "sweep", measure=measure, budget=TimeBudget(100, clock=lambda: 0.0),
                     on_row=lambda place, row, resumed: places.append(place))
    assert measured == [("mine", 4), ("mine", 1), (MOBILENET, 1), (MOBILENET, 4), (names[0], 1), (names[0], 4),
                        (names[1], 4), (names[1], 1)]
    assert [(row["entry"]["model"], row["entry"]["batch_size"]) for row in rows] == [
        (entry.model, entry.batch_size) for entry in asked
    ] and places == list(range(len(asked)))  # fmt: skip
    measured.clear()
    run_sweep(asked, tmp_path / "without", measure=measure)
    assert [name for name, _ in measured[::2]] == [Path(name).name for name in names]


def test_a_worker_is_ended_with_the_time_budget():
    row = run_worker(Entry(MOBILENET, **QUICK), budget=TimeBudget(0.05))
    assert row["status"] == "skipped" and "needs more than" in row["reason"]
    assert 0 < row["ended_after_seconds"] <= 0.05


def test_an_entry_too_long_for_the_budget_leaves_it_to_the_others(tmp_path):
    def measure(entry):
        too_long = entry.batch_size == 1
        return {"status": "skipped", "reason": "", "ended_after_seconds": 100.0} if too_long else fast(entry)

    run_sweep(entries(1), tmp_path, measure=measure, budget=TimeBudget(100, clock=lambda: 0.0))
    measured = []
    rows = run_sweep(entries(1, 2), tmp_path, budget=TimeBudget(110, clock=lambda: 0.0),
                     measure=lambda entry: measured.append(entry.batch_size) or fast(entry))
    assert measured == [2] and [row["status"] for row in rows] == ["skipped", "ok"]
    rows = run_sweep(entries(1, 2), tmp_path, measure=fast, budget=TimeBudget(200, clock=lambda: 0.0))
    assert [row["status"] for row in rows] == ["ok", "ok"]


def test_the_time_left_and_the_peaks_of_the_machine(tmp_path):
    left, measured = [], []
    peaks = {"matmul_gflops": 100.0}

    def sweep(*batch_sizes):
        return run_sweep(
            entries(*batch_sizes), tmp_path, measure=fast, peaks=lambda: measured.append(1) or peaks,
            on_start=lambda index, entry, seconds: left.append(seconds), command="tfod-zoo benchmark x",
        )

    rows = sweep(1, 2, 4)
    assert left[0] is None and all(seconds >= 0 for seconds in left[1:]) and len(left) == 3
    assert measured == [1], "once a sweep"
    assert all(row["peaks"] == peaks and row["command"] == "tfod-zoo benchmark x" for row in rows)
    sweep(1, 2, 4)
    assert measured == [1] and len(left) == 3, "nothing to measure"
    sweep(1, 8)
    assert left[3] is not None, "rows of a run before tell what one takes"


def test_the_time_left_grows_with_the_models_to_come(tmp_path, monkeypatch):
    """Published: 6 ms, 30 and 70; the sliding window has no figure."""
    now, left = [0.0], {}
    monkeypatch.setattr(sweep.time, "monotonic", lambda: now[0])
    seconds = {MOBILENET: 26.0, "centernet_resnet50_v1_fpn_512x512_kpts_coco17_tpu-8": 50.0,
               "centernet_hg104_512x512_coco17_tpu-8": 90.0, "sliding_window_resnet50": (26 + 50 + 90) / 3}  # fmt: skip

    def measure(entry):
        now[0] += seconds[entry.model]
        return fast(entry)

    run_sweep([Entry(name) for name in seconds], tmp_path, measure=measure,
              on_start=lambda place, entry, some: left.update({entry.model: some}))
    _, *others = seconds
    assert left[MOBILENET] is None
    to_come = list(seconds.values())
    for place, name in enumerate(others, start=1):
        # The unknown one is taken to be as long as the mean of the others.
        assert left[name] == pytest.approx(sum(to_come[place:]))


def test_matches_have_a_file_of_their_own_where_there_are_data(tmp_path):
    with_data, other = Entry(MOBILENET, dataset="tfds:a:b"), Entry(MOBILENET, dataset="tfds:a:c")
    assert matches_file(tmp_path, Entry(MOBILENET)) is None
    assert matches_file(tmp_path, with_data) == matches_file(tmp_path, with_data) != matches_file(tmp_path, other)


def test_rows_of_another_machine_are_not_taken_for_this_ones(tmp_path, monkeypatch):
    run_sweep(entries(1), tmp_path, measure=fast)
    here = sweep.describe_machine()
    monkeypatch.setattr(sweep, "describe_machine", lambda: here | {"cpu": "another"})
    measured = []
    run_sweep(entries(1), tmp_path, measure=lambda entry: measured.append(entry) or fast(entry))
    assert len(measured) == 1


def test_more_training_is_another_entry(tmp_path):
    (tmp_path / "pipeline.config").write_text("")
    (tmp_path / "ckpt-100.index").write_text("")
    (before,) = plan([str(tmp_path)])
    assert before.weights_name == f"{tmp_path.name}/ckpt-100"
    (tmp_path / "ckpt-200.index").write_text("")
    os.utime(tmp_path / "ckpt-200.index", (2e9, 2e9))
    (after,) = plan([str(tmp_path)])
    assert after.key != before.key and after.weights_name.endswith("/ckpt-200")


def test_entries_survive_json():
    sizes = {"batch_sizes": (1, 8), "input_sizes": (None, (64, 96))}
    for entry in plan([MOBILENET], dataset="tfds:a:b", limit=3, **sizes, **QUICK):
        assert Entry.from_json(json.loads(entry.key)) == entry


def test_map_is_measured_once_a_network():
    planned = plan([MOBILENET], batch_sizes=(1, 8), dataset="tfds:a:b", **QUICK)
    assert [entry.dataset for entry in planned] == ["tfds:a:b", None]


def test_models_are_names_patterns_and_folders(tmp_path):
    (tmp_path / "pipeline.config").write_text("")
    assert expand_models(["centernet_*", MOBILENET]) == list_models("centernet_*")
    assert expand_models([str(tmp_path)]) == [str(tmp_path.resolve())]
    for wrong in ("no_such_*", "centernet_mobilnet", str(tmp_path.parent)):
        with pytest.raises(UsageError):
            expand_models([wrong])


def test_input_sizes():
    assert parse_input_size("512") == (512, 512) and parse_input_size("480x640") == (480, 640)
    for wrong in ("", "x", "0", "512x", "-3"):
        with pytest.raises(UsageError):
            parse_input_size(wrong)
    pipeline = generate_pipeline(MOBILENET)
    resized = set_input_size(pipeline, (256, 256)).model.center_net.image_resizer.keep_aspect_ratio_resizer
    assert (resized.min_dimension, resized.max_dimension) == (256, 256)
    assert pipeline.model.center_net.image_resizer.keep_aspect_ratio_resizer.max_dimension == 512
    with pytest.raises(UsageError, match="square"):
        set_input_size(pipeline, (256, 512))
