"""Faster R-CNN as a whole, on small inputs: what it returns, refuses, samples, restores and writes."""

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

import tfod_zoo
from tfod_zoo.errors import UsageError, ZooError
from tfod_zoo.modeling.checkpoint import SUFFIX, CheckpointError

TPU, GPU = "faster_rcnn_resnet50_v1_640x640_coco17_tpu-8", "faster_rcnn_resnet50_v1_800x1333_coco17_gpu-8"
FPN = "faster_rcnn_resnet50_v1_fpn_640x640_coco17_tpu-8"
# sha256 over the sorted lines "key shape" of the reference's checkpoints; the first 640x640 model's list is also the
# index of the archive that was published.
GOLDEN = json.loads((Path(__file__).parent / "golden_frcnn_keys.json").read_text())


def small(name=TPU, side=96, proposals=20, batch=8, **fields):
    pipeline = tfod_zoo.generate_pipeline(name)
    config = pipeline.model.faster_rcnn
    config.image_resizer.Clear()
    resizer = config.image_resizer.keep_aspect_ratio_resizer
    resizer.min_dimension = resizer.max_dimension = side
    resizer.pad_to_max_dimension = True
    config.num_classes = 4
    config.first_stage_max_proposals, config.second_stage_batch_size = proposals, batch
    nms = config.second_stage_post_processing.batch_non_max_suppression
    nms.max_detections_per_class, nms.max_total_detections = 10, 25
    for field, value in fields.items():
        setattr(config, field, value)
    return pipeline


def images(count=2, height=60, width=96):
    return tf.constant(np.random.default_rng(0).integers(0, 256, [count, height, width, 3], dtype=np.uint8))


def groundtruth():
    boxes = np.zeros([2, 4, 4], np.float32)
    boxes[0, :2], boxes[1, :1] = [[0.1, 0.1, 0.5, 0.6], [0.2, 0.3, 0.6, 0.9]], [[0.0, 0.2, 0.4, 0.5]]
    weights = np.any(boxes, -1).astype(np.float32)
    return {
        "boxes": tf.constant(boxes),
        "classes": tf.constant([[1, 3, 0, 0], [2, 0, 0, 0]]),
        "weights": tf.constant(weights),
    }


@pytest.mark.parametrize("name", sorted(GOLDEN))
def test_keys_and_shapes_are_the_reference_s(name):
    pipeline = tfod_zoo.generate_pipeline(name.replace("resnet101", "resnet50"))
    if "resnet101" in name:  # published as a config, but not in the zoo
        pipeline.model.faster_rcnn.feature_extractor.type = "faster_rcnn_resnet101_keras"
    model = tfod_zoo.build(pipeline)
    lines = sorted(f"{key} {list(variable.shape)}" for key, variable in model.keyed_variables.items())
    assert {"count": len(lines), "sha256": hashlib.sha256("\n".join(lines).encode()).hexdigest()} == GOLDEN[name]
    assert len(lines) == len(model.variables)  # nothing is left out


def calm(model):
    """Random weights without averages of their own make numbers that overflow: a fainter input calms them."""
    model.extractor.body.conv.kernel.assign(model.extractor.body.conv.kernel * 1e-4)
    return model


@pytest.fixture(scope="module")
def model():
    return calm(tfod_zoo.build(small()))


def test_projection_blocks_are_numbered_as_the_zoo_has_them(model):
    """Shortcut and last convolution have one shape in conv2, so that a wrong order would load without a word."""
    block = model.extractor.body.stages[0].blocks[0]
    key = "model/_feature_extractor_for_proposal_features/layer_with_weights-{}/{}" + SUFFIX
    for number, layer in ((6, block.shortcut), (7, block.conv_3)):
        assert model.keyed_variables[key.format(number, "kernel")] is layer.kernel
    for number, layer in ((8, block.shortcut_norm), (9, block.norm_3)):
        assert model.keyed_variables[key.format(number, "gamma")] is layer.gamma


@pytest.mark.parametrize("name", [TPU, GPU, FPN])
def test_detect_gives_tfod_s_signature(name):
    model = calm(tfod_zoo.build(small(name)))
    detections = {key: value.numpy() for key, value in model.detect(images()).items()}
    assert {key: value.shape for key, value in detections.items()} == {
        "detection_boxes": (2, 25, 4),
        "detection_scores": (2, 25),
        "detection_classes": (2, 25),
        "detection_multiclass_scores": (2, 25, 5),
        "detection_anchor_indices": (2, 25),
        "num_detections": (2,),
        "raw_detection_boxes": (2, 20, 4),
        "raw_detection_scores": (2, 20, 5),
    }
    assert {value.dtype for value in detections.values()} == {np.dtype(np.float32)}
    for image in range(2):
        count = int(detections["num_detections"][image])
        assert count > 0
        boxes, scores = detections["detection_boxes"][image, :count], detections["detection_scores"][image, :count]
        assert (boxes[:, 2:] > boxes[:, :2]).all() and boxes.min() >= 0 and boxes.max() <= 1
        assert (np.diff(scores) <= 0).all()
        classes = detections["detection_classes"][image, :count].astype(int)
        assert set(classes) <= {1, 2, 3, 4}
        rows = detections["detection_anchor_indices"][image, :count].astype(int)
        np.testing.assert_allclose(detections["raw_detection_scores"][image][rows, classes], scores, atol=1e-6)
    np.testing.assert_allclose(detections["raw_detection_scores"].sum(-1), 1, atol=1e-5)


def test_a_batch_is_its_images(model):
    together = model.detect(images())
    for i in range(2):
        alone = model.detect(images()[i : i + 1])
        np.testing.assert_allclose(together["detection_scores"][i], alone["detection_scores"][0], atol=1e-4)


def test_normalization_comes_after_padding(model):
    inputs, shapes = model.preprocess(images())
    assert shapes.numpy().tolist() == [[60, 96, 3]] * 2
    np.testing.assert_allclose(inputs[:, 60:], np.broadcast_to([-123.68, -116.779, -103.939], [2, 36, 96, 3]))


@pytest.mark.parametrize("name", [TPU, GPU, FPN])
def test_a_training_step_learns_in_every_variable(name):
    model = tfod_zoo.build(small(name), training=True, deterministic_sampling=True)
    inputs, shapes = model.preprocess(images())
    norm = model.extractor.body.norm
    before = norm.moving_mean.numpy()
    with tf.GradientTape() as tape:
        predictions = model(inputs, shapes, training=True, groundtruth=groundtruth())
        losses = model.compute_losses(predictions, groundtruth(), shapes)
        total = tf.add_n(list(losses.values()))
    keys = {
        "Loss/RPNLoss/localization_loss",
        "Loss/RPNLoss/objectness_loss",
        "Loss/BoxClassifierLoss/localization_loss",
        "Loss/BoxClassifierLoss/classification_loss",
    }
    assert set(losses) == (keys | {"Loss/regularization_loss"} if name == FPN else keys)
    assert predictions["proposal_boxes"].shape == (2, 8, 4)
    gradients = tape.gradient(total, model.trainable_variables)
    assert all(gradient is not None and np.isfinite(gradient).all() for gradient in gradients)
    # batch_norm_trainable: only the configs for TPUs let the averages follow.
    assert np.allclose(before, norm.moving_mean) == (name == GPU)
    clips = name != GPU
    inside = predictions["anchors"].numpy()
    assert inside.min() >= 0 and inside.max() <= 96
    assert (len(inside) == 12 * 6 * 6) == clips or name == FPN
    assert predictions["rpn_box_encodings"].shape[1] == len(inside)


def test_unsampled_without_ground_truth_but_not_in_training(model):
    inputs, shapes = model.preprocess(images())
    assert model(inputs, shapes)["proposal_boxes"].shape == (2, 20, 4)
    with pytest.raises(UsageError, match="groundtruth"):
        model(inputs, shapes, training=True)


def test_classification_and_detection_restore_what_they_name(model, tmp_path):
    body = {
        f"feature_extractor/layer_with_weights-{number}/{variable.name.split('/')[-1].split(':')[0]}{SUFFIX}": variable
        for number, layer in enumerate(model.extractor.classification_layers())
        for variable in layer.weights
    }
    values = {key: np.full(variable.shape, 0.5, np.float32) for key, variable in body.items()}
    prefix = str(tmp_path / "classification")
    tf.raw_ops.SaveV2(
        prefix=prefix,
        tensor_names=[*values, "_CHECKPOINTABLE_OBJECT_GRAPH"],
        shape_and_slices=[""] * (len(values) + 1),
        tensors=[*values.values(), b""],
    )
    fresh = tfod_zoo.build(small())
    report = fresh.restore_checkpoint(prefix, mode="classification")
    assert len(report.restored) == 265 and len(report.missing) == 10  # RPN: three layers, box head: two
    assert (fresh.extractor.conv5.blocks[2].norm_3.gamma.numpy() == 0.5).all()
    assert not (fresh.rpn.conv.kernel.numpy() == 0.5).any()

    fresh.save_checkpoint(tmp_path / "mine" / "ckpt-1")
    other = tfod_zoo.build(small(num_classes=7))
    report = other.restore_checkpoint(tmp_path / "mine" / "ckpt-1", mode="detection")
    assert len(report.restored) == 265
    np.testing.assert_array_equal(other.extractor.body.conv.kernel, fresh.extractor.body.conv.kernel)
    with pytest.raises(CheckpointError, match="_class_prediction_head|_box_prediction_head"):
        other.restore_checkpoint(tmp_path / "mine" / "ckpt-1")
    with pytest.raises(UsageError, match="fine_tune"):
        other.restore_checkpoint(tmp_path / "mine" / "ckpt-1", mode="fine_tune")


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("number_of_stages", 3),
        ("num_classes", 0),
        ("feature_extractor.type", "faster_rcnn_inception_resnet_v2_keras"),
        ("feature_extractor.first_stage_features_stride", 8),
        ("second_stage_box_predictor.mask_rcnn_box_predictor.predict_instance_masks", True),
        ("second_stage_box_predictor.mask_rcnn_box_predictor.use_dropout", True),
        ("context_config.max_num_context_features", 9),
        ("hard_example_miner.num_hard_examples", 9),
        ("second_stage_post_processing.batch_non_max_suppression.soft_nms_sigma", 0.5),
        ("second_stage_post_processing.batch_non_max_suppression.max_detections_per_class", 400),
        ("second_stage_classification_loss.weighted_sigmoid.anchorwise_output", True),
        ("initial_crop_size", 0),
        ("maxpool_stride", 0),
        ("first_stage_max_proposals", 0),
        ("first_stage_anchor_generator.multiscale_anchor_generator.normalize_coordinates", False),
    ],
)
def test_a_config_that_cannot_be_built_is_refused(path, value):
    pipeline = small()
    *parents, last = path.split(".")
    message = pipeline.model.faster_rcnn
    for parent in parents:
        message = getattr(message, parent)
    setattr(message, last, value)
    with pytest.raises(ZooError) as caught:
        tfod_zoo.build(pipeline)
    assert any(part in str(caught.value) for part in path.split(".")[:2]) and str(caught.value).endswith(".")


def test_more_to_sample_than_proposals_is_refused_in_training_only():
    pipeline = small(proposals=20, batch=30)
    tfod_zoo.build(pipeline)
    with pytest.raises(ZooError, match="second_stage_batch_size"):
        tfod_zoo.build(pipeline, training=True)
