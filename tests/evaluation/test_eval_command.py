"""`tfod-zoo eval` on a real small MobileNetV2-FPN over the synthetic shapes, and its refusals."""

import argparse
import json
import math

import numpy as np
import pytest
from PIL import Image

import tfod_zoo
from tfod_zoo.cli import eval_command
from tfod_zoo.config.generate import generate_pipeline
from tfod_zoo.config.label_map import PERSON_KEYPOINTS_LABEL_MAP, read_label_map
from tfod_zoo.config.pipeline import write_pipeline
from tfod_zoo.data.coco_json import import_coco, read_coco
from tfod_zoo.data.shapes import prepare_shapes
from tfod_zoo.errors import UsageError, ZooError
from tfod_zoo.evaluation.coco import METRIC_NAMES
from tfod_zoo.evaluation.coco_keypoints import KEYPOINT_METRICS, RECALL_NOTE, keypoint_metric_name
from tfod_zoo.evaluation.pipeline_data import eval_label_map, with_eval_data

MOBILENET = "centernet_mobilenetv2fpn_512x512_coco17_od"
KEYPOINTS = "centernet_mobilenetv2fpn_512x512_coco17_kpts"


def run(*argv):
    parser = argparse.ArgumentParser()
    eval_command.add_arguments(parser)
    return eval_command.run(parser.parse_args([str(word) for word in argv]))


@pytest.fixture(scope="module")
def model_dir(tmp_path_factory):
    """What training leaves behind: pipeline.config and a checkpoint (of random weights)."""
    folder = tmp_path_factory.mktemp("run")
    data = tmp_path_factory.mktemp("data")
    train, validation, label_map = prepare_shapes(data, train=2, validation=5, image_size=64, seed=1)
    pipeline = generate_pipeline(
        MOBILENET, hardware="cpu", label_map=str(label_map), train_records=str(train), eval_records=str(validation),
        fine_tune_checkpoint="", image_size=64,
    )
    write_pipeline(pipeline, folder / "pipeline.config")
    tfod_zoo.build(pipeline).save_checkpoint(folder / "ckpt-7")
    return folder


def test_a_model_dir_is_evaluated_on_its_own_data(model_dir, capsys):
    assert run("--model-dir", model_dir, "--batch-size", 2) == 0
    printed = capsys.readouterr().out
    assert all(name in printed for name in METRIC_NAMES)
    assert "5 images" in printed and "next: " in printed
    result = json.loads((model_dir / "eval.json").read_text())
    assert result["images"] == 5 and result["checkpoint"].endswith("ckpt-7")
    assert set(result["metrics"]) == set(METRIC_NAMES)
    assert all(value == -1 or 0 <= value <= 1 for value in result["metrics"].values())
    assert result["metrics"][METRIC_NAMES[0]] < 0.3, "random weights find nothing much"


def test_json_checkpoint_limit_and_overrides(model_dir, capsys):
    model = ("--pipeline", model_dir / "pipeline.config", "--checkpoint", model_dir / "ckpt-7")
    override = "model.center_net.object_center_params.max_box_predictions=5"
    assert run(*model, "--limit", 2, "--json", "--per-category", "--set", override) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["images"] == 2 and len(result["metrics"]["per_category"]) >= 2
    assert not any(math.isnan(value) for value in result["metrics"]["per_category"].values())


def test_a_keypoint_model_is_measured_by_both(tmp_path, capsys):
    """From COCO JSON to eval.json with a real network of two keypoint classes."""
    names = {"person": ["nose", "left_eye", "right_eye"], "dog": ["nose", "tail"]}
    categories = [{"id": i, "name": name, "keypoints": points} for i, (name, points) in enumerate(names.items(), 1)]
    images, objects = [], []
    for index in range(3):
        pixels = np.random.default_rng(index).integers(0, 255, (48, 64, 3), np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"{index}.png")
        images.append({"id": index, "file_name": f"{index}.png"})
        objects.append({"id": index + 1, "image_id": index, "category_id": 1, "bbox": [8, 6, 30, 30], "area": 500,
                        "keypoints": [10, 10, 2, 20, 20, 1, 0, 0, 0]})
        objects.append({"id": index + 9, "image_id": index, "category_id": 2, "bbox": [30, 9, 20, 30], "area": 400,
                        "keypoints": [33, 12, 2, 40, 20, 1]})
    annotations = tmp_path / "pets.json"
    annotations.write_text(json.dumps({"images": images, "annotations": objects, "categories": categories}))
    report = import_coco(read_coco(annotations), tmp_path, tmp_path / "records")
    pipeline = generate_pipeline(
        KEYPOINTS, hardware="cpu", label_map=str(report.label_map), train_records=report.records["pets"],
        eval_records=report.records["pets"], fine_tune_checkpoint="", image_size=64,
    )
    folder = tmp_path / "run"
    folder.mkdir()
    write_pipeline(pipeline, folder / "pipeline.config")
    tfod_zoo.build(pipeline).save_checkpoint(folder / "ckpt-1")
    assert run("--model-dir", folder) == 0
    printed = capsys.readouterr().out
    metrics = json.loads((folder / "eval.json").read_text())["metrics"]
    wanted = {keypoint_metric_name(metric, name) for metric in KEYPOINT_METRICS for name in names}
    assert set(metrics) == {*METRIC_NAMES, *wanted}
    assert all(f"{name} " in printed for name in wanted) and RECALL_NOTE in printed
    assert all(value == -1 or 0 <= value <= 1 for value in metrics.values())


@pytest.mark.parametrize(
    "argv, kind, sentence",
    [
        ([], UsageError, "--model-dir"),
        (["--pipeline", "p.config"], UsageError, "--checkpoint"),
        (["--model-dir", "nowhere"], UsageError, "does not exist"),
        (["--model-dir", "nowhere", "--limit", "0"], UsageError, "--limit 0"),
    ],
)
def test_wrong_use_gets_a_sentence(argv, kind, sentence):
    with pytest.raises(kind, match=sentence):
        run(*argv)


def test_a_folder_without_a_checkpoint_gets_a_sentence(model_dir, tmp_path):
    (tmp_path / "pipeline.config").write_text((model_dir / "pipeline.config").read_text())
    with pytest.raises(ZooError, match="holds no checkpoint"):
        run("--model-dir", tmp_path)


def test_a_config_without_data_gets_a_sentence():
    with pytest.raises(UsageError, match="--dataset"):
        with_eval_data(generate_pipeline(MOBILENET))
    coco = with_eval_data(generate_pipeline(MOBILENET), "tfds:coco/2017:validation").eval_input_reader[0]
    assert list(coco.tf_record_input_reader.input_path) == ["tfds:coco/2017:validation"]
    assert read_label_map(coco.label_map_path).max_id == 90


def test_tfds_has_cocos_boxes_only():
    """So keypoint models are measured on it by boxes: no keypoints are asked of it."""
    pipeline = generate_pipeline(KEYPOINTS)
    reader = with_eval_data(pipeline, "tfds:coco/2017:validation").eval_input_reader[0]
    assert reader.num_keypoints == 0 and pipeline.eval_input_reader[0].num_keypoints == 17
    given = with_eval_data(pipeline, "val.tfrecord", reader.label_map_path).eval_input_reader[0]
    assert given.num_keypoints == 17


def test_a_model_of_persons_is_measured_by_persons(tmp_path):
    def map_of(model, label_map):
        return eval_label_map(with_eval_data(generate_pipeline(model), "val.tfrecord", label_map))

    (person,) = map_of(KEYPOINTS, PERSON_KEYPOINTS_LABEL_MAP).items
    assert (person.id, person.title, len(person.keypoints)) == (1, "person", 17)
    assert map_of("centernet_resnet50_v2_512x512_kpts_coco17_tpu-8", PERSON_KEYPOINTS_LABEL_MAP).max_id == 90
    cells = tmp_path / "cells.pbtxt"
    cells.write_text('item { id: 1 name: "RBC" } item { id: 2 name: "WBC" }')
    assert map_of(KEYPOINTS, cells).max_id == 2, "another data set's map is left to be refused"
