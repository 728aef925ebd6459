"""Runtimes of a benchmark: which are asked for, and that each gives the model's own detections."""

import json
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf
import tf_keras

import tfod_zoo
from tfod_zoo.benchmark.entry import Entry
from tfod_zoo.benchmark.loading import export_apart
from tfod_zoo.benchmark.runtimes import PRECISIONS, SAVED_MODEL, choose, exported, tensorflow
from tfod_zoo.benchmark.sweep import plan, run_worker
from tfod_zoo.certification.certificate import generated_images
from tfod_zoo.cli.main import main
from tfod_zoo.errors import UsageError, ZooError
from tfod_zoo.evaluation.coco import make_detect_step
from tfod_zoo.export.exported import export_networks
from tfod_zoo.export.saved_model import ServingModule

MOBILENET = "centernet_mobilenetv2fpn_512x512_coco17_od"
QUICK = {"weights": "random", "min_calls": 2, "min_seconds": 0.0}


@pytest.fixture(scope="module")
def model():
    tf_keras.utils.set_random_seed(0)
    return tfod_zoo.build(tfod_zoo.generate_pipeline(MOBILENET, image_size=64))


def agrees(loaded, model, tolerance):
    images = generated_images()[0][None]
    wanted = model.detect(images)
    found = loaded.detect(images)
    assert found.keys() == wanted.keys()
    np.testing.assert_allclose(found["detection_scores"], wanted["detection_scores"], atol=tolerance)
    canvas, true_shapes = model.to_canvas(images)
    step, steps = loaded.detect_step(canvas, true_shapes), make_detect_step(model)(canvas, true_shapes)
    np.testing.assert_allclose(step["detection_scores"], steps["detection_scores"], atol=tolerance)


@pytest.mark.parametrize("runtime", ["tensorflow", "xla"])
def test_tensorflow_is_the_model(model, runtime):
    agrees(tensorflow.load(model, runtime, "float32"), model, 1e-5)


def test_an_export_is_the_model(model, tmp_path):
    folder = export_networks(model, tmp_path, generated_images()[:1], format="litert", say=lambda line: None)
    agrees(exported.load(model, folder, threads=1), model, 1e-5)


@pytest.mark.parametrize(("runtime", "precision"), [("tensorflow", "bfloat16"), ("litert", "int8")])
def test_a_worker_measures_a_runtime_in_its_own_process(runtime, precision):
    entry = Entry(MOBILENET, input_size=(64, 64), runtime=runtime, precision=precision, threads=1, **QUICK)
    row = json.loads(json.dumps(run_worker(entry)))
    assert row["status"] == "ok", row
    assert row["timed_calls"] == 2 and row["canvas"] == [64, 64]
    if runtime == "litert":
        assert row["export"]["precision"] == "int8" and row["export"]["agreement"]["images"] > 0
    else:
        assert "export" not in row


@pytest.mark.parametrize("form", ["standard", "TFLite-style"])
def test_a_saved_model_of_somebody_else_is_measured_too(model, tmp_path, capsys, form):
    module = ServingModule(model, "image_tensor")
    run = module.__call__
    if form != "standard":

        def unnamed(input):
            found = model.detect(tf.cast(input, tf.uint8))
            return {"output_0": found["detection_boxes"], "output_1": found["detection_scores"]}

        run = tf.function(unnamed, input_signature=[tf.TensorSpec([1, 64, 64, 3], tf.float32, name="input")])
    tf.saved_model.save(module, str(tmp_path / "model" / "saved_model"), signatures={"serving_default": run})
    folder = str(tmp_path / "model")
    wrong = ["benchmark", folder, "--runtimes", "tensorflow,saved_model", "--out", str(tmp_path / "out")]
    assert main(wrong) == 2  # TensorFlow has nothing here to build
    command = ["benchmark", folder, "--runtimes", "saved_model", "--out", str(tmp_path / "out"), "--dataset", "none"]
    capsys.readouterr()
    assert main([*command, "--min-calls", "3", "--min-seconds", "0", "--batch-sizes", "1,2", "--json"]) == 1
    printed = json.loads(capsys.readouterr().out)
    one, two = [json.loads(line) for line in (tmp_path / "out" / "results.jsonl").read_text().splitlines()]
    assert one["status"] == "ok" and one["timed_calls"] >= 3 and one["entry"]["dataset"] is None and "canvas" not in one
    assert two["status"] == "failed" and "takes one image" in two["reason"]
    assert printed == [one, two]
    assert "saved_model" in (tmp_path / "out" / "report.md").read_text()


def test_int8_without_data_is_refused(model, tmp_path):
    tfod_zoo.write_pipeline(model.pipeline, tmp_path / "pipeline.config")
    model.save_checkpoint(tmp_path / "ckpt-1")
    with pytest.raises(ZooError, match="add --dataset"):
        export_apart(Entry(str(tmp_path), runtime="litert", precision="int8"), tmp_path)


def test_an_export_that_was_killed_says_so(tmp_path, monkeypatch):
    killed = tmp_path / "python"
    killed.write_text("#!/bin/sh\necho loading >&2\nkill -9 $$\n")
    killed.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(killed))
    with pytest.raises(ZooError, match="exporting process was ended by SIGKILL; .* out of memory"):
        export_apart(Entry(MOBILENET, weights="random", runtime="onnx"), tmp_path)


def test_runtimes_and_precisions_are_chosen_by_name():
    assert choose("tensorflow,litert", None) == [("tensorflow", "float32"), ("litert", "float32")]
    own = [name for name in PRECISIONS if name != SAVED_MODEL]  # which not every model has
    assert [name for name, _ in choose("all", None)] == own
    assert choose("tensorflow,litert", "int8,float32") == [
        ("tensorflow", "float32"), ("litert", "int8"), ("litert", "float32"),
    ]  # fmt: skip
    every = [(name, each) for name in own for each in PRECISIONS[name]]
    assert sorted(choose("all", "all")) == sorted(every)
    for wrong in (("torch", None), ("tensorflow", "int8"), ("all", "int7")):
        with pytest.raises(UsageError):
            choose(*wrong)


def test_a_sweep_measures_map_on_each_runtime_once():
    entries = plan([MOBILENET], runtimes=choose("tensorflow,openvino", None), batch_sizes=(1, 8), dataset="a", **QUICK)
    assert [(entry.runtime, entry.dataset) for entry in entries] == [
        ("tensorflow", "a"), ("tensorflow", None), ("openvino", "a"), ("openvino", None),
    ]  # fmt: skip
    assert len({entry.title for entry in entries}) == 4


def test_rows_from_before_there_were_runtimes_are_tensorflow_s():
    assert Entry.from_json({"model": MOBILENET}) == Entry(MOBILENET)
    assert Entry(MOBILENET).runtime == "tensorflow"


def test_choosing_needs_no_tensorflow():
    code = "import tfod_zoo.benchmark.runtimes, sys; sys.exit('tensorflow' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
