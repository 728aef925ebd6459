"""What a `model.faster_rcnn` may ask for (spec, section 1)."""

from typing import Any

from tfod_zoo.errors import ZooError

_WHERE = "model.faster_rcnn"

# Parts of the schema that no network here implements: refused by name rather than left out in silence.
_UNSUPPORTED = {
    "": (
        "hard_example_miner",
        "inplace_batchnorm_update",
        "return_raw_detections_during_predict",
        "use_combined_nms_in_first_stage",
        "context_config",
        "output_final_box_features",
        "output_final_box_rpn_features",
    ),
    "second_stage_box_predictor.mask_rcnn_box_predictor": (
        "use_dropout",
        "predict_instance_masks",
        "predict_keypoints",
    ),
    "second_stage_post_processing": ("calibration_config",),
    "second_stage_post_processing.batch_non_max_suppression": (
        "use_class_agnostic_nms",
        "soft_nms_sigma",
        "use_combined_nms",
    ),
}


def check_config(config: Any, training: bool) -> None:
    """Refuses a FasterRcnn message that this package cannot build as it is written.

    Raises:
      ZooError: one sentence with the field.
    """
    if config.number_of_stages != 2:
        raise ZooError(f"{_WHERE}.number_of_stages is {config.number_of_stages}; only 2 is supported: leave it out.")
    if config.num_classes < 1:
        raise ZooError(f"{_WHERE}.num_classes is {config.num_classes}; set it to the number of classes, at least 1.")
    predictor = config.second_stage_box_predictor.WhichOneof("box_predictor_oneof")
    if predictor != "mask_rcnn_box_predictor":
        raise ZooError(
            f"{_WHERE}.second_stage_box_predictor: {predictor or 'none set'} is not supported; use "
            "mask_rcnn_box_predictor, Faster R-CNN's own."
        )
    for path, fields in _UNSUPPORTED.items():
        message = config
        for part in filter(None, path.split(".")):
            message = getattr(message, part)
        for field, value in message.ListFields():
            if field.name in fields and value:
                raise ZooError(f"{'.'.join(filter(None, (_WHERE, path, field.name)))} is not supported; remove it.")
    if config.second_stage_box_predictor.mask_rcnn_box_predictor.box_code_size != 4:
        raise ZooError(f"{_WHERE}.second_stage_box_predictor.mask_rcnn_box_predictor.box_code_size must be 4.")
    loss = config.second_stage_classification_loss
    kind = loss.WhichOneof("classification_loss")
    if kind not in (None, "weighted_softmax") or loss.weighted_softmax.logit_scale != 1:
        raise ZooError(
            f"{_WHERE}.second_stage_classification_loss must be weighted_softmax with logit_scale 1; leave it out."
        )
    _check_numbers(config, training)


def _check_numbers(config: Any, training: bool) -> None:
    if config.initial_crop_size < 2:
        raise ZooError(f"{_WHERE}.initial_crop_size is {config.initial_crop_size}; set it to 2 or more (the zoo: 14).")
    kernel = config.maxpool_kernel_size
    if not 1 <= kernel <= config.initial_crop_size or config.maxpool_stride < 1:
        raise ZooError(
            f"{_WHERE}.maxpool_kernel_size is {kernel} and maxpool_stride {config.maxpool_stride}; set both to 1 or "
            "more, the kernel to no more than initial_crop_size (the zoo: 2 and 2)."
        )
    if not 0 <= config.first_stage_nms_iou_threshold <= 1:
        raise ZooError(
            f"{_WHERE}.first_stage_nms_iou_threshold is {config.first_stage_nms_iou_threshold}, not in 0..1."
        )
    for field in (
        "first_stage_max_proposals",
        "first_stage_minibatch_size",
        "second_stage_batch_size",
        "first_stage_box_predictor_depth",
        "first_stage_box_predictor_kernel_size",
        "first_stage_atrous_rate",
    ):
        if getattr(config, field) < 1:
            raise ZooError(f"{_WHERE}.{field} is {getattr(config, field)}; set it to 1 or more.")
    if training and config.second_stage_batch_size > config.first_stage_max_proposals:
        raise ZooError(
            f"{_WHERE}.second_stage_batch_size is {config.second_stage_batch_size}, more than "
            f"first_stage_max_proposals, {config.first_stage_max_proposals}; lower it."
        )
    nms = config.second_stage_post_processing.batch_non_max_suppression
    where = f"{_WHERE}.second_stage_post_processing.batch_non_max_suppression"
    if not 0 <= nms.iou_threshold <= 1:
        raise ZooError(f"{where}.iou_threshold is {nms.iou_threshold}; set it to 0..1.")
    if not 1 <= nms.max_detections_per_class <= nms.max_total_detections:
        raise ZooError(
            f"{where}.max_detections_per_class is {nms.max_detections_per_class}; set it to 1 up to "
            f"max_total_detections, {nms.max_total_detections}."
        )
