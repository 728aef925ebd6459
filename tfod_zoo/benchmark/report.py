"""The reports of a benchmark: an HTML page, a table in Markdown and in CSV, and speed against accuracy as a picture."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

from tfod_zoo.benchmark.columns import (
    COLUMNS,
    P50,
    Column,
    Row,
    box_map,
    columns_with_values,
    keypoint_map,
    latency_per_image,
    published_map,
    row_title,
)
from tfod_zoo.benchmark.entry import Entry
from tfod_zoo.benchmark.html_report import html_report
from tfod_zoo.benchmark.machine import machine_facts, machine_line
from tfod_zoo.benchmark.timing import timing_doubts


def write_reports(rows: Sequence[Row], folder: str | Path) -> list[Path]:
    """Writes report.html, report.md, results.csv and, where there is something to plot, speed_accuracy.png.

    Returns their paths.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    rows = share_metrics(rows)
    page, markdown, table = folder / "report.html", folder / "report.md", folder / "results.csv"
    page.write_text(html_report(rows, _notes(rows)), encoding="utf-8")
    markdown.write_text(markdown_report(rows), encoding="utf-8")
    with table.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        writer.writerow([column.title for column in COLUMNS] + ["status", "reason", "device", "machine"])
        for row in rows:
            writer.writerow(
                ["" if column.value(row) is None else column.value(row) for column in COLUMNS]
                + [row["status"], row.get("reason", ""), row.get("device", ""), machine_line(row["machine"])]
            )
    written = [page, markdown, table]
    picture = folder / "speed_accuracy.png"
    if write_plot(rows, picture):
        written.append(picture)
    return written


def share_metrics(rows: Sequence[Row]) -> list[Row]:
    """Rows of the same network and weights at another batch size get the mAP that one of them measured, and those of
    another runtime or precision `map_change`, how many points that is over TensorFlow's in float32."""
    measured = {(_network(row), *_runtime(row)): row["metrics"] for row in rows if "metrics" in row}
    shared = []
    for row in rows:
        metrics = measured.get((_network(row), *_runtime(row)))
        if row["status"] == "ok" and metrics:
            row = row | {"metrics": metrics}
            exact = measured.get((_network(row), *_EXACT))
            here, there = box_map(row), box_map({"metrics": exact or {}})
            if _runtime(row) != _EXACT and here is not None and there is not None:
                row["map_change"] = here - there
        shared.append(row)
    return shared


_EXACT = ("tensorflow", "float32")


def _network(row: Row) -> tuple:
    entry = Entry.from_json(row["entry"])
    return entry.model, entry.weights, entry.weights_version, entry.input_size


def _runtime(row: Row) -> tuple[str, str]:
    entry = Entry.from_json(row["entry"])
    return entry.runtime, entry.precision


def markdown_report(rows: Sequence[Row]) -> str:
    """The table with what is needed to read it: machines, device, picture, weights, data, failures."""
    lines = ["# Benchmark", "", markdown_table(rows), ""]
    failures = [row for row in rows if row["status"] != "ok"]
    if failures:
        lines += ["Not measured:", ""]
        lines += [f"- {_plain(row_title(row))}: {row['status']}, {_plain(row['reason'])}" for row in failures] + [""]
    doubts = [f"- {_plain(row_title(row))}: {doubt}" for row in rows for doubt in timing_doubts(row)]
    if doubts:
        lines += ["Doubts about timings:", "", *doubts, ""]
    finished = [row for row in rows if row["status"] == "ok"]
    for facts in dict.fromkeys(tuple(machine_facts(row).items()) for row in finished or rows):
        lines += ["Measured on:", "", *(f"- {name}: {value}" for name, value in facts), ""]
    lines += [f"- {note}" for note in _notes(rows)] + [""]
    commands = [text for text in dict.fromkeys(row.get("command") for row in rows) if text]
    if commands:
        lines += ["Made by:", "", *(f"    {text}" for text in commands), ""]
    return "\n".join(lines)


_OURS = ("tfod_zoo", "tensorflow")  # named with the machine


def _notes(rows: Sequence[Row]) -> list[str]:
    """How the figures were measured, and what they mean."""
    finished = [row for row in rows if row["status"] == "ok"]
    notes = [
        f"Latency: one call of `detect`, from a generated photograph-like {picture} in host memory to detections in "
        "host memory; first call apart, warm-up left out."
        for picture in dict.fromkeys(row["picture"] for row in finished)
    ]
    notes += ["GFLOP: the network on one image; convolutions and matrix products, a multiply-add is 2 operations."]
    if any("peaks" in row for row in finished):
        notes += ["Of matmul peak: the row's operations a second over those of a float32 matrix product (2048 x 2048) "
                  "in the same sweep; near 100 % is as fast as this arithmetic goes here."]
    if any("joules_per_image" in row for row in finished):
        notes += ["J/image: what the processor packages spent during the calls (RAPL), whatever else ran on them."]
    exported = [row["export"] for row in finished if "export" in row]
    if exported:
        versions = {name: version for export in exported for name, version in export["versions"].items()}
        made_with = ", ".join(f"{name} {version}" for name, version in versions.items() if name not in _OURS)
        notes += ["Other runtimes' files were compared with the model before they were timed; found again: the model's "
                  f"detections over 0.3 that they have too{f'; {made_with}' if made_with else ''}."]
    if any("map_change" in row for row in rows):
        notes += ["mAP change: points over TensorFlow's in float32, on the same images."]
    if any(row["weights"] == "random" for row in rows):
        notes += ["Weights named random are untrained: the speed is real, the detections mean nothing."]
    evaluated = {
        (row["entry"]["dataset"], row["evaluated_images"]) for row in finished if row.get("evaluated_images")
    }
    notes += [f"mAP: COCO box metric (pycocotools) on {data}, {count} images." for data, count in sorted(evaluated)]
    if any(keypoint_map(row) is not None for row in rows):
        notes += ["Keypoint mAP: COCO keypoint metric (OKS .50:.95, pycocotools) on the same images."]
    if not evaluated:
        notes += ["mAP was not measured (no --dataset); the published one is beside it where the zoo has one."]
    notes += ["Published: the zoo's own table; its milliseconds are of the zoo's own hardware, for orientation only."]
    return notes


def markdown_table(rows: Sequence[Row]) -> str:
    """One Markdown line a row; a figure that was not measured is an empty cell, one that no row has no column."""
    columns = columns_with_values(rows)
    table = [[column.title for column in columns]]
    table += [[_shown(column, row) for column in columns] for row in rows]
    lines = ["| " + " | ".join(cells) + " |" for cells in table]
    lines.insert(1, "|" + " --- |" * len(columns))
    return "\n".join(lines)


def _shown(column: Column, row: Row) -> str:
    if row["status"] != "ok" and column is P50:
        return row["status"]
    return _plain(column.shown(row))


def _plain(text: str) -> str:
    """Text that neither ends a cell nor starts a tag in Markdown."""
    return text.replace("|", "\\|").replace("<", "&lt;").replace("\n", " ")


def write_plot(rows: Sequence[Row], path: Path) -> bool:
    """Speed against accuracy as PNG; False, and no file, when no row has both.

    Where mAP was measured, measured points stand beside the published ones. Where none was, measured latency stands
    against the published mAP, and the axis says so.
    """
    finished = [row for row in rows if row["status"] == "ok"]
    measured = any(box_map(row) is not None for row in finished)
    points = [
        (row, latency, accuracy) for row in finished
        if (latency := latency_per_image(row)) is not None
        and (accuracy := (box_map if measured else published_map)(row)) is not None
    ]
    if not points:
        return False
    # Without pyplot, whose backend is the caller's: a notebook shows its figures by it.
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 6), dpi=120)
    axes = figure.subplots()
    for row, latency, accuracy in points:
        axes.scatter(latency, accuracy, color="tab:blue", zorder=3)
        axes.annotate(row_title(row), (latency, accuracy), textcoords="offset points", xytext=(6, 4), fontsize=7)
    axes.scatter([], [], color="tab:blue",
                 label="measured latency, measured mAP" if measured else "measured latency, published mAP")
    published = {
        Path(row["entry"]["model"]).name: row["published"] for row, *_ in points
        if row["published"].get("speed_ms") and published_map(row) is not None
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
    axes.set_title("\n".join(dict.fromkeys(machine_line(row["machine"]) for row, *_ in points)), fontsize=6)
    axes.grid(True, which="both", alpha=0.3)
    axes.legend(fontsize=8)
    figure.tight_layout()
    figure.savefig(path)
    return True
