"""Networks in other runtimes' formats: converted, loaded again, and as close to the model as they are said to be."""

import dataclasses
import json

import numpy as np
import pytest
import tensorflow as tf
import tf_keras

import tfod_zoo
from tfod_zoo.certification.certificate import generated_images
from tfod_zoo.cli.main import main
from tfod_zoo.config.pipeline import apply_override
from tfod_zoo.errors import UsageError, ZooError
from tfod_zoo.export import formats
from tfod_zoo.export.agreement import BOUNDS, Agreement
from tfod_zoo.export.exported import compare_with_model, export_networks, load_exported, load_networks
from tfod_zoo.export.networks import detector, in_tensorflow, network_inputs
from tfod_zoo.modeling.detection_model import Network

BOXES = "centernet_mobilenetv2fpn_512x512_coco17_od"
KEYPOINTS = "centernet_mobilenetv2fpn_512x512_coco17_kpts"
TWO_STAGES = "faster_rcnn_resnet50_v1_640x640_coco17_tpu-8"
BASELINE = "sliding_window_resnet50"
PYRAMID = "faster_rcnn_resnet50_v1_fpn_640x640_coco17_tpu-8"
FEATURES = "centernet_resnet50_v1_fpn_512x512_kpts_coco17_tpu-8"
DECONVOLUTIONS = "centernet_resnet50_v2_512x512_kpts_coco17_tpu-8"
IMAGES = generated_images()[:2]


def small(name: str, *overrides: str):
    """The zoo's network on a small canvas, with random weights that spread its scores."""
    tf_keras.utils.set_random_seed(0)
    pipeline = tfod_zoo.generate_pipeline(name, image_size=64 if name.startswith("centernet") else 128)
    for override in overrides:
        apply_override(pipeline, override)
    model = tfod_zoo.build(pipeline)
    for variable in model.variables:
        if "gamma" not in variable.name and "kernel" in variable.name:
            variable.assign(variable * (0.8 if name == TWO_STAGES else 1.5))  # more, and it is not finite
    if name == BASELINE:  # its logits are in the thousands so, and every score is 1
        model.classifier.kernel.assign(model.classifier.kernel / 500)
    return model


@pytest.fixture(scope="module")
def boxes():
    return small(BOXES)


@pytest.fixture(scope="module")
def two_stages():
    return small(TWO_STAGES, "model.faster_rcnn.first_stage_max_proposals=16")


def quiet(line: str) -> None:
    """Instead of printing it."""


def needed(format: str, precision: str) -> None:
    try:
        formats.need(format, precision)
    except ZooError as error:
        pytest.skip(str(error))


@pytest.mark.parametrize("name", [KEYPOINTS, PYRAMID])
def test_the_networks_and_what_is_between_them_make_the_model(name):
    two = [] if name.startswith("centernet") else ["model.faster_rcnn.first_stage_max_proposals=16"]
    model = small(name, *two)
    images = np.stack([IMAGES[0], IMAGES[0][::-1]])
    ours = detector(model, in_tensorflow(model))(images)
    wanted = {key: value.numpy() for key, value in model.detect(images).items()}
    assert ours.keys() == wanted.keys()
    for key, value in wanted.items():
        np.testing.assert_allclose(ours[key], value, rtol=1e-4, atol=1e-4, err_msg=key)


PAIRS = [(format, precision) for format, precisions in formats.PRECISIONS.items() for precision in precisions]


@pytest.mark.parametrize(("format", "precision"), PAIRS)
def test_each_format_and_precision_is_loaded_again_and_compared(boxes, tmp_path, format, precision):
    needed(format, precision)
    lines = []
    folder = export_networks(
        boxes, tmp_path, IMAGES, format=format, precision=precision, lenient=True, made_of="seed 0", say=lines.append
    )
    assert [path.name for path in tmp_path.iterdir()] == [f"{format}_{precision}"]
    report = json.loads((folder / "export.json").read_text())
    assert (report["format"], report["precision"], report["made_of"]) == (format, precision, "seed 0")
    assert report["calibrated_on"] == (2 if precision == "int8" else 0)
    difference = report["agreement"]["network_difference"]
    assert difference <= {"float32": 1e-4, "float16": 1e-2, "bfloat16": 5e-2}.get(precision, 0.5)
    # Lower precisions differ, or what runs is not what was asked for.
    assert precision == "float32" or difference > 1e-5
    assert str(folder) in lines[-1]
    # As any user loads it: two images at once, without the model.
    found = load_exported(folder, threads=1)(np.stack([IMAGES[0], IMAGES[0][::-1]]))
    wanted = boxes.detect(np.stack([IMAGES[0], IMAGES[0][::-1]]))
    assert {key: value.shape for key, value in found.items()} == {key: tuple(v.shape) for key, v in wanted.items()}
    if precision == "float32":
        np.testing.assert_allclose(found["detection_scores"], wanted["detection_scores"], atol=1e-4)
        np.testing.assert_array_equal(found["detection_classes"][:, :5], wanted["detection_classes"][:, :5])


@pytest.mark.parametrize("format", formats.PRECISIONS)
def test_a_network_has_its_own_outputs_and_no_others(tmp_path, format):
    """OpenVINO's converter adds the batch sizes that transposed convolutions are given."""
    needed(format, "float32")
    model = small(DECONVOLUTIONS)
    folder = export_networks(model, tmp_path, IMAGES[:1], format=format, say=quiet)
    outputs = load_networks(folder)("heads", model.to_canvas(IMAGES[0][None])[0])
    wanted = model.networks["heads"].call(model.to_canvas(IMAGES[0][None])[0])
    assert [tuple(one.shape) for one in outputs] == [tuple(one.shape) for one in wanted]


@pytest.mark.parametrize("format", formats.PRECISIONS)
def test_two_stages_are_two_networks(two_stages, tmp_path, format):
    needed(format, "float32")
    folder = export_networks(two_stages, tmp_path, IMAGES, format=format, say=quiet)
    assert {path.stem for path in folder.iterdir()} == {
        "proposals", "boxes", "remaining_weights", "pipeline", "label_map", "export",
    }  # fmt: skip
    found = load_exported(folder)(IMAGES[1][None])
    for key, value in two_stages.detect(IMAGES[1][None]).items():
        assert np.isfinite(value).all()
        np.testing.assert_allclose(found[key], value, rtol=1e-3, atol=1e-3, err_msg=key)


@pytest.mark.parametrize(("name", "precision"), [(BOXES, "float32"), (BOXES, "int8"), (PYRAMID, "float32")])
def test_features_leave_openvino_by_a_way_of_their_own(name, precision, tmp_path):
    """Sharing it with the layers that go on costs the runtime up to an eighth of a network's time."""
    needed("openvino", precision)
    import openvino

    model = small(name)
    network = next(iter(model.networks))
    inputs = network_inputs(model, network, IMAGES)
    formats.room("openvino").convert(network, model.networks[network], tmp_path, precision, inputs)
    features, *others = openvino.Core().read_model(tmp_path / f"{network}.xml").outputs
    assert "Identity:0" in features.get_names() and "Identity_1:0" in others[0].get_names()
    transposition = features.get_node().input_value(0)
    activation = transposition.get_node().input_value(0)
    assert (transposition.get_node().get_type_name(), activation.get_node().get_type_name()) == ("Transpose", "Relu")
    assert len(transposition.get_target_inputs()) == len(activation.get_target_inputs()) == 1


@pytest.mark.parametrize("name", [BOXES, KEYPOINTS, DECONVOLUTIONS, FEATURES, PYRAMID])
def test_what_is_loaded_has_the_weights_outside_of_the_networks_too(tmp_path, name):
    model = small(name, *(["model.faster_rcnn.first_stage_max_proposals=16"] if name == PYRAMID else []))
    for variable in model.remaining_variables.values():  # large enough to be seen in a box
        variable.assign(variable + 0.05)
    folder = export_networks(model, tmp_path, IMAGES[1:], format="litert", lenient=True, say=quiet)
    found, wanted = load_exported(folder)(IMAGES[1][None]), model.detect(IMAGES[1][None])
    for key, value in wanted.items():
        if np.ndim(value) > 1:  # the best one: those behind it may change places
            np.testing.assert_allclose(found[key][:, 0], value[:, 0], rtol=1e-3, atol=1e-3, err_msg=key)


def test_an_export_without_its_remaining_weights_says_so(boxes, tmp_path):
    folder = export_networks(boxes, tmp_path, IMAGES[:1], format="litert", lenient=True, say=quiet)
    weights = folder / "remaining_weights.npz"
    whole = weights.read_bytes()
    for broken in (whole[:100], b""):
        weights.write_bytes(broken)
        with pytest.raises(ZooError, match="remaining_weights.npz .* make the export again"):
            load_exported(folder)
    weights.unlink()
    with pytest.raises(ZooError, match="No such file.* make the export again"):
        load_exported(folder)


@pytest.mark.parametrize(("format", "precision"), [(format, "float32") for format in formats.PRECISIONS] + [
    ("litert", "int8"), ("openvino", "int8"),
])  # fmt: skip
def test_a_sliding_window_is_a_network_of_its_windows(tmp_path, format, precision):
    needed(format, precision)
    # Windows a quarter apart overlap by what the config allows at most, and rounding decides which of them is kept.
    model = small(BASELINE, "model.faster_rcnn.second_stage_post_processing.batch_non_max_suppression.iou_threshold=1")
    folder = export_networks(model, tmp_path, IMAGES[:1], format=format, precision=precision, lenient=True, say=quiet)
    report = json.loads((folder / "export.json").read_text())
    assert report["networks"] == {"windows": precision}
    # int8's means are far from random weights', as of the other networks.
    assert report["agreement"]["network_difference"] <= (1e-4 if precision == "float32" else 0.5)
    images = np.stack([IMAGES[0], IMAGES[0][::-1]])
    found, wanted = load_exported(folder)(images), model.detect(images)
    assert {key: value.shape for key, value in found.items()} == {key: tuple(v.shape) for key, v in wanted.items()}
    if precision == "float32":
        for key in ("raw_detection_boxes", "raw_detection_scores", "detection_scores", "num_detections"):
            np.testing.assert_allclose(found[key], wanted[key], rtol=1e-3, atol=1e-4, err_msg=key)


def test_another_model_s_export_is_told_apart_and_not_kept(boxes, tmp_path, monkeypatch):
    folder = export_networks(boxes, tmp_path, IMAGES, format="litert", say=quiet)
    other = small(BOXES)
    for variable in other.variables:
        variable.assign(variable * 1.1)
    assert compare_with_model(other, other, load_networks(folder), IMAGES).beyond("float32")
    # A converter that loses the weights: the export before it stays, and nothing else.
    before = (folder / "heads.tflite").read_bytes()
    room = formats.room("litert")
    convert = room.convert
    monkeypatch.setattr(room, "convert", lambda name, network, *rest: convert(name, other.networks[name], *rest))
    for lenient in (False, True):
        with pytest.raises(ZooError, match="too far from the model"):
            export_networks(boxes, tmp_path, IMAGES, format="litert", lenient=lenient, say=quiet)
    assert [path.name for path in tmp_path.iterdir()] == ["litert_float32"]
    assert (folder / "heads.tflite").read_bytes() == before


def test_random_weights_are_judged_by_their_raw_outputs(boxes, tmp_path, monkeypatch):
    """A detection that a rounding moved, as near ties among proposals do, is no other network."""
    monkeypatch.setitem(BOUNDS, "float32", dataclasses.replace(BOUNDS["float32"], score=-1.0))
    with pytest.raises(ZooError, match="scores differ"):
        export_networks(boxes, tmp_path, IMAGES, format="litert", say=quiet)
    folder = export_networks(boxes, tmp_path, IMAGES, format="litert", lenient=True, say=quiet)
    assert "scores differ" in json.loads((folder / "export.json").read_text())["beyond_bounds"]


def test_a_second_stage_is_calibrated_on_its_crops(two_stages):
    canvases, crops = (network_inputs(two_stages, name, IMAGES) for name in ("proposals", "boxes"))
    assert [inputs.shape for inputs in canvases] == [(1, 128, 128, 3)] * 2
    assert [inputs.shape for inputs in crops] == [(16, *two_stages.networks["boxes"].input_shape)] * 2


def detections(scores, boxes, classes):
    values = {"detection_scores": scores, "detection_boxes": boxes, "detection_classes": classes}
    return {key: np.array(value, np.float32)[None] for key, value in values.items()}


def test_agreement_counts_what_a_user_would_draw():
    one, other = [0.1, 0.1, 0.5, 0.5], [0.6, 0.6, 0.9, 0.9]
    model = detections([0.9, 0.5, 0.1], [one, other, one], [1, 2, 3])
    agreement = Agreement()
    agreement.add(model, detections([0.5, 0.89], [other, one], [2, 1]))
    assert (agreement.detections, agreement.matched) == (2, 2)
    assert agreement.score_difference == pytest.approx(0.01)
    assert agreement.beyond("float32") and not agreement.beyond("int8")
    assert "detects nothing over 0.3" in Agreement().beyond("int8")
    edge = detections([0.9, 0.5, 0.1], [[1, 0.1, 1, 0.2], one, one], [1, 2, 3])  # without area
    off = detections([0.9, 0.5], [[1, 0.1004, 1, 0.2], one], [1, 2])
    at_the_edge = Agreement()
    at_the_edge.add(edge, off)
    assert (at_the_edge.detections, at_the_edge.matched) == (2, 2)
    tied = detections([0.9, 0.5, 0.49], [one, other, one], [1, 2, 3])  # a list whose end any of them may have
    agreement.add(tied, detections([0.9], [one], [1]))
    assert (agreement.detections, agreement.matched) == (3, 3)
    agreement.add(model, detections([0.9, 0.5], [one, one], [1, 2]))  # elsewhere
    agreement.add(model, detections([0.9, 0.5], [one, other], [1, 1]))  # another class
    assert (agreement.images, agreement.detections, agreement.matched) == (4, 7, 5)
    assert "5 of 7 detections" in agreement.beyond("int8")


def test_a_network_s_outputs_are_compared_by_their_size():
    agreement = Agreement()
    agreement.add_network([np.full(4, 10.0)], [np.full(4, 10.1)])
    assert agreement.network_difference == pytest.approx(0.01)
    agreement.add_network([np.zeros(4)], [np.full(4, np.nan)])
    assert agreement.beyond("bfloat16")


def test_wrong_use_is_one_sentence(boxes, tmp_path, capsys):
    with pytest.raises(UsageError, match="no image"):
        export_networks(boxes, tmp_path, [], format="litert")
    with pytest.raises(UsageError, match="no format"):
        export_networks(boxes, tmp_path, IMAGES, format="caffe")
    with pytest.raises(UsageError, match="no precision"):
        export_networks(boxes, tmp_path, IMAGES, format="onnx", precision="int8")
    with pytest.raises(ZooError, match="holds no export"):
        load_exported(tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(ZooError, match="cannot be written"):
        export_networks(boxes, tmp_path / "file", IMAGES, format="litert")
    for wrong in (["--precision", "int8"], ["--format", "onnx", "--precision", "int8"], ["--format", "caffe"]):
        assert main(["export", BOXES, "--out", str(tmp_path), *wrong]) == 2
        assert capsys.readouterr().err.count("\n") == 1


def test_a_missing_package_is_one_sentence(boxes, tmp_path, monkeypatch):
    monkeypatch.setitem(formats._RUNS, "litert", ("no_such_package",))
    with pytest.raises(ZooError, match=r"pip install 'tfod-zoo\[litert\]'"):
        export_networks(boxes, tmp_path, IMAGES, format="litert")


def test_the_command_writes_what_it_can_and_names_what_it_refuses(tmp_path, capsys, monkeypatch):
    (tmp_path / "model").mkdir()
    tfod_zoo.write_pipeline(tfod_zoo.generate_pipeline(BOXES, image_size=64), tmp_path / "model" / "pipeline.config")
    small(BOXES).save_checkpoint(tmp_path / "model" / "ckpt-1")
    out = tmp_path / "out"
    monkeypatch.setitem(formats._RUNS, "openvino", ("no_such_package",))
    monkeypatch.setitem(formats._RUNS, "onnx", ("no_such_package",))
    command = ["export", str(tmp_path / "model"), "--out", str(out), "--format", "all"]
    assert main([*command, "--precision", "float32", "--json"]) == 1
    said = capsys.readouterr()
    assert "refused: onnx float32: onnx needs the package no_such_package" in said.err
    assert "2 of 3 exports were refused" in said.err
    assert f"{tmp_path / 'model'}: converting to litert float32" in said.err  # a folder's own weights
    result = json.loads(said.out)
    assert result["written"] == [{"format": "litert", "precision": "float32", "folder": f"{out}/litert_float32"}]
    assert [each["format"] for each in result["refused"]] == ["openvino", "onnx"]
    assert [path.name for path in out.iterdir()] == ["litert_float32"]
    # int8 is fitted to images: without any it is wrong use to ask for it, and not part of "all".
    assert main([*command, "--precision", "int8"]) == 2
    assert "give --images or --dataset" in capsys.readouterr().err


def test_what_a_converter_or_a_runtime_raises_is_one_sentence(boxes, tmp_path, monkeypatch):
    """Each library has errors of its own; here a network that LiteRT has no operation for."""
    tangled = Network(lambda canvas: [tf.linalg.matrix_rank(canvas)], boxes.networks["heads"].input_shape)
    monkeypatch.setattr(type(boxes), "networks", property(lambda model: {"heads": tangled}))
    with pytest.raises(ZooError, match="litert float32 cannot be converted") as refused:
        export_networks(boxes, tmp_path, IMAGES, format="litert")
    assert "\n" not in str(refused.value) and list(tmp_path.iterdir()) == []
