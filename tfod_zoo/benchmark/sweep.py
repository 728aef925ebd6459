"""A sweep: models x runtimes x canvas sizes x batch sizes, an entry a process, a row of the result file each.

The result file is JSON lines, appended row by row, so an interrupted sweep loses at most the entry in hand; run again,
it skips what is finished on the same machine and retries what failed.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import json
import math
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from tfod_zoo.benchmark.death import death_reason
from tfod_zoo.benchmark.duration import format_duration
from tfod_zoo.benchmark.entry import Entry, checkpoint_version
from tfod_zoo.benchmark.machine import describe_machine
from tfod_zoo.benchmark.runtimes import SAVED_MODEL
from tfod_zoo.errors import UsageError, ZooError
from tfod_zoo.zoo.registry import get_model, list_models

RESULTS_FILE = "results.jsonl"
MATCHES_FOLDER = "matches"  # beside it
_MARGIN = 1.2  # so much more time than the last try had makes another one worth it
# Starting, loading and converting take as long as measuring a model of so many published milliseconds (fifteen models
# by five runtimes on 2 CPU cores: 15 to 30 s at 6 ms a call, 63 to 132 s at 70).
_START_MS = 20.0
_PATTERN_CHARACTERS = "*?["

Row = dict[str, Any]


def expand_models(patterns: Sequence[str], saved_models: bool = False) -> list[str]:
    """Zoo names, patterns over them and folders of trained models -> names and folders, each once, in order.

    With `saved_models` a folder of a SavedModel alone will do.

    Raises:
        UsageError: a pattern without a match, a name that is no model, a folder without a pipeline.config.
    """
    models: list[str] = []
    for pattern in patterns:
        here = Path(pattern)
        if (here / "pipeline.config").is_file() or (saved_models and any(here.rglob("saved_model.pb"))):
            models.append(str(Path(pattern).resolve()))
        elif Path(pattern).is_dir() and pattern not in list_models():
            raise UsageError(f"{pattern} is a folder without pipeline.config; give a zoo model's name or a model_dir.")
        elif any(character in pattern for character in _PATTERN_CHARACTERS):
            matches = list_models(pattern)
            if not matches:
                raise UsageError(f"No zoo model's name matches {pattern!r}; see `tfod-zoo list`.")
            models.extend(matches)
        else:
            models.append(get_model(pattern).name)
    return list(dict.fromkeys(models))


def plan(
    models: Sequence[str],
    *,
    runtimes: Sequence[tuple[str, str]] = (("tensorflow", "float32"),),
    batch_sizes: Sequence[int] = (1,),
    input_sizes: Sequence[tuple[int, int] | None] = (None,),
    dataset: str | None = None,
    **options: Any,
) -> list[Entry]:
    """The entries of a sweep, `runtimes` being pairs with a precision.

    mAP does not depend on the batch size: the first of `batch_sizes` measures it for all. Of a SavedModel it is not
    measured: `certify` tells whether it is the model.
    """
    entries = []
    for model in models:
        weights = options.get("weights", "zoo")
        folder = model if weights == "zoo" and Path(model).is_dir() else weights
        version = checkpoint_version(folder) if folder not in ("zoo", "random") else None
        for input_size, (runtime, precision) in itertools.product(input_sizes, runtimes):
            for batch_size in dict.fromkeys(batch_sizes):
                measured_on = dataset if batch_size == batch_sizes[0] and runtime != SAVED_MODEL else None
                entries.append(
                    Entry(model, batch_size=batch_size, input_size=input_size, dataset=measured_on, runtime=runtime,
                          precision=precision, weights_version=version, **options)
                )
    return entries


class TimeBudget:
    """Seconds that a sweep may take, from now on; None = as long as it needs."""

    def __init__(self, seconds: float | None = None, clock: Callable[[], float] = time.monotonic):
        self.seconds, self._clock, self._started = seconds, clock, clock()

    @property
    def left(self) -> float | None:
        """Seconds left, 0 once it is used up."""
        return None if self.seconds is None else max(0.0, self.seconds - (self._clock() - self._started))


def run_sweep(
    entries: Sequence[Entry],
    folder: str | Path,
    *,
    on_row: Callable[[int, Row, bool], None] | None = None,
    on_start: Callable[[int, Entry, float | None], None] | None = None,
    measure: Callable[[Entry], Row] | None = None,
    peaks: Callable[[], dict[str, float]] | None = None,
    budget: TimeBudget | None = None,
    command: str | None = None,
) -> list[Row]:
    """Runs what `folder`'s result file does not hold yet and returns the rows of all `entries`, in their order.

    With a time budget the quick ones go first, by the zoo's published milliseconds, so that it holds as many as it can.

    Args:
        on_start: called before a measurement, with place in the sweep, entry, and the seconds that it and those after
            it will take (None: not known yet).
        on_row: called with place, row and whether the row was there already.
        measure: makes the measured fields of an entry; a process of its own by default.
        peaks: measures what the machine can do at most (`roofline.measure_peaks`), once, before the first
            measurement; each row gets it as `peaks`.
        budget: an entry whose turn comes after it is used up becomes a row with the status "skipped".
        command: the command line, as rows keep it.
    """
    results = Path(folder) / RESULTS_FILE
    try:
        results.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ZooError(
            f"Cannot make the result folder {results.parent}: {error.strerror}; choose another --out."
        ) from error
    machine = describe_machine()
    finished = {
        Entry.from_json(row["entry"]).key: row
        for row in read_rows(results)
        if row["status"] == "ok" and row["machine"] == machine
    }
    # An entry that once was ended for lack of time must not use up every later budget, too.
    too_short = {
        Entry.from_json(row["entry"]).key: row["ended_after_seconds"]
        for row in read_rows(results) if "ended_after_seconds" in row
    }
    missing = [entry for entry in entries if entry.key not in finished]
    of_all: Row = {"command": command} if command else {}
    if missing and peaks:
        of_all["peaks"] = peaks()
    # What the entries of this sweep took, here or in a run before, tells what those to come will take.
    weights = _weights(entries)
    durations = {key: row["entry_seconds"] for key in weights
                 if (row := finished.get(key)) and "entry_seconds" in row}
    order: Sequence[int] = range(len(entries))
    if budget and budget.left is not None:
        order = sorted(order, key=lambda index: _published_ms(entries[index]))
    rows: dict[int, Row] = {}
    for place, index in enumerate(order):
        entry = entries[index]
        row = finished.get(entry.key)
        resumed = row is not None
        if row is None:
            row = {
                "entry": asdict(entry),
                "weights": entry.weights_name,
                "published": _published(entry.model),
                "machine": machine,
                "time": datetime.now(timezone.utc).isoformat(timespec="seconds"),
                **of_all,
            }
            if budget and budget.left is not None and budget.left <= _MARGIN * too_short.get(entry.key, 0.0):
                row |= skipped(budget, too_short.get(entry.key))
            else:
                if on_start:
                    on_start(place, entry, _seconds_left(missing, weights, durations))
                started = time.monotonic()
                row |= (measure or run_worker)(entry)
                row["entry_seconds"] = time.monotonic() - started
                if row["status"] == "ok":
                    durations[entry.key] = row["entry_seconds"]
            missing.remove(entry)
            _append(results, row)
        rows[index] = row
        if on_row:
            on_row(place, row, resumed)
    return [rows[index] for index in range(len(entries))]


def matches_file(folder: str | Path, entry: Entry) -> Path | None:
    """Where the matches on each image of `entry` are kept, beside the results; None for one without a data set."""
    if not entry.dataset:
        return None
    return Path(folder) / MATCHES_FOLDER / (hashlib.sha256(entry.key.encode()).hexdigest()[:16] + ".npz")


def skipped(budget: TimeBudget, ended_after: float | None = None) -> Row:
    """The fields of a row that the time budget left no time for; `ended_after` seconds it was not done yet."""
    assert budget.seconds is not None
    if ended_after is None:
        reason = f"the time budget of {format_duration(budget.seconds)} was used up; run the same command again"
        return {"status": "skipped", "reason": reason}
    return {
        "status": "skipped",
        "reason": f"it needs more than the {format_duration(ended_after)} that were left of a time budget; run the "
                  "same command again, with a larger budget if it is alone",
        "ended_after_seconds": ended_after,
    }


def read_rows(results: str | Path) -> list[Row]:
    """The rows of a result file; a last line torn by an interruption is left out."""
    path = Path(results)
    if not path.is_file():
        return []
    return [row for line in path.read_text(encoding="utf-8").splitlines() if (row := _parsed(line))]


def _parsed(line: str) -> Row:
    """A line of JSON; empty for one that was cut short."""
    try:
        return json.loads(line)
    except json.JSONDecodeError:
        return {}


def latest_rows(rows: Iterable[Row]) -> list[Row]:
    """The newest row of each entry, in the order of first appearance."""
    newest: dict[str, Row] = {}
    for row in rows:
        newest[Entry.from_json(row["entry"]).key] = row
    return list(newest.values())


def run_worker(
    entry: Entry,
    on_images: Callable[[int], None] = lambda done: None,
    *,
    matches: Path | None = None,
    budget: TimeBudget | None = None,
) -> Row:
    """Measures `entry` in a fresh process; whatever happens to that process, there is a row.

    `on_images` hears how many images the entry's mAP has seen so far. `matches` is a file to keep its matches of each
    image in (`image_matches`). What is not done when the `budget` is used up is ended, and its row says so.
    """
    command = [sys.executable, "-m", "tfod_zoo.benchmark.worker", *([str(matches)] if matches else [])]
    line: Row = {}
    seconds = budget.left if budget else None
    out_of_time = threading.Event()
    with tempfile.TemporaryFile("w+") as log:
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True)
        assert process.stdin and process.stdout

        def end() -> None:
            out_of_time.set()
            process.kill()

        alarm = threading.Timer(seconds, end) if seconds is not None else None
        try:
            if alarm:
                alarm.start()
            # A worker that dies early breaks the pipe; its exit code says more than the pipe's error would.
            with contextlib.suppress(BrokenPipeError), process.stdin as spec:
                spec.write(json.dumps(asdict(entry)))
            for text in process.stdout:
                line = _parsed(text)
                if "evaluated" in line:
                    on_images(line["evaluated"])
            process.wait()
        except BaseException:  # Ctrl-C above all: the worker must not go on alone
            process.kill()
            process.wait()
            raise
        finally:
            if alarm:
                alarm.cancel()
        if budget and out_of_time.is_set():
            return skipped(budget, seconds)
        if process.returncode == 0 and "status" in line:
            return line
        log.seek(0)
        return {"status": "failed", "reason": death_reason("worker", process.returncode, log.read())}


def _published(model: str) -> dict[str, float | None]:
    """The zoo's own figures for a zoo model; nothing for a model of the user's."""
    if model not in list_models():
        return {}
    zoo_model = get_model(model)
    return {"speed_ms": zoo_model.speed_ms, "box_map": zoo_model.box_map, "keypoint_map": zoo_model.keypoint_map}


def _published_ms(entry: Entry) -> float:
    """Milliseconds of one call on the zoo's hardware; 0 of a user's own model, which was asked for by name."""
    published = _published(entry.model)
    if not published:
        return 0.0
    speed_ms = published["speed_ms"]
    return math.inf if speed_ms is None else entry.batch_size * speed_ms


def _weights(entries: Sequence[Entry]) -> dict[str, float]:
    """Entries' keys -> how long each takes beside the others; one without published figures is as long as the mean."""
    known = {entry.key: _START_MS + entry.batch_size * float(speed_ms) for entry in entries
             if (speed_ms := _published(entry.model).get("speed_ms"))}
    mean = sum(known.values()) / len(known) if known else 1.0
    return {entry.key: known.get(entry.key, mean) for entry in entries}


def _seconds_left(missing: Sequence[Entry], weights: dict[str, float], durations: dict[str, float]) -> float | None:
    """What `missing` will take, by the seconds that others took; None before there are any."""
    if not durations:
        return None
    seconds_by_weight = sum(durations.values()) / sum(weights[key] for key in durations)
    return seconds_by_weight * sum(weights[entry.key] for entry in missing)


def _append(results: Path, row: Row) -> None:
    """Adds one line, on its own even after a torn one, and has it on the disk before the next entry starts."""
    torn = results.is_file() and results.stat().st_size > 0 and not results.read_bytes().endswith(b"\n")
    try:
        with results.open("a", encoding="utf-8") as stream:
            stream.write(("\n" if torn else "") + json.dumps(row) + "\n")
            stream.flush()
            os.fsync(stream.fileno())
    except OSError as error:
        raise ZooError(
            f"Cannot write {results}: {error.strerror}; make room and run the same command again, finished rows stay."
        ) from error
