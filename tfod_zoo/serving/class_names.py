"""What a detector's classes and keypoints are called."""

from __future__ import annotations

from typing import Any

from tfod_zoo.config.label_map import (
    COCO_LABEL_MAP,
    PERSON_KEYPOINTS_LABEL_MAP,
    LabelMap,
    LabelMapError,
    read_label_map,
)

_COCO_CLASSES = 90


def class_names(pipeline: Any, num_classes: int) -> dict[int, str]:
    """Class id (from 1) -> name: of the label map that the config's readers name, else COCO's where the number of
    classes is COCO's, else the id."""
    label_map = _label_map(pipeline, num_classes)
    return {id: label_map.category_name(id) for id in range(1, num_classes + 1)}


def _label_map(pipeline: Any, num_classes: int) -> LabelMap:
    readers = [*pipeline.eval_input_reader, pipeline.train_input_reader]
    for path in (reader.label_map_path for reader in readers):
        try:
            return read_label_map(path)
        except LabelMapError:
            continue  # not filled in, or the data have gone since: the model still detects
    if num_classes == _COCO_CLASSES:
        return read_label_map(COCO_LABEL_MAP)
    return LabelMap(())


def keypoint_names(pipeline: Any) -> dict[int, list[tuple[int, str]]]:
    """Class id (from 1) -> its keypoints as (place in the detections' list, name); empty for a model of boxes."""
    network = pipeline.model.center_net
    if pipeline.model.WhichOneof("model") != "center_net" or not network.keypoint_estimation_task:
        return {}
    posed = {task.keypoint_class_name for task in network.keypoint_estimation_task}
    path = network.keypoint_label_map_path
    # As the model itself reads it.
    label_map = read_label_map(PERSON_KEYPOINTS_LABEL_MAP if not path or "PATH_TO_BE_CONFIGURED" in path else path)
    return {item.id: sorted(item.keypoints) for item in label_map.items if item.name in posed}
