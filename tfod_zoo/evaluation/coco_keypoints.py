"""COCO keypoint metrics (OKS) of a detector, a class at a time, under TFOD's names (spec: pipeline_and_training §8.5).

pycocotools decides every number; what is done here is what goes before it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from tfod_zoo.config.recipes import DEFAULT_SIGMA, PERSON_KEYPOINTS
from tfod_zoo.evaluation.annotations import EvaluationError, object_areas, run_cocoeval, xywh

if TYPE_CHECKING:
    from tfod_zoo.config.label_map import LabelMap, LabelMapItem

# TFOD's names in the order of pycocotools' `COCOeval.stats` for keypoints. Those of the recalls are borrowed from
# boxes: keypoint recall is always over 20 detections an image, and AR@1, AR@10 and AR@100 are what COCO calls AR
# (over OKS .50:.95), AR at OKS .50 and AR at OKS .75; (medium) and (large) are over OKS .50:.95 again.
KEYPOINT_METRICS = (
    "Precision/mAP",
    "Precision/mAP@.50IOU",
    "Precision/mAP@.75IOU",
    "Precision/mAP (medium)",
    "Precision/mAP (large)",
    "Recall/AR@1",
    "Recall/AR@10",
    "Recall/AR@100",
    "Recall/AR@100 (medium)",
    "Recall/AR@100 (large)",
)
RECALL_NOTE = (
    "Keypoints_Recall keeps TFOD's names: AR@1 is COCO's AR (OKS .50:.95), AR@10 is AR at OKS .50, AR@100 at OKS .75."
)

# How far annotators differ on each keypoint, in units of the object's scale; COCO's, as in the published configs.
COCO_SIGMAS = {label: sigma for label, _, sigma in PERSON_KEYPOINTS}

_MAX_DETECTIONS = 20  # an image; pycocotools' own for keypoints


def keypoint_metric_name(metric: str, category: str) -> str:
    """TFOD's key of one of `KEYPOINT_METRICS` for a class."""
    return f"Keypoints_{metric} ByCategory/{category}"


@dataclass(frozen=True)
class KeypointClass:
    """A class whose keypoints are measured.

    Attributes:
        category_id: its label-map id.
        name: as metrics show it.
        ids: its keypoints' places in ground truth and in detections, ascending.
        sigmas: one for each of them.
    """

    category_id: int
    name: str
    ids: tuple[int, ...]
    sigmas: tuple[float, ...]


def keypoint_classes(eval_config: Any, label_map: LabelMap) -> tuple[KeypointClass, ...]:
    """The classes that `eval_config.parameterized_metric` names, or every class of the label map that has keypoints.

    Sigmas are the config's `keypoint_label_to_sigmas`; without any, COCO's where all labels are COCO's, else 0.05.

    Raises:
        EvaluationError: a class that the label map does not have or that has no keypoints there, named twice, a
            keypoint without a sigma, or one that is not above 0.
    """
    blocks = [block.coco_keypoint_metrics for block in eval_config.parameterized_metric]
    if not blocks:
        return tuple(_keypoint_class(item, {}, "") for item in label_map.items if item.keypoints)
    classes: list[KeypointClass] = []
    for block in blocks:
        where = f'eval_config.parameterized_metric.coco_keypoint_metrics, class_label "{block.class_label}"'
        item = next((item for item in label_map.items if item.id == label_map.id_of(block.class_label)), None)
        if item is None or not item.keypoints:
            lack = "has no keypoints in the label map" if item else "is no class of the label map"
            raise EvaluationError(f"{where}: it {lack}; give the data's label map, with keypoints, or another class.")
        if any(known.category_id == item.id for known in classes):
            raise EvaluationError(f"{where}: the class is named twice; keep one of the two.")
        classes.append(_keypoint_class(item, dict(block.keypoint_label_to_sigmas), where))
    return tuple(classes)


def _keypoint_class(item: LabelMapItem, given: Mapping[str, float], where: str) -> KeypointClass:
    keypoints = sorted(item.keypoints)
    labels = [label for _, label in keypoints]
    if given:
        # TFOD took 0 for a missing one, and divided by it.
        wrong = [label for label in labels if not given.get(label, 0.0) > 0]
        if wrong:
            raise EvaluationError(
                f"{where}: keypoint_label_to_sigmas has no number above 0 for {', '.join(wrong)}; every keypoint "
                "of the class in the label map needs one."
            )
        # A config holds float32; the shortest decimal of it is the number that was written.
        sigmas = tuple(float(str(np.float32(given[label]))) for label in labels)
    elif all(label in COCO_SIGMAS for label in labels):
        sigmas = tuple(COCO_SIGMAS[label] for label in labels)
    else:
        sigmas = (DEFAULT_SIGMA,) * len(labels)
    return KeypointClass(item.id, item.title, tuple(id for id, _ in keypoints), sigmas)


@dataclass
class KeypointCollector:
    """Ground truth and detections of one class so far, as COCO annotations in original pixels.

    What pycocotools would not look at is not kept: detections beyond the best 20 of an image.
    """

    of: KeypointClass
    num_labelled: int = 0
    truths: list[dict[str, Any]] = field(default_factory=list)
    found: list[dict[str, Any]] = field(default_factory=list)

    def check_sizes(self, in_groundtruth: int, in_detections: int) -> None:
        """Raises `EvaluationError` where ground truth or detections have no place for the class's keypoints."""
        for what, count, advice in (
            ("the data have", in_groundtruth, "set eval_input_reader's num_keypoints to the label map's number"),
            ("the model has", in_detections, "give the label map that the model was trained with"),
        ):
            if self.of.ids[-1] >= count:
                raise EvaluationError(
                    f'The label map gives class "{self.of.name}" a keypoint of id {self.of.ids[-1]}, but {what} '
                    f"{count} keypoints (ids from 0); {advice}."
                )

    def add_image(
        self,
        image_id: int,
        truth: dict[str, np.ndarray],
        detections: dict[str, np.ndarray],
        *,
        scale_hw: np.ndarray,
        original_hw: np.ndarray,
    ) -> None:
        """Adds one image's rows of both dicts, without their padding; `scale_hw` takes ground truth to pixels.

        Objects of the class without a labelled keypoint count as COCO has it: neither found nor missed.
        """
        boxes = xywh(truth["boxes"], scale_hw)
        areas = object_areas(truth, boxes)
        for row in np.flatnonzero(truth["classes"] == self.of.category_id - 1):
            points = truth["keypoints"][row, self.of.ids]
            labelled = np.isfinite(points).all(axis=-1)
            self.num_labelled += int(labelled.sum())
            self.truths.append(
                self._annotation(image_id, np.where(labelled[:, None], points, 0.0) * scale_hw, 2 * labelled)
                | {"bbox": boxes[row].tolist(), "area": float(areas[row]), "iscrowd": int(truth["is_crowd"][row]),
                   "num_keypoints": int(labelled.sum())}
            )
        candidates = np.flatnonzero(detections["detection_classes"] == self.of.category_id - 1)
        best = np.argsort(-detections["detection_scores"][candidates], kind="stable")[:_MAX_DETECTIONS]
        for row in candidates[best]:
            points = detections["detection_keypoints"][row, self.of.ids].astype(np.float64) * original_hw
            # The size of a detection is that of its keypoints' extent, as pycocotools has it.
            height, width = np.ptp(points, axis=0)
            self.found.append(
                self._annotation(image_id, points, np.full(len(points), 2))
                | {"area": float(height * width), "iscrowd": 0, "score": float(detections["detection_scores"][row])}
            )

    def _annotation(self, image_id: int, points: np.ndarray, visibility: np.ndarray) -> dict[str, Any]:
        """`points` [K, 2] (y, x) in pixels -> COCO's flat (x, y, visibility)."""
        flat = np.stack([points[:, 1], points[:, 0], visibility], axis=1).astype(np.float64).reshape(-1)
        return {"image_id": image_id, "category_id": self.of.category_id, "keypoints": flat}

    def metrics(self, num_images: int) -> dict[str, float]:
        """The ten metrics in 0..1, -1 where the data hold no object of that size; none where nothing is labelled."""
        if not self.num_labelled:
            return {}
        categories = [{"id": self.of.category_id, "name": self.of.name}]
        sigmas = np.asarray(self.of.sigmas)
        stats = run_cocoeval(num_images, categories, self.truths, self.found, "keypoints", sigmas).stats
        names = (keypoint_metric_name(metric, self.of.name) for metric in KEYPOINT_METRICS)
        return {name: float(value) for name, value in zip(names, stats, strict=True)}
