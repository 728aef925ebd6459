"""The reports of a benchmark: a table in Markdown, the same in CSV, and speed against accuracy as a picture."""

from __future__ import annotations

import csv
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tfod_zoo.benchmark.entry import Entry
from tfod_zoo.benchmark.machine import machine_line

Row = dict[str, Any]
_MAP = "DetectionBoxes_Precision/mAP"
_MAP50 = "DetectionBoxes_Precision/mAP@.50IOU"
_KEYPOINT_MAP = "Keypoints_Precision/mAP ByCategory/"  # and the class


@dataclass(frozen=True)
class _Column:
    title: str
    value: Callable[[Row], Any]
    digits: int = 1


def _metric(name: str) -> Callable[[Row], Any]:
    # TFOD's metrics are fractions, published tables are percent.
    return lambda row: None if name not in row.get("metrics", {}) else 100 * row["metrics"][name]


def _keypoint_map(row: Row) -> float | None:
    """Mean over the classes with keypoints; the zoo's models have one."""
    found = {name: value for name, value in row.get("metrics", {}).items() if name.startswith(_KEYPOINT_MAP)}
    values = [value for value in found.values() if value >= 0]
    return 100 * sum(values) / len(values) if values else None


COLUMNS = (
    _Column("model", lambda row: Path(row["entry"]["model"]).name),
    _Column("weights", lambda row: row["weights"]),
    _Column("runtime", lambda row: row["entry"].get("runtime", "tensorflow")),
    _Column("precision", lambda row: row["entry"].get("precision", "float32")),
    _Column("canvas", lambda row: "x".join(map(str, row["canvas"])) if "canvas" in row else None),
    _Column("batch", lambda row: row["entry"]["batch_size"]),
    _Column("p50 ms", lambda row: row.get("p50_ms")),
    _Column("p90 ms", lambda row: row.get("p90_ms")),
    _Column("p99 ms", lambda row: row.get("p99_ms")),
    _Column("mean ms", lambda row: row.get("mean_ms")),
    _Column("images/s", lambda row: row.get("images_per_second")),
    _Column("first call s", lambda row: row["first_call_ms"] / 1e3 if "first_call_ms" in row else None),
    _Column("peak MiB", lambda row: row.get("peak_memory_mib"), 0),
    _Column("M params", lambda row: row["parameters"] / 1e6 if "parameters" in row else None, 2),
    _Column("GFLOP", lambda row: row.get("gflop")),
    _Column("mAP %", _metric(_MAP)),
    _Column("AP50 %", _metric(_MAP50)),
    _Column("keypoint mAP %", _keypoint_map),
    _Column("published ms", lambda row: row["published"].get("speed_ms")),
    _Column("published mAP %", lambda row: row["published"].get("box_map")),
    _Column("published keypoint mAP %", lambda row: row["published"].get("keypoint_map")),
)


def write_reports(rows: Sequence[Row], folder: str | Path) -> list[Path]:
    """Writes report.md, results.csv and speed_accuracy.png (where there is something to plot); returns their paths."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    rows = share_metrics(rows)
    markdown, table = folder / "report.md", folder / "results.csv"
    markdown.write_text(markdown_report(rows), encoding="utf-8")
    with table.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        writer.writerow([column.title for column in COLUMNS] + ["status", "reason", "device", "machine"])
        for row in rows:
            writer.writerow(
                ["" if column.value(row) is None else column.value(row) for column in COLUMNS]
                + [row["status"], row.get("reason", ""), row.get("device", ""), machine_line(row["machine"])]
            )
    written = [markdown, table]
    picture = folder / "speed_accuracy.png"
    if write_plot(rows, picture):
        written.append(picture)
    return written


def share_metrics(rows: Sequence[Row]) -> list[Row]:
    """Rows of the same network and weights at another batch size get the mAP that one of them measured."""
    measured = {_network(row): row["metrics"] for row in rows if "metrics" in row}
    return [
        row | {"metrics": measured[_network(row)]} if row["status"] == "ok" and _network(row) in measured else row
        for row in rows
    ]


def _network(row: Row) -> tuple:
    entry = Entry.from_json(row["entry"])
    return entry.model, entry.weights, entry.weights_version, entry.input_size, entry.runtime, entry.precision


def markdown_report(rows: Sequence[Row]) -> str:
    """The table with what is needed to read it: machines, device, picture, weights, data, failures."""
    finished = [row for row in rows if row["status"] == "ok"]
    lines = ["# Benchmark", "", markdown_table(rows), ""]
    failures = [row for row in rows if row["status"] != "ok"]
    if failures:
        lines += ["Failed:", ""]
        lines += [f"- {Entry.from_json(row['entry']).title}: {row['reason']}" for row in failures] + [""]
    lines += ["Measured on:", ""]
    lines += [f"- {line}" for line in dict.fromkeys(machine_line(row["machine"]) for row in rows)]
    devices = ", ".join(dict.fromkeys(row["device"] for row in finished))
    if devices:
        lines += [f"- device: {devices}"]
    lines += ["", *_notes(rows, finished), ""]
    return "\n".join(lines)


def _notes(rows: Sequence[Row], finished: Sequence[Row]) -> list[str]:
    notes = [
        f"- Latency: one call of `detect`, from a generated photograph-like {picture} in host memory to detections in "
        "host memory; first call apart, warm-up left out."
        for picture in dict.fromkeys(row["picture"] for row in finished)
    ]
    notes += ["- GFLOP: the network on one image; convolutions and matrix products, a multiply-add is 2 operations."]
    if any(row["weights"] == "random" for row in rows):
        notes += ["- Weights named random are untrained: the speed is real, the detections mean nothing."]
    evaluated = {
        (row["entry"]["dataset"], row.get("evaluated_images")) for row in finished if row.get("evaluated_images")
    }
    notes += [f"- mAP: COCO box metric (pycocotools) on {data}, {count} images." for data, count in sorted(evaluated)]
    if any(_keypoint_map(row) is not None for row in rows):
        notes += ["- Keypoint mAP: COCO keypoint metric (OKS .50:.95, pycocotools) on the same images."]
    if not evaluated:
        notes += ["- mAP was not measured (no --dataset); the published one is beside it where the zoo has one."]
    notes += ["- Published: the zoo's own table; its milliseconds are of the zoo's own hardware, for orientation only."]
    return notes


def markdown_table(rows: Sequence[Row]) -> str:
    """One Markdown line a row; a figure that was not measured is an empty cell."""
    table = [[column.title for column in COLUMNS]]
    table += [[_shown(column, row) for column in COLUMNS] for row in rows]
    lines = ["| " + " | ".join(cells) + " |" for cells in table]
    lines.insert(1, "|" + " --- |" * len(COLUMNS))
    return "\n".join(lines)


def _shown(column: _Column, row: Row) -> str:
    if row["status"] != "ok" and column.title == "p50 ms":
        return "failed"
    value = column.value(row)
    if value is None:
        return ""
    return f"{value:.{column.digits}f}" if isinstance(value, float) else str(value)


def write_plot(rows: Sequence[Row], path: Path) -> bool:
    """Speed against accuracy as PNG; False, and no file, when no row has both.

    Where mAP was measured, measured points stand beside the published ones. Where none was, measured latency stands
    against the published mAP, and the axis says so.
    """
    finished = [row for row in rows if row["status"] == "ok"]
    measured = [row for row in finished if "metrics" in row]
    shown = measured or [row for row in finished if row["published"].get("box_map") is not None]
    if not shown:
        return False
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(9, 6), dpi=120)
    for row in shown:
        accuracy = 100 * row["metrics"][_MAP] if measured else row["published"]["box_map"]
        latency = row["p50_ms"] / row["entry"]["batch_size"]
        axes.scatter(latency, accuracy, color="tab:blue", zorder=3)
        label = Entry.from_json(row["entry"]).title + (" (random weights)" if row["weights"] == "random" else "")
        axes.annotate(label, (latency, accuracy), textcoords="offset points", xytext=(6, 4), fontsize=7)
    axes.scatter([], [], color="tab:blue",
                 label="measured latency, measured mAP" if measured else "measured latency, published mAP")
    published = {
        Path(row["entry"]["model"]).name: row["published"] for row in shown
        if row["published"].get("speed_ms") and row["published"].get("box_map") is not None
    }
    for name, figures in published.items():
        axes.scatter(figures["speed_ms"], figures["box_map"], marker="x", color="tab:gray", zorder=2)
        axes.annotate(name, (figures["speed_ms"], figures["box_map"]), textcoords="offset points", xytext=(6, -9),
                      fontsize=7, color="tab:gray")
    if published:
        axes.scatter([], [], marker="x", color="tab:gray", label="published latency, published mAP (zoo's table)")
    axes.set_xscale("log")
    axes.set_xlabel("milliseconds an image (p50 of a call / batch size)")
    axes.set_ylabel("COCO box mAP@[.5:.95], %" + ("" if measured else ", as published (not measured here)"))
    axes.set_title("\n".join(dict.fromkeys(machine_line(row["machine"]) for row in shown)), fontsize=6)
    axes.grid(True, which="both", alpha=0.3)
    axes.legend(fontsize=8)
    figure.tight_layout()
    figure.savefig(path)
    pyplot.close(figure)
    return True
