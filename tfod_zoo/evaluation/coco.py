"""COCO metrics of a detector over a data set, under the names that TFOD gave them (spec: pipeline_and_training §8).

pycocotools decides every number. What is done here is what goes before it: run the detector in batches of one static
shape, bring ground truth and detections into the frame of the original image in pixels, and cut the padding. Keypoints
are collected in the same pass, see `coco_keypoints`.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import tensorflow as tf

from tfod_zoo.evaluation.annotations import EvaluationError, object_areas, run_cocoeval, xywh
from tfod_zoo.evaluation.coco_keypoints import KeypointCollector, keypoint_classes

if TYPE_CHECKING:
    from pycocotools.cocoeval import COCOeval

    from tfod_zoo.config.label_map import LabelMap

_LOG = logging.getLogger(__name__)

# TFOD's metric names, in the order of pycocotools' `COCOeval.stats`.
METRIC_NAMES = (
    "DetectionBoxes_Precision/mAP",
    "DetectionBoxes_Precision/mAP@.50IOU",
    "DetectionBoxes_Precision/mAP@.75IOU",
    "DetectionBoxes_Precision/mAP (small)",
    "DetectionBoxes_Precision/mAP (medium)",
    "DetectionBoxes_Precision/mAP (large)",
    "DetectionBoxes_Recall/AR@1",
    "DetectionBoxes_Recall/AR@10",
    "DetectionBoxes_Recall/AR@100",
    "DetectionBoxes_Recall/AR@100 (small)",
    "DetectionBoxes_Recall/AR@100 (medium)",
    "DetectionBoxes_Recall/AR@100 (large)",
)
MAP = METRIC_NAMES[0]

# So many boxes without one of a known class mean that the label map belongs to other data: say so at once, not after
# an hour of inference.
_BOXES_BEFORE_GIVING_UP = 200

DetectStep = Callable[[tf.Tensor, tf.Tensor], dict[str, tf.Tensor]]


def make_detect_step(model: Any) -> DetectStep:
    """The model's way from padded canvases to detections as one `tf.function`.

    Takes `image` f32 [B, H, W, 3] in 0..255, already resized and padded, and `true_image_shape` i32 [B, 3]; returns the
    dict of `model.postprocess`. The input pipeline has resized already, so this goes past `model.preprocess`. Whoever
    evaluates often (training does) makes the step once and hands it to `evaluate`, which saves tracing it again.
    """

    @tf.function
    def detect_step(image: tf.Tensor, true_image_shape: tf.Tensor) -> dict[str, tf.Tensor]:
        predictions = model(model.normalize(image), true_image_shape, training=False)
        return model.postprocess(predictions, true_image_shape)

    return detect_step


def evaluate(
    model: Any,
    dataset: Iterable[tuple[dict[str, tf.Tensor], dict[str, tf.Tensor]]],
    label_map: LabelMap,
    *,
    limit: int | None = None,
    per_category: bool = False,
    on_progress: Callable[[int], None] | None = None,
    detect_step: DetectStep | None = None,
    on_boxes: Callable[[COCOeval], None] | None = None,
) -> dict[str, Any]:
    """COCO metrics of `model` on `dataset` (spec §8.3 to §8.5): of boxes and, where model and data have any, keypoints.

    Args:
        model: a `DetectionModel`, or anything with its `normalize`, `__call__`, `postprocess` and `num_classes`, and
            with keypoints its `pipeline`, whose eval_config names their classes and sigmas (`keypoint_classes`).
        dataset: batches of (features, groundtruth) as `build_dataset(training=False)` gives them; the last may be
            smaller, it is filled up so that nothing is traced twice.
        label_map: its categories are the ones that count; ids are 1-based, the model's classes 0-based.
        limit: evaluate the first so many images only; None is all of them.
        per_category: add the key "per_category", a dict of category name -> AP@[.5:.95] (-1: no ground truth).
        on_progress: called after each batch with the number of images done.
        detect_step: `make_detect_step(model)`, when the caller keeps it; made anew otherwise.
        on_boxes: gets pycocotools' evaluator of boxes after its run, with the matches on each image.

    Returns:
        `METRIC_NAMES` -> float in 0..1, or -1 where the data hold no ground truth of that size. For each class with
        keypoints also `coco_keypoints.KEYPOINT_METRICS`, as `Keypoints_<metric> ByCategory/<class>`; they are absent,
        with a warning, where the data have no labelled keypoint of the class. A model without boxes has these only.

    An object's size is the annotation's own area in original pixels where the data set has one, as in COCO's official
    evaluation and every published table; otherwise the area of its box. TFOD always took the box, so its (small),
    (medium) and (large) figures differ on data that have masks; metrics over all sizes do not depend on it.
    Every image counts, also when two carry the same `source_id` (TFOD dropped the second).

    Raises:
        EvaluationError: no images, no boxes, a label map of other data or of another model, detections that are not
            finite numbers; labelled keypoints for which the label map or the config does not hold.
    """
    if label_map.max_id > model.num_classes:
        raise EvaluationError(
            f"The label map goes up to class id {label_map.max_id} but the model has {model.num_classes} classes; "
            "give the label map that the model was trained with."
        )
    step = detect_step or make_detect_step(model)
    collected = _Collected(frozenset(category["id"] for category in label_map.categories()))
    full_batch: int | None = None
    for features, groundtruth in dataset:
        count = int(features["image"].shape[0])
        full_batch = full_batch or count
        detections = step(
            _fill_up(features["image"], full_batch), _fill_up(features["true_image_shape"], full_batch)
        )
        if collected.keypoints is None:
            collected.keypoints = _keypoint_collectors(model, label_map, groundtruth, detections)
        wanted = count if limit is None else min(count, limit - collected.num_images)
        collected.add_batch(_numpy(features, skip=("image",)), _numpy(groundtruth), _numpy(detections),
                            canvas_hw=(int(features["image"].shape[1]), int(features["image"].shape[2])), count=wanted)
        if on_progress:
            on_progress(collected.num_images)
        if limit is not None and collected.num_images >= limit:
            break
    collected.check()
    metrics: dict[str, Any] = {}
    if collected.with_boxes:
        metrics = coco_metrics(
            collected.num_images, label_map.categories(), collected.truths, collected.found, per_category=per_category,
            on_boxes=on_boxes,
        )
    for keypoints in collected.keypoints or ():
        metrics |= keypoints.metrics(collected.num_images)
    if not metrics:
        raise EvaluationError(
            "The model finds no boxes, and the data have no labelled keypoints that it could be measured by; set "
            "eval_input_reader's num_keypoints, or give data with keypoints."
        )
    return metrics


def _keypoint_collectors(
    model: Any, label_map: LabelMap, groundtruth: dict[str, tf.Tensor], detections: dict[str, tf.Tensor]
) -> list[KeypointCollector] | None:
    """One for each class to measure; None where model, data or label map know no keypoints."""
    if "keypoints" not in groundtruth or "detection_keypoints" not in detections:
        return None
    if not any(item.keypoints for item in label_map.items):
        if np.isfinite(groundtruth["keypoints"]).any():
            raise EvaluationError(
                "The data have labelled keypoints but the label map names none; give the label map with keypoints "
                "(`keypoints { id: 0 label: ... }` in their class), such as the one written beside the records."
            )
        return None
    collectors = [KeypointCollector(of) for of in keypoint_classes(model.pipeline.eval_config, label_map)]
    for collector in collectors:
        collector.check_sizes(groundtruth["keypoints"].shape[2], detections["detection_keypoints"].shape[2])
    return collectors


def coco_metrics(
    num_images: int,
    categories: Sequence[dict[str, Any]],
    truths: list[dict[str, Any]],
    detections: list[dict[str, Any]],
    *,
    per_category: bool = False,
    on_boxes: Callable[[COCOeval], None] | None = None,
) -> dict[str, Any]:
    """pycocotools' twelve box metrics under TFOD's names.

    `truths` and `detections` are COCO annotations: image_id in 0..num_images-1, category_id, bbox [x, y, width, height]
    and area in pixels, iscrowd; detections also have a score; each gets an `id`. `categories` are dicts of id and name.
    `on_boxes` as in `evaluate`.
    """
    evaluator = run_cocoeval(num_images, categories, truths, detections, "bbox")
    if on_boxes:
        on_boxes(evaluator)
    metrics: dict[str, Any] = {name: float(v) for name, v in zip(METRIC_NAMES, evaluator.stats, strict=True)}
    if per_category:
        # precision is [IoU thresholds, recall thresholds, categories, area ranges, max detections]; 0 = all areas,
        # -1 = 100 detections. A category without ground truth is -1 throughout.
        by_category = evaluator.eval["precision"][:, :, :, 0, -1].mean(axis=(0, 1))
        names = {category["id"]: category["name"] for category in categories}
        metrics["per_category"] = {
            names[category_id]: float(value)
            for category_id, value in zip(evaluator.params.catIds, by_category, strict=True)
        }
    return metrics


@dataclass
class _Collected:
    """Ground truth and detections so far, as COCO annotations in original pixels."""

    known_ids: frozenset[int]
    num_images: int = 0
    num_boxes: int = 0
    truths: list[dict[str, Any]] = field(default_factory=list)
    found: list[dict[str, Any]] = field(default_factory=list)
    unknown_ids: dict[int, int] = field(default_factory=dict)
    keypoints: list[KeypointCollector] | None = None
    with_boxes: bool = True  # a model may find keypoints alone

    def add_batch(
        self,
        features: dict[str, np.ndarray],
        groundtruth: dict[str, np.ndarray],
        detections: dict[str, np.ndarray],
        *,
        canvas_hw: tuple[int, int],
        count: int,
    ) -> None:
        """Adds the first `count` images of a batch."""
        for row in range(count):
            original_hw = features["original_shape"][row].astype(np.float64)
            # Normalised to the canvas -> canvas pixels -> normalised to the image without its padding.
            scale_hw = np.asarray(canvas_hw) / features["true_image_shape"][row, :2] * original_hw
            truth = _row(groundtruth, row, "num_boxes")
            found = _row(detections, row, "num_detections")
            self._add_truths(truth, scale_hw)
            self._add_detections(found, original_hw)
            for collector in self.keypoints or ():
                collector.add_image(self.num_images, truth, found, scale_hw=scale_hw, original_hw=original_hw)
            self.num_images += 1
        if self.num_boxes >= _BOXES_BEFORE_GIVING_UP:
            self._check_classes()

    def _add_truths(self, truth: dict[str, np.ndarray], scale_hw: np.ndarray) -> None:
        boxes = xywh(truth["boxes"], scale_hw)
        self.num_boxes += len(boxes)
        for box, area, zero_based, crowd in zip(
            boxes.tolist(), object_areas(truth, boxes).tolist(), truth["classes"].tolist(), truth["is_crowd"],
            strict=True,
        ):
            if zero_based + 1 not in self.known_ids:
                self.unknown_ids[zero_based + 1] = self.unknown_ids.get(zero_based + 1, 0) + 1
                continue
            self.truths.append(
                {"image_id": self.num_images, "category_id": zero_based + 1, "bbox": box, "area": area,
                 "iscrowd": int(crowd)}
            )

    def _add_detections(self, found: dict[str, np.ndarray], original_hw: np.ndarray) -> None:
        scores = found["detection_scores"]
        self.with_boxes = "detection_boxes" in found
        numbers = [found[key] for key in ("detection_boxes", "detection_keypoints") if key in found]
        if not all(np.isfinite(values).all() for values in (scores, *numbers)):
            raise EvaluationError(
                f"The model's detections on image {self.num_images + 1} are not finite numbers: its weights are "
                "broken; evaluate an earlier checkpoint, and look for the step at which the training loss became NaN."
            )
        if not self.with_boxes:
            return
        boxes = xywh(found["detection_boxes"], original_hw)
        for box, score, zero_based in zip(
            boxes.tolist(), scores.tolist(), found["detection_classes"].tolist(), strict=True
        ):
            if int(zero_based) + 1 in self.known_ids:
                self.found.append(
                    {"image_id": self.num_images, "category_id": int(zero_based) + 1, "bbox": box,
                     "area": box[2] * box[3], "iscrowd": 0, "score": score}
                )

    def _check_classes(self) -> None:
        if self.num_boxes and not self.truths:
            raise EvaluationError(
                f"None of the {self.num_boxes} ground-truth boxes seen has a class of the label map (the data have "
                f"ids {_some(self.unknown_ids)}, the label map {_some(self.known_ids)}); give the data set's own label "
                "map (ids start at 1)."
            )

    def check(self) -> None:
        """Raises `EvaluationError` when there is nothing that a metric could be about."""
        if not self.num_images:
            raise EvaluationError(
                "The evaluation data set has no images; check eval_input_reader's input_path and the limit."
            )
        if not self.num_boxes:
            raise EvaluationError(
                f"The {self.num_images} evaluation images have no ground-truth boxes of a class in the label map, so "
                "that no metric is defined; check that the map is the data's own (`tfod-zoo data check`), and the "
                "records' image/object/bbox fields."
            )
        self._check_classes()
        if self.unknown_ids:
            _LOG.warning("%d ground-truth boxes have class ids that are not in the label map and do not count: %s.",
                         sum(self.unknown_ids.values()), _some(self.unknown_ids))
        for collector in self.keypoints or ():
            if not collector.num_labelled:
                _LOG.warning("The data have no labelled keypoint of class %s: only its boxes are measured.",
                             collector.of.name)


def _some(ids: Iterable[int], shown: int = 8) -> str:
    """The first few of the ids, for a sentence."""
    ordered = sorted(ids)
    return ", ".join(map(str, ordered[:shown])) + (", ..." if len(ordered) > shown else "")


def _row(values: dict[str, np.ndarray], row: int, count_key: str) -> dict[str, np.ndarray]:
    """One image's values without their padding: those with a row for each object, cut to the image's count."""
    count = int(values[count_key][row])
    return {name: value[row][:count] for name, value in values.items() if value.ndim > 1}


def _fill_up(values: tf.Tensor, rows: int) -> tf.Tensor:
    """Repeats the first row until there are `rows`: real data, so that no layer meets a shape of zero."""
    missing = rows - int(values.shape[0])
    return tf.concat([values, tf.repeat(values[:1], missing, axis=0)], axis=0) if missing > 0 else values


def _numpy(tensors: dict[str, Any], skip: tuple[str, ...] = ()) -> dict[str, np.ndarray]:
    return {name: np.asarray(value) for name, value in tensors.items() if name not in skip}
