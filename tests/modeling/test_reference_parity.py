"""The networks against figures measured on the running TensorFlow Object Detection API (2021-07-24, float32, CPU).

Each golden file holds, for deterministic weights (`reference_weights.py`), samples of pre-processing, raw predictions,
all detections of two images, and losses, gradient norms and batch-norm updates of one fixed batch at 256x256.
"""

import json
from pathlib import Path

import numpy as np
import pytest
import reference_weights
import tensorflow as tf
from PIL import Image

import tfod_zoo
from tfod_zoo.modeling.checkpoint import SUFFIX

GOLDEN = Path(__file__).parent / "golden"
MODELS = ["centernet_mobilenetv2fpn_512x512_coco17_od", "centernet_resnet50_v1_fpn_512x512_coco17_tpu-8"]
IMAGES = ["image1_small", "image2_small"]
COLUMNS = (("classes", 1), ("scores", 1), ("boxes", 4))
TOLERANCE = 2e-3  # of a tensor's standard deviation; the reference differs from itself by 9e-4 between two back ends


@pytest.fixture(scope="module", params=MODELS)
def reference(request, tmp_path_factory):
    """(name, golden arrays, prefix of the checkpoint with the deterministic weights)."""
    golden = dict(np.load(GOLDEN / f"{request.param}.npz"))
    variables = [json.loads(entry) for entry in golden["variables"]]
    values = {key: reference_weights.weight(key, shape) for key, shape in variables}
    values["_CHECKPOINTABLE_OBJECT_GRAPH"] = np.array(b"")
    prefix = str(tmp_path_factory.mktemp("reference") / "ckpt-0")
    tf.raw_ops.SaveV2(
        prefix=prefix,
        tensor_names=list(values),
        shape_and_slices=[""] * len(values),
        tensors=[tf.constant(value) for value in values.values()],
    )
    return request.param, golden, prefix


def sampled_error(golden, base, value):
    assert list(value.shape) == golden[f"{base}/shape"].tolist()
    difference = np.abs(value.numpy().reshape(-1)[golden[f"{base}/idx"]] - golden[f"{base}/val"])
    return difference.max() / golden[f"{base}/std"]


def rows(detections):
    """Of one image, `[N, 6]`: class, score and box."""
    columns = [np.asarray(detections[f"detection_{key}"])[0].reshape(-1, n) for key, n in COLUMNS]
    return np.concatenate(columns, -1)


def test_forward_and_detections(reference):
    name, golden, prefix = reference
    model = tfod_zoo.load(name, weights=prefix)
    for image in IMAGES:
        pixels = np.array(Image.open(GOLDEN / f"{image}.png"))[None]
        inputs, shapes = model.preprocess(pixels)
        assert shapes.numpy().tolist() == golden[f"{image}/true_image_shapes"].tolist()
        assert sampled_error(golden, f"{image}/preprocessed", inputs) < TOLERANCE
        predictions = model(inputs, shapes)
        for key in ("object_center", "box/scale", "box/offset"):
            assert sampled_error(golden, f"{image}/predict/{key}/0", predictions[key][0]) < TOLERANCE
        detections = model.postprocess(predictions, shapes)
        for key, tolerance in (("detection_scores", 2e-3), ("detection_boxes", 1e-3), ("detection_boxes_strided", 0.2)):
            # A near tie may swap two neighbours in the order: each sorted column must still agree.
            got, want = detections[key].numpy()[0], golden[f"{image}/post/{key}/full"][0]
            np.testing.assert_allclose(np.sort(got, 0), np.sort(want, 0), atol=tolerance)
        classes = detections["detection_classes"].numpy()
        assert sorted(classes[0]) == sorted(golden[f"{image}/post/detection_classes/full"][0])

        served = model.detect(pixels)
        assert {value.dtype for value in served.values()} == {tf.float32}
        # The two round differently, and how depends on the processor: here, too, near ties may change places.
        ours, theirs = rows(served), rows({**detections, "detection_classes": classes + 1})
        same = np.abs(ours[:, None] - theirs).max(-1) < 1e-4
        assert same.any(0).all() and same.any(1).all()


@pytest.mark.parametrize("phase", [0, 1], ids=["moving_statistics", "batch_statistics"])
def test_losses_and_gradients(reference, phase):
    name, everything, prefix = reference
    golden = {key.removeprefix("losses/"): value for key, value in everything.items() if key.startswith("losses/")}
    pipeline = tfod_zoo.generate_pipeline(name)
    resizer = pipeline.model.center_net.image_resizer.keep_aspect_ratio_resizer
    resizer.min_dimension = resizer.max_dimension = 256
    model = tfod_zoo.build(pipeline, training=True)
    model.restore_checkpoint(prefix)
    key_of = {variable.ref(): key for key, variable in model.keyed_variables.items()}
    groundtruth = {key: tf.constant(golden[f"groundtruth/{key}"]) for key in ("boxes", "classes", "weights")}
    shapes = tf.constant(golden["true_image_shapes"])
    inputs, _ = model.preprocess(golden["images"])
    with tf.GradientTape() as tape:
        predictions = model(inputs, shapes, training=bool(phase))
        losses = model.compute_losses(predictions, groundtruth, shapes)
        total = tf.add_n(list(losses.values()))
    gradients = tape.gradient(total, model.trainable_variables)
    for key, value in losses.items():
        assert float(value) == pytest.approx(float(golden[f"phase{phase}/{key}"]), rel=TOLERANCE)
    norms = dict(zip(golden[f"phase{phase}/grad_keys"].tolist(), golden[f"phase{phase}/grad_norms"], strict=True))
    ours = {
        key_of[variable.ref()]: float(tf.norm(gradient))
        for variable, gradient in zip(model.trainable_variables, gradients, strict=True)
    }
    assert set(ours) == set(norms)
    # Batch statistics amplify rounding in single variables; their whole norm is steady to a few per cent.
    whole = np.linalg.norm(list(norms.values()))
    assert np.linalg.norm(list(ours.values())) == pytest.approx(whole, rel=0.1 if phase else 0.01)
    if phase:
        updated = {key: value for key, value in golden.items() if key.startswith("phase1/updated/")}
        assert updated
        for key, value in updated.items():
            variable = model.keyed_variables[key.removeprefix("phase1/updated/")]
            np.testing.assert_allclose(variable, value, rtol=5e-3, atol=5e-4)


def test_checkpoint_has_the_reference_keys(reference, tmp_path):
    name, golden, prefix = reference
    model = tfod_zoo.load(name, weights=prefix)
    written = str(tmp_path / "saved" / "ckpt-0")
    model.save_checkpoint(written)
    reader = tf.train.load_checkpoint(written)
    shapes = reader.get_variable_to_shape_map()
    shapes.pop("_CHECKPOINTABLE_OBJECT_GRAPH")
    assert shapes == {key: shape for key, shape in map(json.loads, golden["variables"])}
    source = tf.train.load_checkpoint(prefix)
    for key in shapes:
        if key.endswith(SUFFIX) and key.startswith("model/"):
            np.testing.assert_array_equal(reader.get_tensor(key), source.get_tensor(key))
