"""Which detections matched on which image: what a confidence interval of mAP over images is drawn from.

pycocotools matches; here its matches are kept, small, and added up again for any weighting of the images. With equal
weights the sum is pycocotools' own mAP.
"""

from __future__ import annotations

import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tfod_zoo.errors import ZooError

# pycocotools' own, of which mAP is the mean: IoU thresholds .50:.95 and 101 recalls.
_THRESHOLDS = 10
_RECALLS = np.linspace(0.0, 1.0, 101)
_BITS = (1 << np.arange(_THRESHOLDS)).astype(np.uint16)

SAMPLES = 300
_SEED = 2017


@dataclass(frozen=True)
class ImageMatches:
    """The matches of one model on one data set, for objects of every size and at most 100 detections an image.

    Attributes:
        num_images: images are 0 to num_images - 1.
        image, category, score: [D] of each detection, in pycocotools' order: by category, then image, then score.
        matched, ignored: uint16 [D]; bit t is set where that is so at IoU threshold t.
        truth_image, truth_category, truths: [G] how many objects of a category count on an image.
    """

    num_images: int
    image: np.ndarray
    category: np.ndarray
    score: np.ndarray
    matched: np.ndarray
    ignored: np.ndarray
    truth_image: np.ndarray
    truth_category: np.ndarray
    truths: np.ndarray

    def save(self, path: Path) -> None:
        """Writes a compressed .npz: some megabytes for COCO's 5000 validation images."""
        path.parent.mkdir(parents=True, exist_ok=True)
        np.savez_compressed(path, **self.__dict__)

    @classmethod
    def load(cls, path: Path) -> ImageMatches:
        """What `save` wrote.

        Raises:
            ZooError: the file cannot be read as such.
        """
        try:
            with np.load(path) as arrays:
                values = {name: arrays[name] for name in cls.__annotations__}
            return cls(**values | {"num_images": int(values["num_images"])})
        except (OSError, EOFError, ValueError, KeyError, zipfile.BadZipFile) as error:
            raise ZooError(
                f"{path} does not hold the matches of a benchmark row ({error}); measure the row again."
            ) from error

    def same_images(self, other: ImageMatches) -> bool:
        """Whether both were measured on the same objects of the same images."""
        return self.num_images == other.num_images and all(
            np.array_equal(getattr(self, name), getattr(other, name))
            for name in ("truth_image", "truth_category", "truths")
        )


def matches_of(evaluator: Any) -> ImageMatches:
    """What pycocotools' evaluator of boxes matched; `evaluator.evaluate()` has run."""
    areas, images = len(evaluator.params.areaRng), len(evaluator.params.imgIds)
    found: list[tuple[np.ndarray, ...]] = []
    truths: list[tuple[int, int, int]] = []
    for at, category in enumerate(evaluator.params.catIds):
        # evalImgs lies by category, area range, image; the first range is every size.
        start = at * areas * images
        for image, result in enumerate(evaluator.evalImgs[start : start + images]):
            if result is None:
                continue
            count = len(result["dtScores"])
            if count:
                found.append((
                    np.full(count, image), np.full(count, category), np.asarray(result["dtScores"]),
                    _as_bits(result["dtMatches"]), _as_bits(result["dtIgnore"]),
                ))
            counting = int(np.count_nonzero(np.asarray(result["gtIgnore"]) == 0))
            if counting:
                truths.append((image, category, counting))
    columns = [np.concatenate(column) for column in zip(*found, strict=True)] if found else [np.zeros(0)] * 5
    types = (np.int32, np.int32, np.float64, np.uint16, np.uint16)
    of_truths = np.asarray(truths, np.int32).reshape(-1, 3)
    return ImageMatches(
        images, *(column.astype(kind) for column, kind in zip(columns, types, strict=True)), *of_truths.T
    )


def _as_bits(flags: np.ndarray) -> np.ndarray:
    """[thresholds, D] (an id or a flag; 0 = no) -> uint16 [D]."""
    return ((np.asarray(flags) != 0) * _BITS[:, None]).sum(axis=0).astype(np.uint16)


class WeightedMap:
    """mAP of `matches` for any weighting of its images; what does not depend on the weights is worked out once."""

    def __init__(self, matches: ImageMatches):
        self._categories = []
        for category in np.unique(matches.truth_category):
            of = matches.truth_category == category
            self._categories.append((matches.truth_image[of], matches.truths[of], _Ranking(matches, category)))

    def __call__(self, weights: np.ndarray) -> float:
        """mAP in 0..1 where image i counts `weights[i]` times; NaN where no object counts."""
        precisions = [
            ranking.average_precision(weights, total)
            for truth_image, truths, ranking in self._categories
            if (total := float((weights[truth_image] * truths).sum())) > 0
        ]
        return float(np.mean(precisions)) if precisions else float("nan")


class _Ranking:
    """One category's detections by falling score."""

    def __init__(self, matches: ImageMatches, category: int):
        rows = np.flatnonzero(matches.category == category)
        # Stable, as pycocotools sorts: equal scores stay in the order of their images.
        rows = rows[np.argsort(-matches.score[rows], kind="mergesort")]
        counts = (matches.ignored[rows] & _BITS[:, None]) == 0
        right = counts & ((matches.matched[rows] & _BITS[:, None]) != 0)
        self._image = matches.image[rows]
        # Where a detection is ignored at one threshold, it mostly is at all: one running sum serves them all then.
        self._counts = counts[:1] if (counts == counts[:1]).all() else counts
        # Precision falls between two right detections and recall stands still: only the right ones matter.
        self._right = [np.flatnonzero(flags) for flags in right]

    def average_precision(self, weights: np.ndarray, total: float) -> float:
        """Mean over thresholds and recalls of the interpolated precision, where `total` objects count."""
        weight = weights[self._image]
        seen = np.cumsum(self._counts * weight, axis=1)
        summed = 0.0
        for threshold, right in enumerate(self._right):
            if not len(right):
                continue
            found = np.cumsum(weight[right])
            precision = found / (seen[threshold % len(seen)][right] + np.spacing(1))
            precision = np.maximum.accumulate(precision[::-1])[::-1]
            at = np.searchsorted(found / total, _RECALLS, side="left")
            summed += precision[at[at < len(right)]].sum()
        return float(summed) / (_THRESHOLDS * len(_RECALLS))


def map_difference(
    before: ImageMatches, after: ImageMatches, *, samples: int = SAMPLES
) -> tuple[float, float, float]:
    """mAP of `after` less that of `before`, with the ends of its 95 % interval, as fractions.

    A paired bootstrap: the images are drawn with replacement, and both are measured on the same draw, so that images
    which are hard for both widen nothing. The seed is fixed: the same rows give the same interval.

    Raises:
        ZooError: the two are not of the same images.
    """
    if not before.same_images(after):
        raise ZooError("The two rows were not measured on the same images, so that their mAP cannot be paired.")
    first, second = WeightedMap(before), WeightedMap(after)
    random = np.random.default_rng(_SEED)
    images = before.num_images
    drawn = [np.bincount(random.integers(0, images, images), minlength=images) for _ in range(samples)]
    differences = [second(weights) - first(weights) for weights in drawn]
    low, high = np.nanpercentile(differences, [2.5, 97.5])
    every = np.ones(images)
    return second(every) - first(every), float(low), float(high)
