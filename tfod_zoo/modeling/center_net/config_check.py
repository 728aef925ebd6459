"""What of a `model.center_net` can be built, field by field (spec: CenterNet, 13)."""

from typing import Any

from tfod_zoo.errors import ZooError
from tfod_zoo.modeling.center_net.feature_extractors import FEATURE_EXTRACTORS
from tfod_zoo.modeling.center_net.suppression import check_suppression
from tfod_zoo.modeling.necks.fpn import UPSAMPLING

_WHERE = "model.center_net"
# Tasks that no model of the zoo has: refused by name rather than left out in silence.
_UNSUPPORTED_TASKS = (
    "mask_estimation_task",
    "densepose_estimation_task",
    "track_estimation_task",
    "temporal_offset_task",
    "deepmac_mask_estimation",
)
_CENTER_LOSS = "penalty_reduced_logistic_focal_loss"
_BOX_LOSS = "l1_localization_loss"
_RANKED_BY_BOX = ("score_scaled_distance_ratio", "gaussian_weighted")  # candidate_ranking_mode


def check_config(config: Any) -> None:
    """Refuses a CenterNet message that cannot be built as it is written; its keypoint tasks are checked on their own.

    Raises:
      ZooError: one sentence with the field.
    """
    for task in _UNSUPPORTED_TASKS:
        if config.HasField(task):
            raise ZooError(f"{_WHERE}.{task} is not supported, no model of the zoo has it; remove it.")
    boxes = config.HasField("object_detection_task")
    if not boxes and not config.keypoint_estimation_task:
        raise ZooError(
            f"{_WHERE} has neither object_detection_task nor keypoint_estimation_task; a CenterNet needs one of them."
        )
    if config.num_classes < 1:
        raise ZooError(f"{_WHERE}.num_classes is {config.num_classes}; set it to the number of classes, at least 1.")
    _check_feature_extractor(config.feature_extractor)
    _check_center(config)
    if config.HasField("post_processing"):
        check_suppression(config.post_processing)
    if boxes:
        _check_loss(config.object_detection_task, "localization_loss", _BOX_LOSS, "object_detection_task")
    for task in config.keypoint_estimation_task:
        if not boxes and task.candidate_ranking_mode in _RANKED_BY_BOX:
            raise ZooError(
                f'{_WHERE}.keypoint_estimation_task "{task.task_name}": candidate_ranking_mode '
                f"{task.candidate_ranking_mode} needs boxes; add object_detection_task, or use min_distance or "
                "score_distance_ratio."
            )


def _check_feature_extractor(config: Any) -> None:
    where = f"{_WHERE}.feature_extractor"
    if config.type not in FEATURE_EXTRACTORS:
        raise ZooError(f'{where}.type "{config.type}" has no network here; there are {", ".join(FEATURE_EXTRACTORS)}.')
    if config.upsampling_interpolation not in UPSAMPLING:
        raise ZooError(
            f'{where}.upsampling_interpolation "{config.upsampling_interpolation}" does not exist here; use '
            f"{' or '.join(UPSAMPLING)}."
        )
    if config.depth_multiplier <= 0:
        raise ZooError(f"{where}.depth_multiplier is {config.depth_multiplier:g}; it must be above 0, 1 for the zoo's.")
    for name in ("channel_means", "channel_stds"):
        values = list(getattr(config, name))
        if len(values) not in (0, 3) or (name == "channel_stds" and 0.0 in values):
            raise ZooError(f"{where}.{name} is {values}; give three values, one a channel, none of the stds zero.")


def _check_center(config: Any) -> None:
    where, center = f"{_WHERE}.object_center_params", config.object_center_params
    if center.max_box_predictions < 1:
        raise ZooError(f"{where}.max_box_predictions is {center.max_box_predictions}; it must be at least 1.")
    if center.keypoint_weights_for_center:
        if config.HasField("object_detection_task") or len(config.keypoint_estimation_task) != 1:
            raise ZooError(
                f"{where}.keypoint_weights_for_center puts centres on keypoints, which takes exactly one "
                "keypoint_estimation_task and no object_detection_task; remove the weights, or the other tasks."
            )
        if min(center.keypoint_weights_for_center) < 0:
            raise ZooError(f"{where}.keypoint_weights_for_center has a negative weight; use 0 to leave a keypoint out.")
    _check_loss(center, "classification_loss", _CENTER_LOSS, "object_center_params")


def _check_loss(message: Any, kind: str, wanted: str, field: str) -> None:
    if getattr(message, kind).WhichOneof(kind) != wanted:
        raise ZooError(f"{_WHERE}.{field}.{kind} must be {wanted}, CenterNet's own.")
