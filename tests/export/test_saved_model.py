"""A SavedModel has the reference's signature, and calling it is calling the model."""

import json
import logging
import shutil
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
import tf_keras

import tfod_zoo
from tfod_zoo.certification.certificate import generated_images
from tfod_zoo.cli.main import main
from tfod_zoo.config.pipeline import apply_override
from tfod_zoo.errors import UsageError, ZooError
from tfod_zoo.export.saved_model import INPUT_TYPES, ServingModule, compare_with_model, export_saved_model

# Of the reference's own exports: ../shared/reference/signatures of the project's measurements.
SIGNATURES = json.loads((Path(__file__).parent / "golden" / "signatures.json").read_text())
BOXES = "centernet_mobilenetv2fpn_512x512_coco17_od"
KEYPOINTS = "centernet_mobilenetv2fpn_512x512_coco17_kpts"
TWO_STAGES = "faster_rcnn_resnet50_v1_640x640_coco17_tpu-8"


def small(name: str, seed: int = 0):
    """The zoo's network on a canvas of 64x64 or 128x128, with random weights."""
    tf_keras.utils.set_random_seed(seed)
    two_stages = name == TWO_STAGES
    pipeline = tfod_zoo.generate_pipeline(name, image_size=128 if two_stages else 64)
    if two_stages:
        apply_override(pipeline, "model.faster_rcnn.first_stage_max_proposals=16")
    return tfod_zoo.build(pipeline)


@pytest.fixture(scope="module")
def boxes():
    return small(BOXES)


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.slow] if "hg104" in name else []) for name in SIGNATURES]
)
def test_the_signature_is_the_reference_s(name):
    module = ServingModule(tfod_zoo.build(tfod_zoo.generate_pipeline(name)))
    traced = module.__call__.get_concrete_function()
    wanted = SIGNATURES[name]
    inputs = traced.structured_input_signature[0]
    assert {spec.name: [spec.dtype.name, [size or -1 for size in spec.shape]] for spec in inputs} == wanted["inputs"]
    outputs = {key: [value.dtype.name, value.shape.as_list()] for key, value in traced.structured_outputs.items()}
    assert outputs == wanted["outputs"]


@pytest.mark.parametrize("name", [BOXES, KEYPOINTS, TWO_STAGES])
def test_calling_it_is_detect(name, tmp_path):
    model = small(name)
    report = export_saved_model(model, tmp_path, generated_images()[:2], say=lambda line: None)
    assert max(report["largest_difference"].values()) <= 1e-6
    image = tf.constant(generated_images()[2][None])
    loaded = tf.saved_model.load(str(tmp_path / "saved_model"))
    for key, value in loaded(image).items():
        np.testing.assert_array_equal(value, model.detect(image)[key], err_msg=key)


def test_tensorflow_serving_can_warm_up(boxes, tmp_path):
    from tensorflow_serving.apis.prediction_log_pb2 import PredictionLog

    images = generated_images()[:2]
    export_saved_model(boxes, tmp_path, images, say=lambda line: None)
    served = tf.saved_model.load(str(tmp_path / "saved_model")).signatures["serving_default"]
    requests = tf.data.TFRecordDataset(str(tmp_path / "saved_model/assets.extra/tf_serving_warmup_requests"))
    logs = [PredictionLog.FromString(record) for record in requests.as_numpy_iterator()]
    assert len(logs) == len(images)
    for log, image in zip(logs, images, strict=True):
        request = log.predict_log.request
        assert request.model_spec.signature_name == "serving_default"
        sent = {key: tf.constant(tf.make_ndarray(value)) for key, value in request.inputs.items()}
        np.testing.assert_array_equal(served(**sent)["detection_boxes"], boxes.detect(image[None])["detection_boxes"])


@pytest.mark.parametrize("input_type", INPUT_TYPES)
def test_every_input_type_gives_the_same_detections(boxes, tmp_path, input_type):
    images = generated_images()[:2]
    report = export_saved_model(boxes, tmp_path, images, input_type=input_type, say=lambda line: None)
    assert max(report["largest_difference"].values()) <= 1e-6
    served = tf.saved_model.load(str(tmp_path / "saved_model")).signatures["serving_default"]
    assert list(served.structured_input_signature[1]) == ["input_tensor"]
    if input_type == "encoded_image_string_tensor":  # images of two sizes in one call
        together = served(input_tensor=tf.stack([tf.io.encode_png(image) for image in images]))
        assert together["detection_boxes"].shape[0] == 2
        np.testing.assert_allclose(
            together["detection_scores"][1], boxes.detect(images[1][None])["detection_scores"][0], atol=1e-6
        )


def test_what_lies_beside_it_is_loaded_and_trained_from(boxes, tmp_path):
    lines = []
    export_saved_model(boxes, tmp_path, generated_images()[:1], made_of="random weights", say=lines.append)
    again = tfod_zoo.load(tmp_path)
    for one, other in zip(boxes.variables, again.variables, strict=True):
        np.testing.assert_array_equal(one, other)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "checkpoint", "export.json", "label_map.pbtxt", "pipeline.config", "saved_model",
    ]  # fmt: skip
    assert json.loads((tmp_path / "export.json").read_text())["made_of"] == "random weights"
    assert "as the model on 1 images" in lines[0]


def test_the_classes_names_go_with_it(tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "label_map.pbtxt").write_text('item { id: 1 name: "cell" }')
    model = small(BOXES, 1)
    model.folder = tmp_path / "run"
    export_saved_model(model, tmp_path / "out", generated_images()[:1], say=lambda line: None)
    shutil.rmtree(tmp_path / "run")
    assert tfod_zoo.load(tmp_path / "out").labels.name(1) == "cell"


def test_another_model_s_export_is_told_apart(boxes, tmp_path):
    export_saved_model(boxes, tmp_path, generated_images()[:1], say=lambda line: None)
    try:
        differences = compare_with_model(tmp_path / "saved_model", small(BOXES, 1), generated_images(), INPUT_TYPES[0])
    except ZooError as error:
        assert "misses" in str(error)
    else:
        assert not all(value.agrees for value in differences.values())


def test_tensorflow_does_not_talk_of_assets(boxes, tmp_path, caplog):
    logger = tf.get_logger()
    before = logger.level
    logger.setLevel("INFO")  # as it is in a notebook
    logger.addHandler(caplog.handler)
    try:
        export_saved_model(boxes, tmp_path / "out", generated_images()[:1], say=lambda line: None)
        assert caplog.records == [] and logger.level == logging.INFO
    finally:
        logger.removeHandler(caplog.handler)
        logger.setLevel(before)


def test_a_failed_export_leaves_the_one_before(boxes, tmp_path, monkeypatch):
    export_saved_model(boxes, tmp_path, generated_images()[:1], say=lambda line: None)
    before = (tmp_path / "saved_model" / "saved_model.pb").read_bytes()
    monkeypatch.setattr("tfod_zoo.certification.comparison.TOLERANCE", -1.0)
    with pytest.raises(ZooError, match="was not kept"):
        export_saved_model(boxes, tmp_path, generated_images()[:1], say=lambda line: None)
    assert (tmp_path / "saved_model" / "saved_model.pb").read_bytes() == before
    assert not list(tmp_path.glob(".*"))


def test_wrong_use_is_one_sentence(boxes, tmp_path, capsys):
    with pytest.raises(UsageError, match="image_tensor"):
        export_saved_model(boxes, tmp_path, generated_images(), input_type="jpeg")
    with pytest.raises(UsageError, match="no image"):
        export_saved_model(boxes, tmp_path, [])
    (tmp_path / "file").write_text("")
    with pytest.raises(ZooError, match="cannot be written"):
        export_saved_model(boxes, tmp_path / "file", generated_images()[:1])
    assert main(["export", "nothing", "--out", str(tmp_path / "out")]) == 2
    assert "nothing" in capsys.readouterr().err
