"""The pictures of the HTML report, as SVG text: speed against accuracy, and how the calls' latencies are distributed.

Colours are the page's CSS classes, so that they follow its light and dark scheme.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape

import numpy as np

_WIDTH, _HEIGHT = 760, 460
_LEFT, _RIGHT, _TOP, _BOTTOM = 56, 20, 16, 52
_LANE, _BINS = 34, 60
_LABEL_HEIGHT, _LABEL_WIDTH = 14, 9  # of one letter, in the units of the picture


@dataclass(frozen=True)
class Point:
    """A row in the picture: `x` milliseconds, `y` percent, a short `label` beside it, a `title` on pointing at it."""

    x: float
    y: float
    label: str
    title: str


def pareto_front(points: Sequence[Point]) -> list[Point]:
    """The points that no other beats in both latency and accuracy, from the fastest on."""
    front: list[Point] = []
    for point in sorted(points, key=lambda point: (point.x, -point.y)):
        if not front or point.y > front[-1].y:
            front.append(point)
    return front


def scatter(measured: Sequence[Point], published: Sequence[Point], y_label: str, description: str) -> str:
    """SVG: `measured` as dots with their Pareto front, `published` as crosses; latency on a logarithmic axis."""
    every = [*measured, *published]
    ticks_x = _log_ticks([point.x for point in every])
    ticks_y = _linear_ticks([point.y for point in every])
    low, high = math.log(ticks_x[0]), math.log(ticks_x[-1])

    def place(point: Point) -> tuple[float, float]:
        right = _LEFT + (math.log(point.x) - low) / (high - low) * (_WIDTH - _LEFT - _RIGHT)
        up = (point.y - ticks_y[0]) / (ticks_y[-1] - ticks_y[0])
        return right, _HEIGHT - _BOTTOM - up * (_HEIGHT - _TOP - _BOTTOM)

    parts = [_open(_HEIGHT, description)]
    parts += _vertical_grid(ticks_x, low, high, _HEIGHT - _BOTTOM)
    for tick in ticks_y:
        _, y = place(Point(ticks_x[0], tick, "", ""))
        parts.append(f'<line class="grid" x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(f'<text class="tick" x="{_LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{tick:g}</text>')
    parts.append(_x_title("milliseconds an image (median call / batch size), logarithmic", _HEIGHT))
    parts.append(
        f'<text class="axis" transform="translate(14 {(_HEIGHT - _BOTTOM) / 2 + _TOP}) rotate(-90)" '
        f'text-anchor="middle">{escape(y_label)}</text>'
    )
    front = pareto_front(measured)
    if len(front) > 1:
        # A staircase: between two points of the front, nothing faster than the second is better than the first.
        path, last = [], None
        for point in front:
            x, y = place(point)
            path.append(f"H{x:.1f} V{y:.1f}" if last else f"M{x:.1f} {y:.1f}")
            last = point
        parts.append(f'<path class="front" d="{" ".join(path)}"/>')
    taken: list[tuple[float, float, float, float]] = []
    for point in published:
        x, y = place(point)
        cross = f"M{x - 4:.1f} {y - 4:.1f} l8 8 m0 -8 l-8 8"
        parts.append(f'<g><title>{escape(point.title)}</title><path class="published" d="{cross}"/></g>')
        taken.append((x - 6, y - 6, x + 6, y + 6))
    spots = [place(point) for point in measured]
    taken += [(x - 6, y - 6, x + 6, y + 6) for x, y in spots]
    for point, (x, y) in zip(measured, spots, strict=True):
        kind = "point best" if point in front else "point"
        parts.append(f'<g><title>{escape(point.title)}</title><circle class="{kind}" cx="{x:.1f}" cy="{y:.1f}" r="6"/>')
        text_x, text_y, box = _label_place(x, y, _LABEL_WIDTH * len(point.label), taken)
        taken.append(box)
        parts.append(f'<text class="label" x="{text_x:.1f}" y="{text_y:.1f}">{escape(point.label)}</text></g>')
    return "".join([*parts, "</svg>"])


def distributions(lanes: Sequence[tuple[str, str, Sequence[float]]], description: str) -> str:
    """SVG: a lane each (label, title, milliseconds of its calls): a histogram, quartiles and median, p1 to p99 as line.

    All lanes share one logarithmic axis and their bins.
    """
    values = [np.asarray(calls, np.float64) for _, _, calls in lanes]
    ticks = _log_ticks([value for calls in values for value in (calls.min(), calls.max())])
    low, high = math.log(ticks[0]), math.log(ticks[-1])
    height = _TOP + _LANE * len(lanes) + _BOTTOM
    inner = _WIDTH - _LEFT - _RIGHT

    def place(ms: float) -> float:
        return _LEFT + (math.log(ms) - low) / (high - low) * inner

    parts = [_open(height, description)]
    parts += _vertical_grid(ticks, low, high, height - _BOTTOM)
    for at, ((label, title, _), calls) in enumerate(zip(lanes, values, strict=True)):
        base = _TOP + _LANE * (at + 1) - 8
        counts, edges = np.histogram(np.log(calls), bins=_BINS, range=(low, high))
        bars = [
            f"M{_LEFT + (edge - low) / (high - low) * inner:.1f} {base} v-{count / counts.max() * (_LANE - 12):.1f} "
            f"h{inner / _BINS:.1f} V{base}z"
            for count, edge in zip(counts, edges, strict=False) if count
        ]
        p1, p25, p50, p75, p99 = (place(value) for value in np.percentile(calls, [1, 25, 50, 75, 99]))
        parts.append(
            f'<g><title>{escape(title)}</title><text class="tick" x="{_LEFT - 8}" y="{base}" text-anchor="end">'
            f'{escape(label)}</text><path class="bars" d="{" ".join(bars)}"/>'
            f'<line class="whisker" x1="{p1:.1f}" x2="{p99:.1f}" y1="{base + 3}" y2="{base + 3}"/>'
            f'<line class="box" x1="{p25:.1f}" x2="{p75:.1f}" y1="{base + 3}" y2="{base + 3}"/>'
            f'<line class="median" x1="{p50:.1f}" x2="{p50:.1f}" y1="{base - 4}" y2="{base + 7}"/></g>'
        )
    parts.append(_x_title("milliseconds a call, logarithmic", height))
    return "".join([*parts, "</svg>"])


def _open(height: float, description: str) -> str:
    return f'<svg viewBox="0 0 {_WIDTH} {height}" role="img" aria-label="{escape(description)}">'


def _x_title(text: str, height: float) -> str:
    middle = (_LEFT + _WIDTH - _RIGHT) / 2
    return f'<text class="axis" x="{middle}" y="{height - 10}" text-anchor="middle">{text}</text>'


def _vertical_grid(ticks: Iterable[float], low: float, high: float, bottom: float) -> list[str]:
    parts = []
    for tick in ticks:
        x = _LEFT + (math.log(tick) - low) / (high - low) * (_WIDTH - _LEFT - _RIGHT)
        parts.append(f'<line class="grid" x1="{x:.1f}" x2="{x:.1f}" y1="{_TOP}" y2="{bottom}"/>')
        parts.append(f'<text class="tick" x="{x:.1f}" y="{bottom + 18}" text-anchor="middle">{tick:g}</text>')
    return parts


def _label_place(
    x: float, y: float, width: float, taken: Sequence[tuple[float, float, float, float]]
) -> tuple[float, float, tuple[float, float, float, float]]:
    """The baseline's start and the box of a label near (x, y): the first place around that covers nothing."""
    around = [(9, -6), (9, 16), (-9 - width, -6), (-9 - width, 16), (-width / 2, -14), (-width / 2, 26)]
    boxes = []
    for right, down in around:
        left, baseline = x + right, y + down
        box = (left, baseline - _LABEL_HEIGHT + 3, left + width, baseline + 3)
        inside = box[0] >= _LEFT and box[2] <= _WIDTH and box[1] >= 0 and box[3] <= _HEIGHT - _BOTTOM
        overlaps = sum(_overlap(box, other) for other in taken)
        boxes.append((overlaps if inside else math.inf, (left, baseline, box)))
    return min(boxes, key=lambda pair: pair[0])[1]


def _overlap(one: tuple[float, float, float, float], other: tuple[float, float, float, float]) -> float:
    width = min(one[2], other[2]) - max(one[0], other[0])
    height = min(one[3], other[3]) - max(one[1], other[1])
    return max(0.0, width) * max(0.0, height)


def _log_ticks(values: Sequence[float]) -> list[float]:
    """1, 2, 5, 10, ... around the values; at least two."""
    low, high = min(values), max(values)
    every = [step * 10.0**power for power in range(math.floor(math.log10(low)) - 1, math.ceil(math.log10(high)) + 2)
             for step in (1, 2, 5)]
    first = max(index for index, tick in enumerate(every) if tick <= low)
    last = min(index for index, tick in enumerate(every) if tick >= high)
    return every[first : max(last, first + 1) + 1]


def _linear_ticks(values: Sequence[float]) -> list[float]:
    """Round numbers around the values, some five of them."""
    low, high = min(values), max(values)
    rough = max(high - low, 1e-3) / 4
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough)
    first = math.floor(low / step)
    last = max(math.ceil(high / step), first + 1)
    return [round(index * step, 10) for index in range(first, last + 1)]
