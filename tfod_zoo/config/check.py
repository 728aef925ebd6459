"""Find what is wrong with a pipeline.config before any of it runs."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tfod_zoo.config import schema
from tfod_zoo.config.generate import CHECKPOINT_TYPES, PLACEHOLDER, restore_problem, size_multiple
from tfod_zoo.config.label_map import LabelMap, LabelMapError, read_label_map

_V2 = 2  # CheckpointVersion; the schema's default is V1


def check_pipeline(message: Any) -> list[str]:
    """What would fail later: a sentence a finding, which names the field; empty when the pipeline looks right.

    Label maps that the pipeline names are read; records and checkpoints are not.
    """
    findings = [
        f"{where} is {text}; fill it in (--set {where}=...)." for where, text in _texts(message) if PLACEHOLDER in text
    ]
    family = message.model.WhichOneof("model")
    if family not in ("center_net", "faster_rcnn"):
        return [*findings, f"model.{family or '...'} is no model of this zoo; write center_net or faster_rcnn."]
    findings += _check_checkpoint(message.train_config, getattr(message.model, family).feature_extractor.type)
    findings += _check_size(message, family)
    findings += _check_labels(message, family)
    if family == "center_net":
        findings += _check_keypoints(message)
    return findings


def _texts(message: Any, prefix: str = "") -> Iterator[tuple[str, str]]:
    """Every text of a message with its path, as an override writes it."""
    for field, value in message.ListFields():
        if field.message_type is not None and field.message_type.GetOptions().map_entry:
            continue
        for index, each in enumerate(value) if schema.is_repeated(field) else ((None, value),):
            path = f"{prefix}{field.name}" + (f"[{index}]" if index is not None else "")
            if field.message_type is not None:
                yield from _texts(each, f"{path}.")
            elif isinstance(each, str):
                yield path, each


def _check_checkpoint(train: Any, extractor: str) -> list[str]:
    findings = []
    if train.load_all_detection_checkpoint_vars:
        findings.append(
            'train_config.load_all_detection_checkpoint_vars is of TF1; write fine_tune_checkpoint_type: "full".'
        )
    if not train.fine_tune_checkpoint:
        return findings
    kind = train.fine_tune_checkpoint_type
    if train.fine_tune_checkpoint_version != _V2:
        findings.append("train_config.fine_tune_checkpoint_version is not V2; checkpoints of TF2 need V2.")
    if not kind and not train.from_detection_checkpoint:
        findings.append(
            'train_config.fine_tune_checkpoint_type is missing, which means "classification"; write one of '
            f"{', '.join(CHECKPOINT_TYPES)} (for a zoo checkpoint: detection)."
        )
    problem = restore_problem(kind, extractor) if kind else None
    if problem:
        findings.append(f"train_config.fine_tune_checkpoint_type: {problem}")
    return findings


def _check_size(message: Any, family: str) -> list[str]:
    network = getattr(message.model, family)
    kind = network.image_resizer.WhichOneof("image_resizer_oneof")
    if kind is None:
        return [f"model.{family}.image_resizer is missing; write keep_aspect_ratio_resizer or fixed_shape_resizer."]
    resizer = getattr(network.image_resizer, kind)
    extractor = network.feature_extractor.type
    multiple = size_multiple(extractor, family)
    return [
        f"model.{family}.image_resizer.{kind}.{side} is {pixels}; {extractor} needs a multiple of {multiple}."
        for side, pixels in ((side, getattr(resizer, side, 0)) for side in ("max_dimension", "height", "width"))
        if pixels % multiple
    ]


def _check_labels(message: Any, family: str) -> list[str]:
    readers = [("train_input_reader", message.train_input_reader)]
    readers += [(f"eval_input_reader[{index}]", reader) for index, reader in enumerate(message.eval_input_reader)]
    num_classes = getattr(message.model, family).num_classes
    findings: list[str] = []
    for where, reader in readers:
        path = reader.label_map_path
        label_map = _label_map(path, f"{where}.label_map_path", findings)
        if label_map and label_map.max_id != num_classes:
            findings.append(
                f"model.{family}.num_classes is {num_classes}, but {where}.label_map_path {path} goes up to "
                f"id {label_map.max_id}; make them equal."
            )
    return findings


def _check_keypoints(message: Any) -> list[str]:
    network = message.model.center_net
    findings: list[str] = []
    readers = [("train_input_reader", message.train_input_reader)]
    readers += [(f"eval_input_reader[{index}]", reader) for index, reader in enumerate(message.eval_input_reader)]
    if not network.keypoint_estimation_task:
        return [
            f"{where}.num_keypoints is {reader.num_keypoints}, but the model has no keypoint_estimation_task; take it "
            "away, or data without keypoints cannot be trained on."
            for where, reader in readers
            if reader.num_keypoints
        ]
    where = "model.center_net.keypoint_label_map_path"
    path = network.keypoint_label_map_path
    if not path:
        findings.append(f"{where} is missing; name the label map that has the keypoints.")
    label_map = _label_map(path, where, findings)
    posed = {item.name for item in label_map.items if item.keypoints} if label_map else None
    for task in network.keypoint_estimation_task:
        if posed is not None and task.keypoint_class_name not in posed:
            findings.append(
                f'keypoint_class_name "{task.keypoint_class_name}" has no keypoints in {path}; add the class with its '
                "keypoints there, or name another."
            )
    findings += [
        f"{where}.num_keypoints is missing; the model's keypoint tasks need it."
        for where, reader in readers
        if not reader.num_keypoints
    ]
    return findings


def _label_map(path: str, where: str, findings: list[str]) -> LabelMap | None:
    """The label map at `path`; None, and a finding, where it cannot be read."""
    if not path or PLACEHOLDER in path:
        return None
    if "://" not in path and not Path(path).exists():
        findings.append(f"{where} {path} does not exist; correct the path.")
        return None
    try:
        return read_label_map(path)
    except LabelMapError as error:
        findings.append(f"{where}: {error}")
        return None
