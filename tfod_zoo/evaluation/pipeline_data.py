"""Evaluate a detector on the data that a pipeline config's eval reader names, or on others put in their place."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tfod_zoo.config.label_map import COCO_LABEL_MAP, LabelMap, read_label_map
from tfod_zoo.errors import UsageError

if TYPE_CHECKING:
    import numpy as np
    from pycocotools.cocoeval import COCOeval

    from tfod_zoo.data.errors import DataProblems
    from tfod_zoo.evaluation.coco import DetectStep

_PERSON = "/m/01g317"  # its name in COCO's label map
# Larger than TFOD's 1: the metrics are the same at any batch size, and the cores are better used.
DEFAULT_BATCH_SIZE = 8

def with_eval_data(pipeline: Any, dataset: str | None = None, label_map: str | Path | None = None) -> Any:
    """A copy of `pipeline` whose first eval reader reads `dataset` with `label_map`; what is None stays.

    `dataset` is a record glob or "tfds:NAME[/CONFIG]:SPLIT". COCO by its TFDS name brings COCO's label map, and is
    measured by boxes alone.

    Raises:
        UsageError: there is then no reader or no label map to evaluate with.
    """
    changed = type(pipeline)()
    changed.CopyFrom(pipeline)
    reader = changed.eval_input_reader[0] if changed.eval_input_reader else changed.eval_input_reader.add()
    if dataset:
        reader.tf_record_input_reader.input_path[:] = [dataset]
    if label_map:
        reader.label_map_path = str(label_map)
    elif dataset and dataset.startswith("tfds:coco/"):
        reader.label_map_path = str(COCO_LABEL_MAP)
    if dataset and dataset.startswith("tfds:coco/"):
        reader.num_keypoints = 0  # TFDS has COCO's boxes without its keypoints
    paths = list(reader.tf_record_input_reader.input_path)
    if not paths or not all(_is_named(path) for path in paths):
        raise UsageError(
            "The config names no evaluation data (eval_input_reader.tf_record_input_reader.input_path); add "
            "--dataset RECORDS or --dataset tfds:NAME:SPLIT."
        )
    if not _is_named(reader.label_map_path):
        raise UsageError("The config names no label map (eval_input_reader.label_map_path); add --label-map FILE.")
    return changed


def _is_named(path: str) -> bool:
    return bool(path) and "PATH_TO_BE_CONFIGURED" not in path


def eval_label_map(pipeline: Any) -> LabelMap:
    """The label map that the first eval reader names.

    A model whose only class is COCO's person, as the zoo's MobileNet of keypoints, is measured on COCO by persons.
    """
    label_map = read_label_map(pipeline.eval_input_reader[0].label_map_path)
    network = pipeline.model.center_net
    posed = [task.keypoint_class_name for task in network.keypoint_estimation_task]
    if network.num_classes == 1 and posed == [_PERSON]:
        persons = tuple(item for item in label_map.items if item.id == 1 and item.name == _PERSON)
        return LabelMap(persons) if persons else label_map
    return label_map


def first_images(pipeline: Any, count: int) -> list[np.ndarray]:
    """Images of the first eval reader's data, at most `count`, uint8 `[H, W, 3]` each, as large as the canvas lets
    them be."""
    import numpy as np

    from tfod_zoo.data.input_pipeline import build_dataset

    images = []
    for features, _ in build_dataset(pipeline, training=False, batch_size=1).take(count):
        height, width, _ = features["true_image_shape"][0].numpy()
        images.append(np.round(features["image"][0, :height, :width].numpy()).astype(np.uint8))
    return images


def evaluate_pipeline(
    model: Any,
    pipeline: Any,
    *,
    batch_size: int = DEFAULT_BATCH_SIZE,
    limit: int | None = None,
    per_category: bool = False,
    on_progress: Callable[[int], None] | None = None,
    problems: DataProblems | None = None,
    detect_step: DetectStep | None = None,
    on_boxes: Callable[[COCOeval], None] | None = None,
) -> dict[str, Any]:
    """`evaluate` on the data of the pipeline's first eval reader; see `tfod_zoo.evaluation.coco.evaluate`.

    `problems` counts what was wrong with single records; `detect_step` is what runs, the model itself where it is None.
    """
    from tfod_zoo.data.input_pipeline import build_dataset
    from tfod_zoo.evaluation.coco import evaluate

    dataset = build_dataset(pipeline, training=False, batch_size=batch_size, problems=problems)
    return evaluate(
        model,
        dataset,
        eval_label_map(pipeline),
        limit=limit,
        per_category=per_category,
        on_progress=on_progress,
        detect_step=detect_step,
        on_boxes=on_boxes,
    )
