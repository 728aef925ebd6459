"""Two detectors' outputs on the same image, matched one to one whatever their order.

Detections of equal scores may come in any order, and the last ones of a list may be others of the same score. So the
rows are matched (same class, nearest score, box and keypoints) before they are compared.
"""

from __future__ import annotations

import dataclasses

import numpy as np

# float32 through a hundred layers on another machine's kernels; boxes and keypoints are fractions of the image.
TOLERANCE = 1e-3
# What is less likely than this is not compared: a detector's noise.
FAINT_SCORE = 0.01

# Rows of these are proposals or places of proposals in a list, whose order is nobody's promise.
_NOT_COMPARED = ("raw_", "detection_anchor_indices")
_GEOMETRY = ("detection_boxes", "detection_keypoints")


@dataclasses.dataclass
class OutputDifference:
    """How far one output of two models is apart.

    Attributes:
      rows: detections (or numbers) that were compared, over all images.
      largest, mean: absolute difference, of values above 1 relative to them.
    """

    rows: int = 0
    largest: float = 0.0
    mean: float = 0.0

    def add(self, difference: np.ndarray) -> None:
        if difference.size == 0:
            return
        rows = difference.shape[0]
        self.mean = (self.mean * self.rows + float(difference.mean()) * rows) / (self.rows + rows)
        self.rows += rows
        self.largest = max(self.largest, float(difference.max()))

    @property
    def agrees(self) -> bool:
        return bool(self.largest <= TOLERANCE)


def compare_outputs(
    shipped: dict[str, np.ndarray], ours: dict[str, np.ndarray], differences: dict[str, OutputDifference]
) -> int:
    """Adds one image's differences of every output that both have.

    Args:
      shipped, ours: one image's detections, each array with a leading axis of 1.

    Returns:
      Detections of the shipped model that ours does not have.
    """
    common = [key for key in shipped if key in ours and not key.startswith(_NOT_COMPARED)]
    rows = [key for key in common if shipped[key].ndim > 1 and shipped[key].shape[1:] == ours[key].shape[1:]]
    first, second = ({key: np.asarray(source[key][0], np.float64) for key in rows} for source in (shipped, ours))
    counted = _decisive(first["detection_scores"])
    pairs, unmatched = match(first, second, counted)
    for key in rows:
        difference = np.abs(first[key][pairs[:, 0]] - second[key][pairs[:, 1]])
        scale = np.maximum(1.0, np.abs(first[key][pairs[:, 0]]))
        # NaN = a keypoint that both leave out.
        both_nan = np.isnan(first[key][pairs[:, 0]]) & np.isnan(second[key][pairs[:, 1]])
        relative = np.where(both_nan, 0.0, difference / scale)
        differences.setdefault(key, OutputDifference()).add(np.where(np.isnan(relative), np.inf, relative))
    if "num_detections" in common:
        number = np.abs(np.ravel(shipped["num_detections"]) - np.ravel(ours["num_detections"])).astype(np.float64)
        differences.setdefault("num_detections", OutputDifference()).add(number)
    return unmatched


def _decisive(scores: np.ndarray) -> np.ndarray:
    """Indices of the rows that both must have: not faint, and clear of the list's end, where others may tie."""
    last = scores.min() if scores.size else 0.0
    return np.flatnonzero((scores >= FAINT_SCORE) & ((scores > last + TOLERANCE) | (scores.max() - last <= TOLERANCE)))


def match(
    first: dict[str, np.ndarray], second: dict[str, np.ndarray], counted: np.ndarray
) -> tuple[np.ndarray, int]:
    """Pairs (row of `first`, row of `second`) for the counted rows, nearest first, each row once.

    Returns:
      The pairs [P, 2], and how many counted rows found no partner of their class.
    """
    cost = np.abs(first["detection_scores"][counted][:, None] - second["detection_scores"][None])
    for key in _GEOMETRY:
        if key in first:
            size = int(np.prod(first[key].shape[1:]))  # not -1, which numpy cannot tell where there are no rows
            here = np.nan_to_num(first[key][counted].reshape(-1, size))
            there = np.nan_to_num(second[key].reshape(-1, size))
            cost = cost + np.abs(here[:, None] - there[None]).mean(-1)
    if "detection_classes" in first:
        same = first["detection_classes"][counted][:, None] == second["detection_classes"][None]
        cost = np.where(same, cost, np.inf)
    pairs, used_first, used_second = [], set(), set()
    for flat in np.argsort(cost, axis=None, kind="stable"):
        row, column = divmod(int(flat), cost.shape[1])
        if not np.isfinite(cost[row, column]):
            break
        if row not in used_first and column not in used_second:
            used_first.add(row)
            used_second.add(column)
            pairs.append((int(counted[row]), column))
    return np.array(pairs, np.int64).reshape(-1, 2), len(counted) - len(pairs)
