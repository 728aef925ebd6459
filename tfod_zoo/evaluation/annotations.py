"""Annotations for pycocotools: in memory, numbered, in pixels of the original image."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Sequence
from typing import Any

import numpy as np
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from tfod_zoo.errors import ZooError


class EvaluationError(ZooError):
    """The data, the label map and the model do not fit together, so no metric would mean anything."""


def run_cocoeval(
    num_images: int,
    categories: Sequence[dict[str, Any]],
    truths: list[dict[str, Any]],
    detections: list[dict[str, Any]],
    kind: str,
    sigmas: np.ndarray | None = None,
) -> COCOeval:
    """pycocotools' evaluator after its run, without what it prints.

    Args:
        num_images: annotations' image_id are 0 to num_images - 1.
        categories: dicts of id and name.
        truths, detections: COCO annotations; each gets an `id`.
        kind: "bbox" or "keypoints".
        sigmas: of the keypoints, in place of COCO's.
    """
    images = [{"id": index} for index in range(num_images)]
    with contextlib.redirect_stdout(io.StringIO()):
        evaluator = COCOeval(_index(images, categories, truths), _index(images, categories, detections), kind)
        if sigmas is not None:
            evaluator.params.kpt_oks_sigmas = sigmas
        evaluator.evaluate()
        evaluator.accumulate()
        evaluator.summarize()
    return evaluator


def _index(images: list[dict], categories: Sequence[dict], annotations: list[dict]) -> COCO:
    """A COCO index in memory; numbers the annotations in place (COCO's validation set has half a million detections).

    Ids start at 1, because pycocotools reads a matched id of 0 as no match.
    """
    for number, annotation in enumerate(annotations, start=1):
        annotation["id"] = number
    coco = COCO()
    coco.dataset = {"images": images, "categories": list(categories), "annotations": annotations}
    coco.createIndex()
    return coco


def xywh(boxes: np.ndarray, scale_hw: np.ndarray) -> np.ndarray:
    """[N, 4] normalised (ymin, xmin, ymax, xmax) -> [N, 4] float64 (x, y, width, height) in pixels."""
    ymin, xmin, ymax, xmax = np.asarray(boxes, np.float64).reshape(-1, 4).T
    height, width = scale_hw
    return np.stack([xmin * width, ymin * height, (xmax - xmin) * width, (ymax - ymin) * height], axis=1)


def object_areas(truth: dict[str, np.ndarray], boxes: np.ndarray) -> np.ndarray:
    """[N] sizes in px^2: the annotation's own area where it is known, else that of its box (x, y, width, height)."""
    of_boxes = boxes[:, 2] * boxes[:, 3]
    if "area" not in truth:
        return of_boxes
    own = truth["area"][: len(boxes)]
    return np.where(own > 0, own, of_boxes)
