"""A `keypoint_estimation_task` of the config, resolved against its label map (spec: CenterNet, 2 and 13)."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tfod_zoo.config.label_map import PERSON_KEYPOINTS_LABEL_MAP, LabelMapItem, read_label_map
from tfod_zoo.errors import ZooError

DEFAULT_STD = 1.0  # of a keypoint that `keypoint_label_to_std` does not name
RANKING_MODES = ("min_distance", "score_distance_ratio", "score_scaled_distance_ratio", "gaussian_weighted")

_AT_LEAST = {"num_candidates_per_keypoint": 1, "peak_max_pool_kernel_size": 0, "offset_peak_radius": 0}


@dataclass(frozen=True)
class KeypointTask:
    """Keypoints of one class.

    Attributes:
      config: the task's message.
      class_index: 0-based class whose instances have these keypoints.
      ids: the keypoints' places in ground truth and in detections, ascending.
      stds: per keypoint, the spread of its target in units of the box's own.
    """

    config: Any
    class_index: int
    ids: tuple[int, ...]
    stds: tuple[float, ...]

    @property
    def name(self) -> str:
        return self.config.task_name


def keypoint_tasks(config: Any) -> tuple[KeypointTask, ...]:
    """The keypoint tasks of a `model.center_net`.

    Their classes are looked up in `keypoint_label_map_path`; where that is not filled in, in the COCO label map with
    keypoints that ships with the package.

    Raises:
      ZooError: a task names no class with keypoints, shares a class or a keypoint with another, or asks for something
        that is not supported.
    """
    if not config.keypoint_estimation_task:
        return ()
    path = config.keypoint_label_map_path
    label_map = read_label_map(PERSON_KEYPOINTS_LABEL_MAP if not path or "PATH_TO_BE_CONFIGURED" in path else path)
    tasks = tuple(_resolved(task, label_map.items, config.num_classes) for task in config.keypoint_estimation_task)
    claims: dict[str, list] = {
        "task_name": [task.name for task in tasks],
        "class": [task.config.keypoint_class_name for task in tasks],
        "keypoint id": [id for task in tasks for id in task.ids],
    }
    for what, values in claims.items():
        repeated = [value for value in values if values.count(value) > 1]
        if repeated:
            raise ZooError(
                f"model.center_net.keypoint_estimation_task: {what} {repeated[0]} is used twice; use each once."
            )
    total = sum(len(task.ids) for task in tasks)
    if sorted(id for task in tasks for id in task.ids) != list(range(total)):
        raise ZooError(f"the keypoints of {path} must have the ids 0 to {total - 1}: they are places in a list.")
    center_weights = config.object_center_params.keypoint_weights_for_center
    if center_weights and len(center_weights) != total:
        raise ZooError(
            f"model.center_net.object_center_params.keypoint_weights_for_center has {len(center_weights)} weights for "
            f"{total} keypoints; give one of each, in the order of their ids."
        )
    return tasks


def _resolved(config: Any, items: Sequence[LabelMapItem], num_classes: int) -> KeypointTask:
    where = f'model.center_net.keypoint_estimation_task "{config.task_name}"'
    item = next((item for item in items if item.name == config.keypoint_class_name), None)
    if item is None or not item.keypoints:
        raise ZooError(
            f'{where}: the label map has no keypoints for a class named "{config.keypoint_class_name}"; add them '
            "there, or name another class."
        )
    if not 1 <= item.id <= num_classes:
        raise ZooError(
            f'{where}: "{config.keypoint_class_name}" has id {item.id} in the label map, but num_classes is '
            f"{num_classes}; raise num_classes, or give the label map of this data set."
        )
    if config.predict_depth:
        raise ZooError(f"{where}: predict_depth is not supported; remove it.")
    if config.candidate_ranking_mode not in RANKING_MODES:
        raise ZooError(
            f'{where}: candidate_ranking_mode "{config.candidate_ranking_mode}" does not exist; use one of '
            f"{', '.join(RANKING_MODES)}."
        )
    for field, least in _AT_LEAST.items():
        if getattr(config, field) < least:
            raise ZooError(f"{where}: {field} is {getattr(config, field)}; it must be at least {least}.")
    if config.loss.localization_loss.WhichOneof("localization_loss") != "l1_localization_loss":
        raise ZooError(f"{where}: loss.localization_loss must be l1_localization_loss.")
    if config.loss.classification_loss.WhichOneof("classification_loss") != "penalty_reduced_logistic_focal_loss":
        raise ZooError(f"{where}: loss.classification_loss must be penalty_reduced_logistic_focal_loss.")
    keypoints = sorted(item.keypoints)
    stds = dict(config.keypoint_label_to_std)
    return KeypointTask(
        config,
        item.id - 1,
        tuple(id for id, _ in keypoints),
        tuple(stds.get(label, DEFAULT_STD) for _, label in keypoints),
    )
