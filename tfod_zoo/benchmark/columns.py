"""The figures of a row, as every report shows them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tfod_zoo.benchmark.roofline import peak_share

Row = dict[str, Any]
_MAP = "DetectionBoxes_Precision/mAP"
_MAP50 = "DetectionBoxes_Precision/mAP@.50IOU"
_SIZES = ("small", "medium", "large")
_KEYPOINT_MAP = "Keypoints_Precision/mAP ByCategory/"  # and the class


@dataclass(frozen=True)
class Column:
    """A figure: its title with the unit, and its value in a row (None: not measured)."""

    title: str
    value: Callable[[Row], Any]
    digits: int = 1

    def shown(self, row: Row) -> str:
        """The value as text; empty where it was not measured."""
        value = self.value(row)
        if value is None:
            return ""
        return f"{value:.{self.digits}f}" if isinstance(value, float) else str(value)


def metric(name: str) -> Callable[[Row], float | None]:
    """A COCO metric in percent, as published tables have it; None also where the data hold no object of its size."""

    def percent(row: Row) -> float | None:
        value = row.get("metrics", {}).get(name)
        return None if value is None or value < 0 else 100 * value

    return percent


box_map = metric(_MAP)


def keypoint_map(row: Row) -> float | None:
    """In percent, the mean over the classes with keypoints; the zoo's models have one."""
    found = {name: value for name, value in row.get("metrics", {}).items() if name.startswith(_KEYPOINT_MAP)}
    values = [value for value in found.values() if value >= 0]
    return 100 * sum(values) / len(values) if values else None


def latency_per_image(row: Row) -> float | None:
    """Milliseconds: the median call over its images."""
    return row["p50_ms"] / row["entry"]["batch_size"] if "p50_ms" in row else None


def published_map(row: Row) -> float | None:
    """The published box mAP in percent, of a row on the published canvas."""
    return None if row["entry"].get("input_size") else row["published"].get("box_map")


def published_keypoint_map(row: Row) -> float | None:
    """As `published_map`, of keypoints."""
    return None if row["entry"].get("input_size") else row["published"].get("keypoint_map")


def model_name(row: Row) -> str:
    return Path(row["entry"]["model"]).name


def runtime(row: Row) -> str:
    return row["entry"].get("runtime") or "tensorflow"


def precision(row: Row) -> str:
    return row["entry"].get("precision") or "float32"


def row_title(row: Row) -> str:
    """Names a row among the others of a sweep."""
    entry = row["entry"]
    parts = [model_name(row)]
    if entry.get("input_size"):
        parts.append("x".join(map(str, entry["input_size"])))
    parts.append(f"batch {entry['batch_size']}")
    parts += [value for value in (entry.get("runtime"), entry.get("precision")) if value]
    return " ".join(parts) + (" (random weights)" if row["weights"] == "random" else "")


def _percent(share: float | None) -> float | None:
    return None if share is None else 100 * share


def _found_again(row: Row) -> float | None:
    """Of the model's detections over 0.3, those that an export has too, in percent; None where it was not compared."""
    agreement = row.get("export", {}).get("agreement", {})
    return 100 * agreement["matched"] / agreement["detections"] if agreement.get("detections") else None


P50 = Column("p50 ms", lambda row: row.get("p50_ms"))
COLUMNS = (
    Column("model", model_name),
    Column("weights", lambda row: row["weights"]),
    Column("runtime", runtime),
    Column("precision", precision),
    Column("canvas", lambda row: "x".join(map(str, row["canvas"])) if "canvas" in row else None),
    Column("batch", lambda row: row["entry"]["batch_size"]),
    P50,
    Column("p90 ms", lambda row: row.get("p90_ms")),
    Column("p99 ms", lambda row: row.get("p99_ms")),
    Column("mean ms", lambda row: row.get("mean_ms")),
    Column("images/s", lambda row: row.get("images_per_second")),
    Column("first call s", lambda row: row["first_call_ms"] / 1e3 if "first_call_ms" in row else None),
    Column("cores used", lambda row: row.get("cores_used")),
    Column("J/image", lambda row: row.get("joules_per_image"), 2),
    Column("peak MiB", lambda row: row.get("peak_memory_mib"), 0),
    Column("M params", lambda row: row["parameters"] / 1e6 if "parameters" in row else None, 2),
    Column("GFLOP", lambda row: row.get("gflop")),
    Column("of matmul peak %", lambda row: _percent(peak_share(row)), 0),
    Column("mAP %", box_map),
    Column("mAP change", lambda row: row.get("map_change"), 2),
    Column("AP50 %", metric(_MAP50)),
    *(Column(f"mAP {size} %", metric(f"{_MAP} ({size})")) for size in _SIZES),
    Column("keypoint mAP %", keypoint_map),
    Column("found again %", _found_again),
    Column("published ms", lambda row: row["published"].get("speed_ms")),
    Column("published mAP %", lambda row: row["published"].get("box_map")),
    Column("published keypoint mAP %", lambda row: row["published"].get("keypoint_map")),
)


def columns_with_values(rows: Sequence[Row]) -> list[Column]:
    """Those of `COLUMNS` that some row has a value for; the median latency always."""
    return [column for column in COLUMNS if column is P50 or any(column.value(row) is not None for row in rows)]
