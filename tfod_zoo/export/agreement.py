"""How far a detector in another runtime or precision is from the one that it was made of, and how far it may be."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from tfod_zoo.certification.comparison import match

CERTAIN_SCORE = 0.3  # what a user would draw
_LEAST_OUTPUT = 1e-3  # logits, cells or standard deviations: what is smaller changes no detection
_TIE = 2e-2  # as far as scores may move
_SAME_OBJECT_IOU = 0.5  # as COCO's most lenient average precision has it
_SAME_PLACE = 1e-3  # of the image's sides
QUANTIZED = ("dynamic", "int8")  # precisions whose raw outputs say little


@dataclasses.dataclass(frozen=True)
class Bound:
    """What an export must keep.

    Attributes:
      score: largest difference of the scores of matched detections.
      network: largest root mean square difference of a network's output, as a share of its root mean square; None for
        precisions that are judged by their detections alone.
      matched: least share of the detections over `CERTAIN_SCORE` that are found again.
    """

    score: float
    network: float | None
    matched: float = 0.99


# float32 rounds through a hundred layers in another order; bfloat16 has 8 bits of mantissa, float16 weights 11.
BOUNDS = {
    "float32": Bound(1e-3, 1e-3),
    "float16": Bound(2e-2, 2e-2),
    "bfloat16": Bound(2e-2, 1e-1),
    **dict.fromkeys(QUANTIZED, Bound(2e-2, None)),
}


@dataclasses.dataclass
class Agreement:
    """Adds up over images.

    Attributes:
      images, detections: compared; detections are the model's over `CERTAIN_SCORE` that clearly beat the last of its
        list.
      matched: those that the other has too: same class, IoU at least one half.
      score_difference: largest, over the matched ones.
      network_difference: largest over outputs and images, see `Bound.network`.
    """

    images: int = 0
    detections: int = 0
    matched: int = 0
    score_difference: float = 0.0
    network_difference: float = 0.0

    def add(self, model: dict[str, np.ndarray], other: dict[str, np.ndarray]) -> None:
        """One image's detections of both, with a leading axis of 1."""
        keys = ("detection_scores", "detection_boxes", "detection_classes")
        first, second = ({key: np.asarray(side[key][0], np.float64) for key in keys} for side in (model, other))
        # Scores this near the end of the list may give way to others that are as good.
        end = first["detection_scores"].min() + _TIE if first["detection_scores"].size else 0.0
        certain = np.flatnonzero(first["detection_scores"] > max(CERTAIN_SCORE, end))
        pairs, _ = match(first, second, certain)
        boxes, theirs = first["detection_boxes"][pairs[:, 0]], second["detection_boxes"][pairs[:, 1]]
        # Boxes that the image's edge leaves without area have no overlap.
        same = (_iou(boxes, theirs) >= _SAME_OBJECT_IOU) | (np.abs(boxes - theirs).max(-1) <= _SAME_PLACE)
        scores = np.abs(first["detection_scores"][pairs[:, 0]] - second["detection_scores"][pairs[:, 1]])[same]
        self.images += 1
        self.detections += len(certain)
        self.matched += int(same.sum())
        self.score_difference = max(self.score_difference, float(scores.max(initial=0.0)))

    def add_network(self, ours: Sequence[Any], theirs: Sequence[Any]) -> None:
        """The outputs of one network for the same input."""
        for one, other in zip(ours, theirs, strict=True):
            one, other = np.asarray(one, np.float64), np.asarray(other, np.float64)
            error = float(np.sqrt(np.mean((one - other) ** 2))) if one.shape == other.shape else float("inf")
            size = float(np.sqrt(np.mean(one**2)))
            # NaN, which max() would pass over, is as far as can be.
            share = error / max(size, _LEAST_OUTPUT)
            self.network_difference = max(self.network_difference, share if np.isfinite(share) else float("inf"))

    def outputs_beyond(self, precision: str) -> bool:
        """Whether the networks alone are over their bound."""
        bound = BOUNDS[precision].network
        return bound is not None and not self.network_difference <= bound

    def beyond(self, precision: str) -> str:
        """What is over the bound, in words; empty where nothing is."""
        bound = BOUNDS[precision]
        said = []
        if self.outputs_beyond(precision):
            said.append(f"an output differs by {self.network_difference:.2g} of its size ({bound.network:g})")
        if self.score_difference > bound.score:
            said.append(f"scores differ by up to {self.score_difference:.2g} ({bound.score:g})")
        if bound.network is None and not self.detections:
            said.append(f"the model detects nothing over {CERTAIN_SCORE} on the images to judge it by")
        if self.matched < bound.matched * self.detections:
            said.append(f"{self.matched} of {self.detections} detections are found again ({bound.matched:.0%})")
        return ", ".join(said)


def _iou(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Of boxes yxyx, row by row."""
    sides = np.minimum(first[:, 2:], second[:, 2:]) - np.maximum(first[:, :2], second[:, :2])
    overlap = np.clip(sides, 0, None).prod(-1)
    areas = [(boxes[:, 2:] - boxes[:, :2]).prod(-1) for boxes in (first, second)]
    union = areas[0] + areas[1] - overlap
    return overlap / np.where(union > 0, union, 1)
