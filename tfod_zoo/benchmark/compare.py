"""What changed between two sweeps beyond noise, row by row: latency, memory, mAP."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np

from tfod_zoo.benchmark.columns import Row, box_map, keypoint_map, row_title
from tfod_zoo.benchmark.image_matches import ImageMatches, map_difference
from tfod_zoo.benchmark.sweep import MATCHES_FOLDER, RESULTS_FILE, latest_rows, read_rows
from tfod_zoo.benchmark.timing import timing_doubts
from tfod_zoo.errors import UsageError

# Fields of an entry that say how long to measure or where things lie, not what is measured.
_HOW = ("min_calls", "min_seconds", "store", "weights_version", "dataset", "label_map", "limit")
# Processes that measured the same row differed by 0.3 % (MobileNetV2-FPN at 512, two cores); room for more threads.
_MEMORY_NOISE = 0.02
_SAMPLES = 1000
_SEED = 2017


@dataclass(frozen=True)
class Change:
    """One figure of a row, before and after.

    Attributes:
        figure: its name with the unit.
        change: relative (0.05 = 5 % more) for latency and memory, percentage points for mAP.
        low, high: the ends of the change's 95 % interval; None where the rows hold nothing to draw it from.
        verdict: "same", "better", "worse" (beyond noise, within the tolerance), or "regression".
    """

    figure: str
    before: float
    after: float
    change: float
    low: float | None
    high: float | None
    verdict: str


@dataclass
class RowComparison:
    """A row that both sweeps have; `failure` is the reason where it was measured before and is not after."""

    title: str
    changes: list[Change] = field(default_factory=list)
    failure: str | None = None

    @property
    def regressed(self) -> bool:
        return self.failure is not None or any(change.verdict == "regression" for change in self.changes)


@dataclass
class Comparison:
    """Two sweeps side by side; `warnings` are what makes figures hard to compare."""

    rows: list[RowComparison]
    only_before: list[str]
    only_after: list[str]
    warnings: list[str]

    @property
    def regressions(self) -> int:
        return sum(row.regressed for row in self.rows)

    def to_json(self) -> str:
        return json.dumps(asdict(self) | {"regressions": self.regressions}, indent=2)


def compare(
    before: str | Path,
    after: str | Path,
    *,
    tolerance: float,
    map_tolerance: float,
    on_row: Callable[[str], None] = lambda title: None,
) -> Comparison:
    """Compares two result folders or results.jsonl files.

    `tolerance` is of latency and memory (0.05 = 5 % more is not yet a regression), `map_tolerance` of mAP in
    percentage points. `on_row` hears of each row before it is compared: the interval of an mAP on COCO takes half a
    minute.

    Raises:
        UsageError: one of them holds no rows, or they have no row in common.
    """
    first_file, second_file = _results_file(before), _results_file(after)
    first, second = _by_identity(_rows(first_file), _rows(second_file))
    common = [identity for identity in first if identity in second]
    if not common:
        raise UsageError(
            f"{first_file} and {second_file} have no row in common (same model, weights, canvas, batch size, runtime "
            "and precision); give two sweeps over the same models."
        )
    rows, warnings = [], []
    for identity in common:
        one, other = first[identity], second[identity]
        title = row_title(other)
        if one["status"] != "ok":
            continue
        if other["status"] != "ok":
            rows.append(RowComparison(title, failure=f"{other['status']}: {other['reason']}"))
            continue
        on_row(title)
        for when, row in (("before", one), ("after", other)):
            warnings += [f"{title}, {when}: {doubt}" for doubt in timing_doubts(row)]
        if one["machine"] != other["machine"]:
            warnings.append(f"{title}: measured on different machines, versions or threads.")
        changes = [_latency(one, other, tolerance), _memory(one, other, tolerance)]
        changes += _accuracies(one, other, first_file.parent, second_file.parent, map_tolerance, warnings, title)
        rows.append(RowComparison(title, changes))
    return Comparison(
        rows,
        [row_title(row) for identity, row in first.items() if identity not in second],
        [row_title(row) for identity, row in second.items() if identity not in first],
        list(dict.fromkeys(warnings)),
    )


def _results_file(path: str | Path) -> Path:
    path = Path(path)
    return path / RESULTS_FILE if path.is_dir() else path


def _rows(results: Path) -> list[Row]:
    if not results.is_file():
        raise UsageError(f"There is no {results}; give a folder of `tfod-zoo benchmark --out`, or its {RESULTS_FILE}.")
    rows = latest_rows(row for row in read_rows(results) if isinstance(row, dict) and "entry" in row)
    if not rows:
        raise UsageError(f"{results} holds no rows of a benchmark; run the sweep first.")
    return rows


def _by_identity(first: Sequence[Row], second: Sequence[Row]) -> tuple[dict[str, Row], dict[str, Row]]:
    """Rows under what they measured. Folders of trained models go by their names, unless two have the same one."""
    for whole_path in (False, True):
        if all(max(Counter(_identity(row, whole_path) for row in rows).values()) == 1 for rows in (first, second)):
            break
    one, other = ({_identity(row, whole_path): row for row in rows} for rows in (first, second))
    return one, other


def _identity(row: Row, whole_path: bool) -> str:
    what = {name: value for name, value in row["entry"].items() if name not in _HOW and value is not None}
    # A sweep made before there were runtimes and precisions measured these.
    what = {"runtime": "tensorflow", "precision": "float32"} | what
    if not whole_path:
        what |= {name: Path(what[name]).name for name in ("model", "weights")}
    return json.dumps(what, sort_keys=True)


def _latency(before: Row, after: Row, tolerance: float) -> Change:
    one, other = before["p50_ms"], after["p50_ms"]
    change = other / one - 1
    if "calls_ms" in before and "calls_ms" in after:
        low, high = median_ratio(before["calls_ms"], after["calls_ms"])
        low, high = low - 1, high - 1
    else:
        # Half of the rows' spread between p50 and p90 either way.
        noise = max((row["p90_ms"] - row["p50_ms"]) / row["p50_ms"] for row in (before, after)) / 2
        low, high = change - noise, change + noise
    return Change("p50 ms", one, other, change, low, high, _verdict(change, low, high, tolerance))


def _memory(before: Row, after: Row, tolerance: float) -> Change:
    one, other = before["peak_memory_mib"], after["peak_memory_mib"]
    change = other / one - 1
    low, high = change - _MEMORY_NOISE, change + _MEMORY_NOISE
    return Change("peak MiB", one, other, change, low, high, _verdict(change, low, high, tolerance))


def _verdict(change: float, low: float, high: float, tolerance: float) -> str:
    """Of a figure of which less is better; the interval decides what is noise."""
    if low <= 0 <= high:
        return "same"
    if change < 0:
        return "better"
    return "regression" if change > tolerance else "worse"


def median_ratio(before: Sequence[float], after: Sequence[float], *, samples: int = _SAMPLES) -> tuple[float, float]:
    """95 % interval of median(after) / median(before), by a bootstrap over blocks of calls that follow each other.

    Blocks, because neighbouring calls share what slows a machine for a while; single calls would promise too much. The
    seed is fixed: the same rows give the same interval.
    """
    random = np.random.default_rng(_SEED)
    ratios = _block_medians(after, samples, random) / _block_medians(before, samples, random)
    low, high = np.percentile(ratios, [2.5, 97.5])
    return float(low), float(high)


def _block_medians(calls: Sequence[float], samples: int, random: np.random.Generator) -> np.ndarray:
    values = np.asarray(calls, np.float64)
    length = max(1, round(len(values) ** 0.5))
    starts = random.integers(0, len(values), (samples, -(-len(values) // length)))
    at = (starts[..., None] + np.arange(length)) % len(values)  # a block that leaves the end goes on at the start
    return np.median(values[at].reshape(samples, -1)[:, : len(values)], axis=1)


def _accuracies(
    before: Row, after: Row, before_folder: Path, after_folder: Path, tolerance: float, warnings: list[str], title: str
) -> list[Change]:
    changes = []
    measured_on = [(row["entry"].get("dataset"), row.get("evaluated_images")) for row in (before, after)]
    for figure, value in (("mAP %", box_map), ("keypoint mAP %", keypoint_map)):
        one, other = value(before), value(after)
        if one is None or other is None:
            continue
        if measured_on[0] != measured_on[1]:
            warnings.append(f"{title}: mAP is not compared, it was measured on other images.")
            continue
        low = high = None
        files = [folder / MATCHES_FOLDER / row["matches"] if "matches" in row else None
                 for folder, row in ((before_folder, before), (after_folder, after))]
        if figure == "mAP %" and all(file and file.is_file() for file in files):
            first, second = (ImageMatches.load(file) for file in files if file)
            if not first.same_images(second):
                warnings.append(f"{title}: mAP is not compared, it was measured on other images.")
                continue
            _, low, high = (100 * part for part in map_difference(first, second))
        verdict = _map_verdict(other - one, low, high, tolerance)
        changes.append(Change(figure, one, other, other - one, low, high, verdict))
    return changes


def _map_verdict(change: float, low: float | None, high: float | None, tolerance: float) -> str:
    """Of percentage points of mAP; without an interval, any change is one: the evaluation itself has no noise."""
    if change == 0 or (low is not None and high is not None and low <= 0 <= high):
        return "same"
    if change > 0:
        return "better"
    return "regression" if -change > tolerance else "worse"
