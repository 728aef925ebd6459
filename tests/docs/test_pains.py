"""What users of TFOD break on, one test a pain: the package is run, small, and must do what the page promises.

`docs/moving-from-tfod.md` has the same twenty-five in the same order, with the longer tests of each.
"""

from __future__ import annotations

import ast
import configparser
import contextlib
import io
import json
import os
import re
import resource
import shutil
import statistics
import subprocess
import sys
import threading
import zipfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib import metadata
from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest
from packaging.requirements import Requirement
from packaging.version import Version
from PIL import Image

import tfod_zoo
from tfod_zoo.certification.certificate import generated_images
from tfod_zoo.certification.shipped_model import STANDARD, TFLITE_STYLE, ShippedModel
from tfod_zoo.cli.main import main
from tfod_zoo.config.label_map import PERSON_KEYPOINTS_LABEL_MAP
from tfod_zoo.errors import ZooError
from tfod_zoo.training import progress, trainer
from tfod_zoo.zoo import registry
from tfod_zoo.zoo.variables import expected_variables

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "moving-from-tfod.md"
BOXES = "centernet_mobilenetv2fpn_512x512_coco17_od"
PERSONS = "centernet_mobilenetv2fpn_512x512_coco17_kpts"
HOURGLASS = "centernet_hg104_512x512_coco17_tpu-8"
STEPS, EVERY = 40, 20


def zoo(*arguments: object) -> tuple[int, str, str]:
    """Exit code, standard output and standard error of one command line."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = main([str(argument) for argument in arguments])
    return code, out.getvalue(), err.getvalue()


def refused(*arguments: object, code: int) -> str:
    """The one sentence with which a command fails."""
    got, _, err = zoo(*arguments)
    assert got == code, err
    sentences = [line for line in err.splitlines() if line.startswith("tfod-zoo: ")]
    assert len(sentences) == 1 and "Traceback" not in err, err
    return sentences[0].removeprefix("tfod-zoo: ")


def refused_without_tensorflow(*arguments: object) -> str:
    """The sentence of a wrong use that is found out before TensorFlow is there."""
    program = (
        "import sys; from tfod_zoo.cli.main import main; code = main(sys.argv[1:]); "
        "sys.exit(code if 'tensorflow' not in sys.modules else 99)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, *map(str, arguments)], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 2, (done.returncode, done.stderr)
    return done.stderr.strip().removeprefix("tfod-zoo: ")


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Flags of `config` for a few small images of shapes."""
    folder = tmp_path_factory.mktemp("shapes")
    counts = ["--train", 16, "--validation", 4, "--image-size", 64]
    code, out, _ = zoo("data", "shapes", "--out", folder, *counts)
    assert code == 0
    _, training, validation, label_map, _ = out.splitlines()
    return ["--label-map", label_map, "--train-records", training, "--eval-records", validation]


@pytest.fixture(scope="module")
def trained(data, tmp_path_factory):
    """A short training by the generated config of the model that could not be trained by its own: its folder, what
    was printed, and the memory at each step that was shown."""
    folder = tmp_path_factory.mktemp("runs") / "shapes"
    config, resident = folder.parent / "shapes.config", {}
    assert zoo(
        "config", BOXES, *data, "--checkpoint", "none", "--hardware", "cpu", "--image-size", 64, "--batch-size", 2,
        "--steps", STEPS, "--out", config,
    )[0] == 0  # fmt: skip
    show = progress.ProgressDisplay.show

    def noted(display, at):
        resident[at.step] = int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()
        show(display, at)

    with pytest.MonkeyPatch.context() as patch:
        # Steps this fast would pass between two lines.
        patch.setattr(progress, "_SECONDS_BETWEEN_LINES", 0)
        patch.setattr(trainer, "_SECONDS_BETWEEN_READINGS", 0)
        patch.setattr(progress.ProgressDisplay, "show", noted)
        code, out, err = zoo("train", "--pipeline", config, "--model-dir", folder, "--eval-every", EVERY)
    assert code == 0, err
    return folder, out, resident


@pytest.fixture(scope="module")
def exported(trained, tmp_path_factory):
    folder = tmp_path_factory.mktemp("export")
    code, out, err = zoo("export", trained[0], "--out", folder)
    assert code == 0, err
    return folder, out


@pytest.fixture(scope="module")
def persons():
    """The zoo's smallest keypoint model on a small canvas."""
    import tf_keras

    tf_keras.utils.set_random_seed(0)
    return tfod_zoo.build(tfod_zoo.generate_pipeline(PERSONS, image_size=64))


@pytest.fixture(scope="module")
def other_heads(trained):
    """The trained network for another number of classes, with random weights."""
    pipeline = tfod_zoo.read_pipeline(trained[0] / "pipeline.config")
    pipeline.model.center_net.num_classes = 2
    return tfod_zoo.build(pipeline)


@pytest.fixture(scope="module")
def litert(persons, tmp_path_factory):
    """The keypoint model's LiteRT export."""
    from tfod_zoo.export.exported import export_networks

    folder = tmp_path_factory.mktemp("litert")
    return export_networks(persons, folder, generated_images()[:1], format="litert", lenient=True)


def test_01_pip_install_builds_nothing(tmp_path):
    for name in ("tfod_zoo", "setup.cfg", "pyproject.toml", "README.md", "LICENSE"):
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, tmp_path)
    command = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-index", "--no-build-isolation"]
    subprocess.run([*command, "-w", str(tmp_path / "dist"), str(tmp_path)], check=True, capture_output=True)
    (wheel,) = (tmp_path / "dist").iterdir()
    assert wheel.name.endswith("-py3-none-any.whl"), "nothing is compiled, so it is the same on aarch64"
    names = zipfile.ZipFile(wheel).namelist()
    assert {"tfod_zoo/config/pipeline_descriptor.pb", "tfod_zoo/config/label_maps/coco.pbtxt"} <= set(names)
    assert not [name for name in names if name.endswith("_pb2.py")], "no protoc, neither here nor before"


def test_02_mobilenet_trains_with_the_generated_config(trained, tmp_path):
    config = trained[0] / "pipeline.config"
    written = tfod_zoo.read_pipeline(config)
    assert not written.train_input_reader.num_keypoints and "keypoint_flip_permutation" not in str(written)
    assert (trained[0] / "checkpoint").read_text().startswith(f'model_checkpoint_path: "ckpt-{STEPS}"')
    # The published one asks for keypoints that box data have not, and says so only when it fails.
    written.train_input_reader.num_keypoints = 17
    tfod_zoo.write_pipeline(written, tmp_path / "published.config")
    code, out, err = zoo("config", "check", tmp_path / "published.config")
    assert code == 1 and "train_input_reader.num_keypoints is 17" in out + err


def test_03_an_export_is_compared_or_refused(trained, exported, tmp_path):
    report = json.loads((exported[0] / "export.json").read_text())
    assert max(report["largest_difference"].values()) <= 1e-3 and report["images"] >= 1
    assert "as the model on" in exported[1]
    shutil.copy(trained[0] / "pipeline.config", tmp_path)
    assert "holds no checkpoint yet" in refused("export", tmp_path, "--out", tmp_path / "out", code=1)
    wrong = ["--weights", trained[0] / "ckpt-77"]
    assert "ckpt-77.index does not exist" in refused("export", trained[0], "--out", tmp_path / "out", *wrong, code=1)
    assert not (tmp_path / "out" / "saved_model").exists()


def test_04_saved_models_are_callable_and_unnamed_outputs_are_known(exported, tmp_path):
    import tensorflow as tf

    image = generated_images()[0]
    loaded = tf.saved_model.load(str(exported[0] / "saved_model"))
    called, served = loaded(tf.constant(image[None])), loaded.signatures["serving_default"](tf.constant(image[None]))
    assert called.keys() == served.keys() >= {"detection_boxes", "detection_scores", "detection_classes"}
    assert ShippedModel(exported[0]).form == STANDARD

    module = tf.Module()

    @tf.function(input_signature=[tf.TensorSpec([1, 32, 32, 3], tf.float32, name="input")])
    def as_the_mobilenet_archives_have_it(input):
        return {
            "output_0": tf.constant([[0.9, 0.25]]),
            "output_1": tf.constant([[[0.0, 0.0, 1.0, 1.0], [0.0, 0.0, 0.5, 0.5]]]),
            "output_2": tf.constant([2.0]),
            "output_3": tf.constant([[0.0, 2.0]]),
        }

    tf.saved_model.save(module, str(tmp_path / "saved_model"),
                        signatures={"serving_default": as_the_mobilenet_archives_have_it})
    shipped = ShippedModel(tmp_path)
    found = shipped(shipped.input_image(image))
    assert shipped.form == TFLITE_STYLE
    assert found["detection_scores"].tolist() == [[pytest.approx(0.9), 0.25]]
    assert found["detection_classes"].tolist() == [[1, 3]], "from 1, as everywhere else"


def test_05_the_checkpoint_and_its_type_are_written_checked_and_reported(trained, other_heads, data, tmp_path):
    checkpoint = trained[0] / f"ckpt-{STEPS}"
    config = tmp_path / "fine.config"
    assert zoo("config", BOXES, *data, "--checkpoint", checkpoint, "--image-size", 64, "--out", config)[0] == 0
    written = tfod_zoo.read_pipeline(config)
    start = written.train_config
    assert (start.fine_tune_checkpoint, start.fine_tune_checkpoint_type) == (str(checkpoint), "detection")
    assert start.fine_tune_checkpoint_version == 2

    wrong = ["--set", "train_config.fine_tune_checkpoint_type=fine_tune"]
    train = ["train", "--pipeline", config, "--model-dir", tmp_path / "run", *wrong]
    assert 'use "detection"' in refused_without_tensorflow(*train)
    asked = [*data, "--checkpoint", checkpoint, "--checkpoint-type", "classification"]
    assert 'no "classification" of an hourglass' in refused_without_tensorflow("config", HOURGLASS, *asked)

    report = other_heads.restore_checkpoint(str(checkpoint), mode="detection")
    total = len(report.restored) + len(report.missing)
    assert report.summary().startswith(f"restored {len(report.restored)} of {total} variables from {checkpoint}")
    assert "new: " in report.summary() and len(report.restored) > 250


def test_06_the_keypoints_class_is_there_and_is_looked_up_before_anything_runs(persons, tmp_path):
    assert 'name: "/m/01g317"' in PERSON_KEYPOINTS_LABEL_MAP.read_text()
    found = persons.detect(generated_images()[0][None])
    assert found["detection_keypoints"].shape == (1, 20, 17, 2)
    assert float(np.ptp(found["detection_keypoints"])) > 0

    renamed = ["--set", "model.center_net.keypoint_estimation_task[0].keypoint_class_name=person"]
    maps = ["--set", f"model.center_net.keypoint_label_map_path={PERSON_KEYPOINTS_LABEL_MAP}"]
    assert zoo("config", PERSONS, *renamed, *maps, "--out", tmp_path / "wrong.config")[0] == 0
    code, out, err = zoo("config", "check", tmp_path / "wrong.config")
    assert code == 1 and 'keypoint_class_name "person" has no keypoints' in out + err
    with pytest.raises(ZooError, match='no keypoints for a class named "person"'):
        tfod_zoo.build(tfod_zoo.read_pipeline(tmp_path / "wrong.config"))


def test_07_a_keypoint_centernet_becomes_litert_with_its_keypoints(persons, litert):
    from tfod_zoo.export.exported import load_exported

    assert (litert / "heads.tflite").stat().st_size > 1e6
    image = generated_images()[0][None]
    found, wanted = load_exported(litert)(image), persons.detect(image)
    assert found["detection_keypoints"].shape == (1, 20, 17, 2)
    np.testing.assert_allclose(found["detection_scores"], wanted["detection_scores"], atol=1e-4)
    assert "litert: float32" in _help("export")


def test_08_a_metric_that_would_mean_nothing_is_refused_and_minus_one_is_explained(trained, data, tmp_path):
    other_metrics = "eval_config.metrics_set[0]=pascal_voc_detection_metrics"
    code, out, _ = zoo("eval", "--model-dir", trained[0], "--set", other_metrics)
    assert code == 0 and "mAP (large)" in out and "-1: the data have no ground truth of that size" in out
    assert "names pascal_voc_detection_metrics, which is not measured here" in out

    other = tmp_path / "other.pbtxt"
    other.write_text('item { id: 1 name: "cat" } item { id: 2 name: "dog" }')
    assert "label map" in refused("eval", "--model-dir", trained[0], "--label-map", other, code=1)
    other.write_text('item { id: 0 name: "circle" } item { id: 1 name: "square" }')
    assert "ids start at 1" in refused("eval", "--model-dir", trained[0], "--label-map", other, code=1)


def test_09_batch_and_rate_are_for_the_device_at_hand(data):
    rates, batches = {}, {}
    for hardware in ("tpu-8", "gpu", "cpu"):
        code, out, _ = zoo("config", BOXES, *data, "--checkpoint", "a/ckpt-1", "--hardware", hardware)
        assert code == 0
        train = tfod_zoo.read_pipeline(out).train_config
        batches[hardware] = train.batch_size
        rates[hardware] = train.optimizer.adam_optimizer.learning_rate.cosine_decay_learning_rate.learning_rate_base
    assert batches == {"tpu-8": 512, "gpu": 16, "cpu": 8}
    assert rates["gpu"] == pytest.approx(rates["tpu-8"] * (16 / 512) ** 0.5, rel=1e-3)
    assert "--dry-run" in _help("train") and "memory" in _help("train")


def test_10_a_tpu_run_is_printed_and_its_paths_are_checked(tmp_path):
    config = tmp_path / "tpu.config"
    pipeline = tfod_zoo.generate_pipeline(BOXES)
    pipeline.train_config.fine_tune_checkpoint = ""
    for reader in (pipeline.train_input_reader, pipeline.eval_input_reader[0]):
        reader.label_map_path = "gs://bucket/label_map.pbtxt"
        reader.tf_record_input_reader.input_path[:] = ["gs://bucket/train-*"]
    tfod_zoo.write_pipeline(pipeline, config)
    launch = ["tpu", "launch", "cells-1", "--zone", "europe-west4-a", "--pipeline", config, "--dry-run"]
    code, out, _ = zoo(*launch, "--topology", "v3-8", "--model-dir", "gs://bucket/run")
    lines = out.splitlines()
    assert code == 0 and lines[0].startswith("gcloud storage ls gs://bucket")
    assert any("tpu-vm create cells-1" in line for line in lines) and any("--device tpu" in line for line in lines)
    assert "gs://" in refused(*launch, "--topology", "v3-32", "--model-dir", "runs/here", code=2)


def test_11_keras_3_beside_it_does_no_harm(persons):
    import keras
    import tensorflow as tf
    import tf_keras

    assert Version(keras.__version__) >= Version("3") and Version(tf.keras.__version__) >= Version("3")
    assert isinstance(persons, tf_keras.Model) and not isinstance(persons, tf.keras.Model)
    asked = [
        path.name
        for path in (ROOT / "tfod_zoo").rglob("*.py")
        if any(re.search(r"\btf\.keras\b|tensorflow\.keras", line.split("#")[0].split('"""')[0])
               for line in path.read_text(encoding="utf-8").splitlines())
    ]  # fmt: skip
    assert asked == [], "which Keras tf.keras is must not matter"


def test_12_every_model_has_a_config_and_its_variables_on_record():
    for name in tfod_zoo.list_models():
        code, out, _ = zoo("config", name)
        assert code == 0 and out == (ROOT / "pipelines" / f"{name}.config").read_text(encoding="utf-8")
        if registry.get_model(name).archive_url:
            assert len(expected_variables(name)) > 200, "what its checkpoint's index is compared with"


def test_13_a_dead_link_is_explained_and_there_are_other_ways(tmp_path, monkeypatch):
    class Denied(BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_error(403, "Forbidden")

        def log_message(self, *arguments):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Denied)
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    for variable in ("TFOD_ZOO_MIRROR", "TFOD_ZOO_OFFLINE"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setattr(registry, "ARCHIVE_BASES", (f"http://127.0.0.1:{server.server_address[1]}/",))
    try:
        said = refused("download", BOXES, "--store", tmp_path, code=1)
    finally:
        server.shutdown()
        server.server_close()
    assert "is not there or was renamed (its host answers 403)" in said
    said = refused("download", BOXES, "--store", tmp_path, "--offline", code=1)
    assert "--from-file" in said and "network is not to be used" in said


def test_14_classes_come_from_the_label_map_and_other_heads_are_new_by_design(trained, other_heads):
    written = tfod_zoo.read_pipeline(trained[0] / "pipeline.config")
    assert written.model.center_net.num_classes == 5  # the shapes
    checkpoint = str(trained[0] / f"ckpt-{STEPS}")
    with pytest.raises(ZooError) as caught:
        other_heads.restore_checkpoint(checkpoint, mode="full")
    said = str(caught.value)
    assert "5] there and" in said and "for another number of classes" in said and '"detection"' in said
    assert other_heads.restore_checkpoint(checkpoint, mode="detection").restored


def test_15_boxes_that_make_nan_are_found_before_training(tmp_path):
    (tmp_path / "images").mkdir()
    rows = ["filename,width,height,class,xmin,ymin,xmax,ymax"]
    for shade, name in enumerate(("a.jpg", "b.jpg"), 60):
        Image.fromarray(np.full((48, 64, 3), shade, np.uint8)).save(tmp_path / "images" / name)
        rows += [f"{name},64,48,cell,10,10,30,30", f"{name},64,48,cell,40,10,20,30"]
    (tmp_path / "train.csv").write_text("\n".join(rows) + "\n")
    code, out, err = zoo("data", "check", tmp_path)
    assert code == 1 and re.search(r"error +2 +boxes without area +train.csv, line \d", out), out + err
    schedule = tfod_zoo.generate_pipeline(BOXES).train_config.optimizer.adam_optimizer.learning_rate
    assert schedule.cosine_decay_learning_rate.warmup_steps > 0


def test_16_the_declared_protobuf_can_run_all_generated_code():
    """The lowest version that is declared: pip may install it beside what declares less than it needs."""
    requirements = [Requirement(text) for text in _declared_dependencies()]
    (lowest,) = [
        Version(one.version) for need in requirements if need.name == "protobuf" for one in need.specifier
        if one.operator == ">="
    ]  # fmt: skip
    needed = {}
    for package in ("tensorflow", "tensorflow_metadata", "tensorflow_serving"):
        for path in Path(str(files(package))).rglob("*_pb2.py"):
            made_by = re.search(r"Domain\.PUBLIC,\s*(\d+),\s*(\d+),\s*(\d+)", path.read_text(encoding="utf-8"))
            if made_by:
                needed[package] = max(needed.get(package, Version("0")), Version(".".join(made_by.groups())))
    assert needed["tensorflow"] and all(version <= lowest for version in needed.values()), (needed, lowest)
    assert Version(metadata.version("protobuf")) >= lowest
    # Its own schema has no generated code: the C and the pure Python implementation read it alike.
    command = [sys.executable, "-m", "tfod_zoo.cli.main", "config", BOXES]
    texts = [
        subprocess.run(
            command, cwd=ROOT, check=True, capture_output=True, text=True, env=_environment(implementation)
        ).stdout
        for implementation in ("upb", "python")
    ]
    assert texts[0] == texts[1] != ""


def test_17_keypoints_of_ones_own_from_coco_json_to_the_config(tmp_path):
    names = ["nose", "left_eye", "right_eye"]
    (tmp_path / "images").mkdir()
    Image.fromarray(np.full((48, 64, 3), 90, np.uint8)).save(tmp_path / "images" / "a.jpg")
    pose = {"keypoints": [10, 12, 2, 12, 10, 2, 8, 10, 2], "num_keypoints": 3}
    content = {
        "images": [{"id": 1, "file_name": "a.jpg", "width": 64, "height": 48}],
        "annotations": [{"id": 1, "image_id": 1, "category_id": 1, "bbox": [5, 5, 20, 30], "area": 600, **pose}],
        "categories": [{"id": 1, "name": "cat", "keypoints": names, "skeleton": []}],
    }
    (tmp_path / "cats.json").write_text(json.dumps(content))
    flags = ["--annotations", tmp_path / "cats.json", "--images", tmp_path / "images", "--out", tmp_path / "records"]
    assert zoo("data", "coco", *flags)[0] == 0
    records = [f"{tmp_path}/records/*.tfrecord*"]
    flags = ["--label-map", tmp_path / "records" / "label_map.pbtxt", "--checkpoint", "none"]
    code, out, err = zoo("config", PERSONS, *flags, "--train-records", *records, "--eval-records", *records)
    assert code == 0, err
    pipeline = tfod_zoo.read_pipeline(out)
    (task,) = pipeline.model.center_net.keypoint_estimation_task
    assert task.keypoint_class_name == "cat" and pipeline.train_input_reader.num_keypoints == 3
    flips = [step.random_horizontal_flip for step in pipeline.train_config.data_augmentation_options
             if step.HasField("random_horizontal_flip")]  # fmt: skip
    assert [list(flip.keypoint_flip_permutation) for flip in flips] == [[0, 2, 1]]
    (metric,) = pipeline.eval_config.parameterized_metric
    assert set(metric.coco_keypoint_metrics.keypoint_label_to_sigmas) == set(names)


def test_18_a_config_that_does_not_parse_says_where(tmp_path):
    config = tmp_path / "typo.config"
    config.write_text("model {\n  center_net {\n    num_clases: 3\n  }\n}\n")
    said = refused("config", "check", config, code=1)
    assert f"{config}, line 3, column" in said and 'did you mean "num_classes"' in said
    assert "num_classes" in refused("config", BOXES, "--set", "model.center_net.num_clases=3", code=1)


def test_19_memory_stays(trained):
    resident = trained[2]
    # Behind the evaluation that traces; medians, because a moment's batch in flight says nothing.
    quarter = (STEPS - EVERY) // 2
    before, after = (
        statistics.median(resident[step] for step in resident if first < step <= first + quarter)
        for first in (EVERY, EVERY + quarter)
    )
    assert after - before < 100 * 2**20, f"{(after - before) / 2**20:.0f} MiB more in {quarter} steps"


def test_20_it_says_which_state_of_tfod_it_is():
    code, out, _ = zoo("--version")
    assert code == 0 and "tensorflow/models of 2021-07-24" in out
    assert tfod_zoo.REFERENCE in PAGE.read_text(encoding="utf-8")


def test_21_outputs_are_said_for_each_model_and_are_so(persons):
    for name in tfod_zoo.list_models():
        model, (code, out, _) = tfod_zoo.get_model(name), zoo("show", name)
        outputs = next(line for line in out.splitlines() if line.strip().startswith("outputs"))
        assert code == 0 and " and ".join(model.outputs) in outputs
        assert f"{model.max_detections} detections at most" in outputs
        assert ("persons only" if model.num_classes == 1 else f"{model.num_classes} classes") in outputs
    model, found = tfod_zoo.get_model(PERSONS), persons.detect(generated_images()[0][None])
    assert found["detection_scores"].shape == (1, model.max_detections)
    assert set(np.unique(found["detection_classes"])) == {1.0}, "class ids start at 1"


def test_22_eval_takes_one_checkpoint_and_ends(trained):
    folder = trained[0]
    first = ["--pipeline", folder / "pipeline.config", "--checkpoint", folder / "ckpt-0", "--limit", 2, "--json"]
    code, out, _ = zoo("eval", *first)
    assert code == 0 and json.loads(out)["checkpoint"].endswith("ckpt-0") and json.loads(out)["images"] == 2
    # While it trained, it was evaluated too, and the best checkpoint kept.
    assert f"step {EVERY}: AP " in trained[1] and (folder / "best" / "checkpoint").is_file()


def test_23_a_conversion_that_differs_from_its_model_is_told(persons, litert):
    from tfod_zoo.export.exported import compare_with_model, load_networks

    images, networks = generated_images()[:1], load_networks(litert)
    assert not compare_with_model(persons, persons, networks, images).outputs_beyond("float32")
    kept = [variable.numpy() for variable in persons.trainable_variables]
    for variable in persons.trainable_variables:
        variable.assign(variable * 1.1)
    try:
        assert compare_with_model(persons, persons, networks, images).outputs_beyond("float32")
    finally:
        for variable, value in zip(persons.trainable_variables, kept, strict=True):
            variable.assign(value)


def test_24_fields_are_set_by_name_not_by_regular_expressions(data):
    code, out, _ = zoo(
        "config", BOXES, *data, "--checkpoint", "none", "--set", "train_config.batch_size=4",
        "--set", "model.center_net.object_center_params.max_box_predictions=50",
    )  # fmt: skip
    pipeline = tfod_zoo.read_pipeline(out)
    assert code == 0 and pipeline.train_config.batch_size == 4
    assert pipeline.model.center_net.object_center_params.max_box_predictions == 50
    said = refused("config", BOXES, *data, "--checkpoint", "none", "--set", "train_config.batch_sise=4", code=1)
    assert "batch_size" in said


def test_25_what_it_does_at_step_0_and_how_long_it_will_take(trained):
    out = trained[1]
    assert out.index("tracing the train step") < out.index(f"step 1 of {STEPS} took ")
    assert re.search(rf"step 1 of {STEPS} took [\d.]+ s, tracing included", out)
    assert re.search(rf"step \d+ of {STEPS}  loss [\d.]+  [\d.]+ steps/s  about [\d.]+ \w+ left", out)


ROWS = re.findall(r"^\| (\d+) \| (.+) \| (.+) \| (.+) \|$", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
TESTS = sorted(set(re.findall(r"tests/[\w/]+\.py(?:::\w+)+", PAGE.read_text(encoding="utf-8"))))


def test_the_page_has_all_of_them_in_order_each_with_its_test():
    assert [int(number) for number, *_ in ROWS] == list(range(1, 26))
    here = [name for name in globals() if re.match(r"test_\d\d_", name)]
    for (number, _, _, shown), name in zip(ROWS, here, strict=True):
        assert name.startswith(f"test_{int(number):02}_") and f"tests/docs/test_pains.py::{name}" in shown, number


@pytest.mark.parametrize("test", TESTS)
def test_a_test_that_the_page_names_exists(test):
    path, *names = test.split("::")
    body = ast.parse((ROOT / path).read_text(encoding="utf-8")).body
    for name in names:
        found = [node for node in body if isinstance(node, (ast.FunctionDef, ast.ClassDef)) and node.name == name]
        assert found, f"{path} has no {name}"
        body = found[0].body


def _declared_dependencies() -> list[str]:
    """From setup.cfg: an installed package's metadata may be of an earlier checkout."""
    parser = configparser.ConfigParser()
    parser.read(ROOT / "setup.cfg", encoding="utf-8")
    lines = parser["options"]["install_requires"].splitlines()
    return [line for line in lines if line and not line.startswith("#")]


def _environment(protobuf: str) -> dict[str, str]:
    return {**os.environ, "PROTOCOL_BUFFERS_PYTHON_IMPLEMENTATION": protobuf}


def _help(command: str) -> str:
    out = io.StringIO()
    with contextlib.redirect_stdout(out), pytest.raises(SystemExit):
        main([command, "--help"])
    return out.getvalue()
