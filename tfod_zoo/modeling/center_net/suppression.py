"""Non-maximum suppression of CenterNet's boxes, where `post_processing` asks for it (spec: CenterNet, section 6)."""

from typing import Any

import tensorflow as tf

from tfod_zoo.errors import ZooError
from tfod_zoo.modeling.non_max_suppression import multiclass_non_max_suppression

_WHERE = "model.center_net.post_processing.batch_non_max_suppression"
# Other procedures than the exact greedy one; TFOD runs them for some detectors.
_UNSUPPORTED = ("use_class_agnostic_nms", "use_combined_nms", "soft_nms_sigma")


def check_suppression(config: Any) -> None:
    """Refuses a PostProcessing message that cannot be carried out.

    Its switches for speed (`use_static_shapes`, `use_partitioned_nms`, `use_cpu_nms`, `use_hard_nms`) change no number
    and are accepted; CenterNet reads no `score_converter`.

    Raises:
      ZooError: one sentence with the field.
    """
    suppression = config.batch_non_max_suppression
    for field in _UNSUPPORTED:
        if getattr(suppression, field):
            raise ZooError(f"{_WHERE}.{field} is not supported for a CenterNet; remove it.")
    if not 0 <= suppression.iou_threshold <= 1:
        raise ZooError(f"{_WHERE}.iou_threshold is {suppression.iou_threshold:g}; it must be from 0 to 1.")
    if not 1 <= suppression.max_detections_per_class <= suppression.max_total_detections:
        raise ZooError(
            f"{_WHERE}: max_detections_per_class is {suppression.max_detections_per_class} and max_total_detections "
            f"{suppression.max_total_detections}; the first must be at least 1 and not above the second."
        )


def suppress(detections: dict[str, tf.Tensor], config: Any) -> dict[str, tf.Tensor]:
    """Drops boxes that overlap better ones of their class; every box competes with its score in each class.

    The boxes are relative to the true image already, so `change_coordinate_frame` has nothing to change.

    Args:
      detections: of `CenterNet.postprocess` before, N an image.
      config: PostProcessing message.

    Returns:
      The same keys for `max_total_detections` detections an image: scores and classes are those that survived, all
      else goes along with its box. Rows from `num_detections` on are zero.
    """
    suppression = config.batch_non_max_suppression
    replaced = ("detection_boxes", "detection_scores", "detection_classes", "num_detections")
    survivors = multiclass_non_max_suppression(
        detections["detection_boxes"][:, :, None],
        detections["detection_multiclass_scores"],
        iou_threshold=suppression.iou_threshold,
        max_per_class=suppression.max_detections_per_class,
        max_total=suppression.max_total_detections,
        score_threshold=suppression.score_threshold,
        num_valid_boxes=detections["num_detections"],
        additional_fields={key: value for key, value in detections.items() if key not in replaced},
    )
    return {
        **survivors.fields,
        "detection_boxes": survivors.boxes,
        "detection_scores": survivors.scores,
        "detection_classes": survivors.classes,
        "num_detections": survivors.count,
    }
