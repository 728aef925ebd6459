"""What `check_pipeline` finds in a pipeline before it runs."""

import pytest

from tfod_zoo.config.check import check_pipeline
from tfod_zoo.config.generate import generate_pipeline
from tfod_zoo.config.label_map import PERSON_KEYPOINTS_LABEL_MAP, LabelMap, LabelMapItem, write_label_map
from tfod_zoo.config.pipeline import apply_override
from tfod_zoo.zoo.registry import list_models

OD = "centernet_mobilenetv2fpn_512x512_coco17_od"
KEYPOINTS = "centernet_resnet50_v2_512x512_kpts_coco17_tpu-8"


@pytest.fixture
def cells(tmp_path):
    path = tmp_path / "cells.pbtxt"
    write_label_map(LabelMap((LabelMapItem(1, "RBC"), LabelMapItem(2, "WBC"))), path)
    return path


def fine_tuning(name, label_map):
    return generate_pipeline(
        name, label_map=label_map, train_records="a", eval_records="b", fine_tune_checkpoint="zoo/ckpt-0"
    )


@pytest.mark.parametrize("name", list_models())
def test_published_recipes_lack_their_paths_and_nothing_else(name):
    findings = check_pipeline(generate_pipeline(name))
    assert len(findings) >= 4
    assert all("PATH_TO_BE_CONFIGURED" in finding for finding in findings)
    assert any("--set eval_input_reader[0].tf_record_input_reader.input_path[0]=" in finding for finding in findings)


@pytest.mark.parametrize("name", list_models())
def test_fine_tuning_recipes_are_right(name, cells):
    assert check_pipeline(fine_tuning(name, cells)) == []


@pytest.mark.parametrize(
    "override, part",
    [
        ("train_config.fine_tune_checkpoint_version=V1", "not V2"),
        ("train_config.fine_tune_checkpoint_type=fine_tune", 'use "detection"'),
        ("train_config.fine_tune_checkpoint_type=half", "classification, detection, full"),
        ("train_config.fine_tune_checkpoint_type=", "for a zoo checkpoint: detection"),
        ("train_config.load_all_detection_checkpoint_vars=true", "of TF1"),
        ("train_input_reader.num_keypoints=17", "take it away"),
        ("train_input_reader.label_map_path=nowhere.pbtxt", "nowhere.pbtxt does not exist"),
        ("model.center_net.num_classes=7", "num_classes is 7"),
        ("model.center_net.image_resizer.keep_aspect_ratio_resizer.max_dimension=500", "multiple of 32"),
        ("model.ssd.num_classes=2", "model.ssd is no model of this zoo"),
    ],
)
def test_what_would_fail_later_is_found(override, part, cells):
    message = fine_tuning(OD, cells)
    apply_override(message, override)
    findings = check_pipeline(message)
    assert any(part in finding for finding in findings), findings
    assert all(finding.endswith(".") and "\n" not in finding for finding in findings)


def test_a_label_map_that_cannot_be_read_is_a_finding_too(cells):
    message = fine_tuning(OD, cells)
    cells.write_text("item { id: 1 name: 'a' }\nitem { id: 1 name: 'b' }")
    assert "line 2" in check_pipeline(message)[0]


def test_an_hourglass_has_no_classification(cells):
    message = fine_tuning("centernet_hg104_512x512_coco17_tpu-8", cells)
    message.train_config.fine_tune_checkpoint_type = "classification"
    assert "hourglass" in check_pipeline(message)[0]


def test_a_keypoint_task_needs_its_class_in_the_label_map(cells):
    message = fine_tuning(KEYPOINTS, PERSON_KEYPOINTS_LABEL_MAP)
    assert check_pipeline(message) == []
    # TFOD looks the class up by its name, not by its display name.
    message.model.center_net.keypoint_estimation_task[0].keypoint_class_name = "person"
    assert '"person" has no keypoints' in check_pipeline(message)[0]
    message.model.center_net.keypoint_label_map_path = ""
    message.eval_input_reader[0].num_keypoints = 0
    findings = check_pipeline(message)
    assert "keypoint_label_map_path is missing" in findings[0]
    assert "eval_input_reader[0].num_keypoints is missing" in findings[1]


def test_a_pipeline_without_a_model_is_one():
    assert "model.... is no model" in check_pipeline(type(generate_pipeline(OD))())[-1]
