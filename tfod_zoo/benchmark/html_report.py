"""The report as one HTML page that needs nothing else: no network, no other file.

Every text of a row is escaped: names of models and folders are whatever their owner called them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from html import escape
from pathlib import Path
from typing import Any

from tfod_zoo.benchmark.charts import Point, distributions, pareto_front, scatter
from tfod_zoo.benchmark.columns import (
    Column,
    Row,
    box_map,
    columns_with_values,
    keypoint_map,
    latency_per_image,
    metric,
    model_name,
    published_keypoint_map,
    published_map,
    row_title,
)
from tfod_zoo.benchmark.machine import machine_facts
from tfod_zoo.benchmark.timing import timing_doubts

_PAGE = Path(__file__).parent / "page"
_BY_SIZE = (
    ("AP", "DetectionBoxes_Precision/mAP"),
    ("AP small", "DetectionBoxes_Precision/mAP (small)"),
    ("AP medium", "DetectionBoxes_Precision/mAP (medium)"),
    ("AP large", "DetectionBoxes_Precision/mAP (large)"),
    ("AR@100", "DetectionBoxes_Recall/AR@100"),
    ("AR small", "DetectionBoxes_Recall/AR@100 (small)"),
    ("AR medium", "DetectionBoxes_Recall/AR@100 (medium)"),
    ("AR large", "DetectionBoxes_Recall/AR@100 (large)"),
)


def html_report(rows: Sequence[Row], notes: Sequence[str]) -> str:
    """The page for `rows`, of any status; `notes` say how the figures were measured."""
    numbered = [(f"#{number}", row) for number, row in enumerate(rows, start=1)]
    finished = [(number, row) for number, row in numbered if row["status"] == "ok"]
    sections = [
        _section("Results", _results(numbered)),
        _section("Not measured", _not_measured(numbered)),
        _section("Doubts about timings", _doubts(finished)),
        _section("Speed and box mAP", _speed_accuracy(finished, box_map, published_map, "COCO box mAP@[.5:.95], %")),
        _section("Speed and keypoint mAP",
                 _speed_accuracy(finished, keypoint_map, published_keypoint_map, "COCO keypoint mAP (OKS), %")),
        _section("Latency of the calls", _latencies(finished)),
        _section("Measured beside published", _beside_published(finished)),
        _section("By size of the object", _by_size(finished)),
        _section("AP by class", _by_class(finished)),
        _section("How it was measured", _list(escape(note) for note in notes)),
        _section("Machine", _machines([row for _, row in finished] or rows)),
        _section("Command", _commands(rows)),
    ]
    times = sorted(row["time"] for row in rows if "time" in row)
    span = f", {escape(times[0])} to {escape(times[-1])}" if times else ""
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>tfod-zoo benchmark</title>\n<style>\n{_asset('report.css')}</style>\n</head>\n<body>\n<main>\n"
        f"<h1>Benchmark</h1>\n"
        f'<p class="faint">{len(finished)} of {len(rows)} rows measured{span}.</p>\n'
        + "".join(sections)
        + f"</main>\n<script>\n{_asset('report.js')}</script>\n</body>\n</html>\n"
    )


def _asset(name: str) -> str:
    return (_PAGE / name).read_text(encoding="utf-8")


def _section(title: str, content: str) -> str:
    """Nothing where there is nothing to show."""
    return f"<section>\n<h2>{title}</h2>\n{content}\n</section>\n" if content else ""


def _list(items: Iterable[str]) -> str:
    entries = "".join(f"<li>{item}</li>" for item in items)
    return f"<ul>{entries}</ul>" if entries else ""


def _table(caption: str, heads: Sequence[str], lines: Iterable[Sequence[Any]], texts: Sequence[str] = ()) -> str:
    """A table that sorts by a click; the first column heads its line. Floats are shown with one digit.

    A cell is a value, or (value to sort by, text to show). Columns named in `texts` are text.
    """
    kinds = [' class="text"' if head in texts else "" for head in heads]
    head = "".join(f'<th scope="col"{kind}>{escape(title)}</th>' for kind, title in zip(kinds, heads, strict=True))
    body = []
    for line in lines:
        cells = []
        for at, (kind, cell) in enumerate(zip(kinds, line, strict=True)):
            value, shown = cell if isinstance(cell, tuple) else (cell, _shown(cell))
            tag = 'th scope="row"' if at == 0 else "td"
            data = "" if value is None else escape(str(value))
            cells.append(f'<{tag}{kind} data-value="{data}">{escape(shown)}</{tag[:2]}>')
        body.append("<tr>" + "".join(cells) + "</tr>\n")
    return (
        f'<div class="wide" tabindex="0" role="region" aria-label="{escape(caption)}">'
        f'<table class="sortable"><thead><tr>{head}</tr></thead><tbody>\n{"".join(body)}</tbody></table></div>\n'
        f'<p class="faint">{escape(caption)}. A click on a column\'s head sorts.</p>'
    )


def _shown(value: Any) -> str:
    return "" if value is None else f"{value:.1f}" if isinstance(value, float) else str(value)


def _results(numbered: Sequence[tuple[str, Row]]) -> str:
    columns = columns_with_values([row for _, row in numbered])
    random = any(row["weights"] == "random" for _, row in numbered)
    warning = (
        '<p class="warn">Weights named random are untrained: the speed is real, the detections mean nothing.</p>\n'
        if random else ""
    )

    def line(number: str, row: Row) -> list[Any]:
        place = int(number[1:])
        return [(place, number), row["status"], *((column.value(row), column.shown(row)) for column in columns)]

    return warning + _table(
        "Every row of the sweep; an empty cell was not measured",
        ["row", "status", *(column.title for column in columns)],
        (line(number, row) for number, row in numbered),
        texts=("status", "model", "weights", "runtime", "precision", "canvas"),
    )


def _not_measured(numbered: Sequence[tuple[str, Row]]) -> str:
    return _list(
        f"{number} {escape(row_title(row))}: {escape(row['status'])}, {escape(row['reason'])}"
        for number, row in numbered if row["status"] != "ok"
    )


def _doubts(finished: Sequence[tuple[str, Row]]) -> str:
    return _list(
        f"<span class=warn>{number} {escape(row_title(row))}: {escape(doubt)}</span>"
        for number, row in finished for doubt in timing_doubts(row)
    )


def _speed_accuracy(
    finished: Sequence[tuple[str, Row]], accuracy: Callable[[Row], float | None],
    published: Callable[[Row], float | None], axis: str,
) -> str:
    """Latency against what was measured; where no row has that, against what was published, and the axis says so."""
    measured = any(accuracy(row) is not None for _, row in finished)
    points, crosses = [], {}
    for number, row in finished:
        value = accuracy(row) if measured else published(row)
        latency = latency_per_image(row)
        if value is None or latency is None:
            continue
        points.append(
            Point(latency, value, number, f"{number} {row_title(row)}: {latency:.1f} ms an image, {value:.1f} %")
        )
        speed, there = row["published"].get("speed_ms"), published(row)
        if speed and there is not None:
            title = f"{model_name(row)}, as published: {speed} ms, {there} %"
            crosses[model_name(row)] = Point(speed, there, "", title)
    if not points:
        return ""
    front = ", ".join(f"{point.label} ({point.x:.1f} ms, {point.y:.1f} %)" for point in pareto_front(points))
    kind = "" if measured else ", as published (not measured here)"
    picture = scatter(points, list(crosses.values()), axis + kind,
                      f"{len(points)} rows by milliseconds an image and {axis}{kind}. Pareto front: {front}.")
    legend = "Dots: measured latency and " + ("measured accuracy." if measured else "the published accuracy.")
    if crosses:
        legend += " Crosses: latency and accuracy as published, on the zoo's own hardware."
    return (
        f'<figure><div class="wide" tabindex="0" role="region" aria-label="Picture">{picture}</div>'
        f"<figcaption>{legend} Dashed: the Pareto front, no row is both faster and better: {escape(front)}."
        "</figcaption></figure>"
    )


def _latencies(finished: Sequence[tuple[str, Row]]) -> str:
    lanes = [
        (number, f"{number} {row_title(row)}: {len(row['calls_ms'])} calls, p50 {row['p50_ms']:.1f} ms, p99 "
                 f"{row['p99_ms']:.1f} ms", row["calls_ms"])
        for number, row in finished if row.get("calls_ms")
    ]
    if not lanes:
        return ""
    picture = distributions(lanes, "Histograms of the timed calls: " + "; ".join(title for _, title, _ in lanes) + ".")
    return (
        f'<figure><div class="wide" tabindex="0" role="region" aria-label="Picture">{picture}</div><figcaption>'
        "A lane a row: a histogram of its timed calls; below it the line from p1 to p99, the bar from p25 to p75 and "
        "the mark at the median. The first call and the warm-up are not among them.</figcaption></figure>"
    )


def _beside_published(finished: Sequence[tuple[str, Row]]) -> str:
    pairs: tuple[tuple[str, Callable[[Row], float | None], str], ...] = (
        ("ms an image", latency_per_image, "speed_ms"),
        ("mAP %", box_map, "box_map"),
        ("keypoint mAP %", keypoint_map, "keypoint_map"),
    )
    known = [(number, row) for number, row in finished if row["published"]]
    if not known:
        return ""

    def line(number: str, row: Row) -> list[Any]:
        cells: list[Any] = [(int(number[1:]), number), row_title(row)]
        for _, value, name in pairs:
            here, there = value(row), row["published"].get(name)
            cells += [here, there, None if here is None or there is None else here - there]
        return cells

    heads = [title for name, *_ in pairs for title in (name, f"published {name}", f"{name}: difference")]
    return _table(
        "Published figures are the zoo's own table; its milliseconds are of the zoo's own hardware, for orientation",
        ["row", "model", *heads], (line(number, row) for number, row in known), texts=("model",),
    )


def _by_size(finished: Sequence[tuple[str, Row]]) -> str:
    columns = [Column(title, metric(name)) for title, name in _BY_SIZE]
    measured = [(number, row) for number, row in finished if "metrics" in row]
    if not any(column.value(row) is not None for column in columns for _, row in measured):
        return ""
    return _table(
        "COCO's sizes: small is under 32 x 32 pixels, large over 96 x 96; empty where the data hold no such object",
        ["row", "model", *(column.title for column in columns)],
        ([(int(number[1:]), number), row_title(row), *(column.value(row) for column in columns)]
         for number, row in measured),
        texts=("model",),
    )


def _by_class(finished: Sequence[tuple[str, Row]]) -> str:
    measured = [(number, row) for number, row in finished if row.get("per_class_ap")]
    if not measured:
        return ""
    classes = dict.fromkeys(name for _, row in measured for name in row["per_class_ap"])

    def cell(row: Row, name: str) -> float | None:
        value = row["per_class_ap"].get(name, -1)
        return None if value < 0 else 100.0 * value

    return _list(f"{number} {escape(row_title(row))}" for number, row in measured) + _table(
        "AP@[.5:.95] in percent, a class a line, a row of the sweep a column; empty where the data hold no such object",
        ["class", *(number for number, _ in measured)],
        ([name, *(cell(row, name) for _, row in measured)] for name in classes),
        texts=("class",),
    )


def _machines(rows: Sequence[Row]) -> str:
    lists = []
    for facts in dict.fromkeys(tuple(machine_facts(row).items()) for row in rows):
        lists.append("<dl>" + "".join(f"<dt>{escape(k)}</dt><dd>{escape(v)}</dd>" for k, v in facts) + "</dl>")
    return "\n".join(lists)


def _commands(rows: Sequence[Row]) -> str:
    return "".join(f"<pre>{escape(text)}</pre>" for text in dict.fromkeys(row.get("command") for row in rows) if text)
