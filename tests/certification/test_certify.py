"""Certificates on archives built here: a checkpoint of ours, and SavedModels of each form exported from it."""

import json
import tarfile

import numpy as np
import pytest

from tfod_zoo.certification.comparison import OutputDifference, compare_outputs, match
from tfod_zoo.certification.shipped_model import NotComparableError, name_outputs
from tfod_zoo.cli import main as cli

NAME = "centernet_mobilenetv2fpn_512x512_coco17_od"


def detections(count=6, seed=0):
    rng = np.random.default_rng(seed)
    return {
        "detection_boxes": np.sort(rng.random((1, count, 4)), -1).astype(np.float32),
        "detection_scores": np.linspace(0.9, 0.1, count, dtype=np.float32)[None],
        "detection_classes": rng.integers(1, 4, (1, count)).astype(np.float32),
        "num_detections": np.array([count], np.float32),
    }


def differences_of(shipped, ours):
    found = {}
    missing = compare_outputs(shipped, ours, found)
    return found, missing


class TestComparison:
    def test_order_does_not_matter(self):
        first = detections()
        order = np.random.default_rng(1).permutation(6)
        second = {key: value[:, order] if value.ndim > 1 else value for key, value in first.items()}
        found, missing = differences_of(first, second)
        assert missing == 0 and set(found) == set(first) and all(value.largest == 0.0 for value in found.values())

    @pytest.mark.parametrize("key", ["detection_boxes", "detection_scores"])
    def test_one_value_that_differs_is_found(self, key):
        first, second = detections(), detections()
        second[key] = second[key].copy()
        second[key][0, 2] += 0.01
        found, missing = differences_of(first, second)
        assert missing == 0 and not found[key].agrees and found[key].largest == pytest.approx(0.01, rel=1e-3)
        assert all(value.agrees for name, value in found.items() if name != key)

    def test_another_class_has_no_partner(self):
        first, second = detections(), detections()
        second["detection_classes"] = second["detection_classes"].copy()
        second["detection_classes"][0, 0] = 77
        assert differences_of(first, second)[1] == 1

    def test_last_ones_of_the_list_may_be_others_of_the_same_score(self):
        first, second = detections(), detections()
        second["detection_classes"] = second["detection_classes"].copy()
        second["detection_classes"][0, -1] = 77
        found, missing = differences_of(first, second)
        assert missing == 0 and all(value.agrees for value in found.values())

    def test_output_that_only_one_has_is_left_out(self):
        first = {**detections(), "detection_multiclass_scores": np.ones((1, 6, 90), np.float32)}
        assert set(differences_of(first, detections())[0]) == set(detections())

    def test_proposals_are_in_nobodys_order(self):
        both = {**detections(), "raw_detection_boxes": detections()["detection_boxes"]}
        assert "raw_detection_boxes" not in differences_of(both, both)[0]

    def test_keypoints_that_both_leave_out_agree_and_one_sided_ones_do_not(self):
        first, second = detections(), detections()
        first["detection_keypoints"] = np.full((1, 6, 17, 2), np.nan, np.float32)
        second["detection_keypoints"] = first["detection_keypoints"].copy()
        assert differences_of(first, second)[0]["detection_keypoints"].agrees
        second["detection_keypoints"][0, 0, 0] = 0.5
        assert not differences_of(first, second)[0]["detection_keypoints"].agrees

    def test_each_row_is_used_once(self):
        first = detections()
        same = {key: np.repeat(value[:, :1], 6, 1) for key, value in first.items() if value.ndim > 1}
        pairs, missing = match({k: v[0] for k, v in same.items()}, {k: v[0] for k, v in same.items()}, np.arange(6))
        assert missing == 0 and sorted(pairs[:, 1]) == list(range(6))

    def test_mean_is_over_rows(self):
        difference = OutputDifference()
        difference.add(np.array([1.0, 3.0]))
        difference.add(np.array([5.0]))
        assert (difference.rows, difference.largest, difference.mean) == (3, 5.0, 3.0)


class TestOutputsWithoutNames:
    def anonymous(self, **changed):
        named = {**detections(), **changed}
        order = ["detection_scores", "detection_boxes", "num_detections", "detection_classes"]
        return {f"output_{at}": named[key] - (key == "detection_classes") for at, key in enumerate(order)}

    def test_are_told_by_shape_and_value(self):
        named = name_outputs(self.anonymous())
        assert {key: value.tolist() for key, value in named.items()} == {
            key: value.tolist() for key, value in detections().items()
        }

    def test_that_cannot_be_told_are_not_guessed(self):
        with pytest.raises(NotComparableError, match=r"cannot be told .*output_0 \[1, 6\]"):
            name_outputs(self.anonymous(detection_scores=np.zeros((1, 6), np.float32)))
        with pytest.raises(NotComparableError):
            name_outputs({"output_0": np.zeros((1, 10), np.float32)})


@pytest.fixture(scope="module")
def exports(tmp_path_factory):
    """{form: archive}, all of one checkpoint; in "other" the SavedModel has other weights."""
    tf = pytest.importorskip("tensorflow")
    from tfod_zoo.config.generate import generate_pipeline
    from tfod_zoo.config.pipeline import write_pipeline
    from tfod_zoo.modeling.factory import build

    folder = tmp_path_factory.mktemp("export")
    pytest.importorskip("tf_keras").utils.set_random_seed(0)
    model = build(generate_pipeline(NAME))
    head = "model/_prediction_head_dict/{}/0/layer_with_weights-1/{}/.ATTRIBUTES/VARIABLE_VALUE"
    # Random weights tell no place from another: spread the scores, so that the detections have an order.
    kernel = model.keyed_variables[head.format("object_center", "kernel")]
    kernel.assign(kernel * 2e4)
    (folder / "checkpoint").mkdir()
    model.save_checkpoint(folder / "checkpoint" / "ckpt-301")
    write_pipeline(generate_pipeline(NAME), folder / "pipeline.config")
    leave_out = ("detection_boxes_strided", "detection_multiclass_scores")

    def save(form, function, spec):
        module = tf.Module()
        # The variables alone: with the model, Keras would trace each of its layers too.
        module.held = list(model.variables)
        run = tf.function(function, input_signature=[spec]).get_concrete_function()
        tf.saved_model.save(module, str(folder / form), signatures={"serving_default": run})

    pixels = tf.TensorSpec([1, None, None, 3], tf.uint8, name="input_tensor")
    save("standard", lambda input_tensor: model.detect(input_tensor), pixels)
    save("2020", lambda input_tensor: {
        key: value for key, value in model.detect(input_tensor).items() if key not in leave_out}, pixels)  # fmt: skip

    def tflite_style(input):
        found = model.detect(tf.cast(input, tf.uint8))
        names = ("detection_boxes", "detection_classes", "detection_scores", "num_detections")
        return {f"output_{at}": found[key] - float(key == "detection_classes") for at, key in enumerate(names)}

    save("tflite", tflite_style, tf.TensorSpec([1, 320, 320, 3], tf.float32, name="input"))
    save("useless", lambda input_tensor: {"sum": tf.reduce_sum(input_tensor)}, pixels)
    bias = model.keyed_variables[head.format("box.Sscale", "bias")]
    bias.assign(bias + 3.0)
    save("other", lambda input_tensor: model.detect(input_tensor), pixels)
    return {form: pack(folder, form) for form in ("standard", "2020", "tflite", "useless", "other", "none")}


def pack(folder, form):
    path = folder / f"{form}-archive" / f"{NAME}.tar.gz"
    path.parent.mkdir()
    with tarfile.open(path, "w:gz", compresslevel=1) as packed:
        packed.add(folder / "pipeline.config", "centernet_mobilenetv2_fpn_od/pipeline.config")
        packed.add(folder / "checkpoint", "centernet_mobilenetv2_fpn_od/checkpoint")
        if (folder / form).is_dir():
            packed.add(folder / form, "centernet_mobilenetv2_fpn_od/saved_model/saved_model")
    return path


def certificate_of(archive, folder, *flags):
    code = cli.main(["certify", str(archive), "--output", str(folder), *flags])
    return code, json.loads((folder / f"{NAME}.certificate.json").read_text())


@pytest.mark.parametrize(("form", "kind"), [("standard", "standard"), ("tflite", "TFLite-style")])
def test_saved_model_of_the_same_weights_agrees(exports, tmp_path, capsys, form, kind):
    code, certificate = certificate_of(exports[form], tmp_path)
    assert code == 0 and certificate["verdict"] == "agrees" and certificate["form"] == kind, certificate
    assert {"detection_boxes", "detection_scores", "detection_classes", "num_detections"} <= set(certificate["outputs"])
    assert certificate["outputs"]["detection_boxes"]["rows"] > 10
    hashes = certificate["hashes"]
    assert len(hashes["archive"]) == 64 and "checkpoint/ckpt-301.index" in hashes
    assert certificate["versions"]["tensorflow"].startswith("2.")
    assert f"{NAME}: agrees (every output within 0.001), 3 images (generated)" in capsys.readouterr().out
    assert ("detection_multiclass_scores" in certificate["outputs"]) == (form == "standard")


def test_saved_model_of_2020_on_the_users_images(exports, tmp_path, capsys):
    from PIL import Image

    (tmp_path / "photos").mkdir()
    pixels = np.random.default_rng(0).integers(0, 256, (90, 120, 3), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "photos" / "a.png")
    code, certificate = certificate_of(exports["2020"], tmp_path, "--images", str(tmp_path / "photos"))
    assert code == 0 and certificate["verdict"] == "agrees" and certificate["only_shipped"] == []
    assert certificate["only_ours"] == ["detection_boxes_strided", "detection_multiclass_scores"]
    assert f"1 image ({tmp_path / 'photos'})" in capsys.readouterr().out


def test_saved_model_of_other_weights_differs(exports, tmp_path, capsys):
    code, certificate = certificate_of(exports["other"], tmp_path, "--json")
    assert code == 1 and certificate["verdict"] == "differs"
    outputs = certificate["outputs"]
    assert not outputs["detection_boxes"]["agrees"] and outputs["detection_scores"]["agrees"]
    said = capsys.readouterr()
    assert "our network differs from the archive's SavedModel" in said.err
    assert json.loads(said.out) == {NAME: certificate}


@pytest.mark.parametrize(
    ("form", "reason"), [("useless", "gives sum, not detections"), ("none", "the archive ships no SavedModel")]
)
def test_what_cannot_be_compared_is_said(exports, tmp_path, capsys, form, reason):
    code, certificate = certificate_of(exports[form], tmp_path)
    assert code == 0 and certificate["verdict"] == "not comparable" and reason in certificate["reason"]


def test_wrong_use(tmp_path, capsys):
    assert cli.main(["certify", "some.tar.gz"]) == 2
    assert cli.main(["certify", str(tmp_path / f"{NAME}.tar.gz")]) == 2
    assert cli.main(["certify", NAME, "--images", str(tmp_path)]) == 2
    assert capsys.readouterr().err.count("\n") == 3
