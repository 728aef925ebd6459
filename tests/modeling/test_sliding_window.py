"""The baseline: windows lie where their boxes say, learn from what they overlap, and go through every command."""

import json

import numpy as np
import pytest
import tensorflow as tf
import tf_keras
from hypothesis import given, settings
from hypothesis import strategies as st

import tfod_zoo
from tfod_zoo.benchmark.operations import count_operations, network_operations
from tfod_zoo.cli.main import main
from tfod_zoo.config.generate import generate_pipeline
from tfod_zoo.config.pipeline import write_pipeline
from tfod_zoo.data.shapes import prepare_shapes
from tfod_zoo.errors import UsageError, ZooError
from tfod_zoo.modeling.boxes import pairwise_iou
from tfod_zoo.modeling.sliding_window.pyramid import build_pyramid, resizing

NAME = "sliding_window_resnet50"
SIDE = 64
WINDOWS = 24  # of an image to learn from; up to half of them objects


def pipeline(side=SIDE, **options):
    message = generate_pipeline(NAME, image_size=side, **options)
    message.model.faster_rcnn.second_stage_batch_size = WINDOWS
    message.model.faster_rcnn.second_stage_balance_fraction = 0.5
    return message


@pytest.fixture(scope="module")
def model():
    tf_keras.utils.set_random_seed(2)
    return tfod_zoo.build(pipeline())


def images(count, height=48, width=64):
    return tf.constant(np.random.default_rng(0).integers(0, 256, [count, height, width, 3], dtype=np.uint8))


def grid(scales=(1.0, 2.0), ratios=(0.5, 1.0, 2.0), height=32, width=32, stride=16):
    generator = pipeline().model.faster_rcnn.first_stage_anchor_generator
    options = generator.grid_anchor_generator
    options.Clear()
    options.scales[:], options.aspect_ratios[:] = scales, ratios
    options.height, options.width, options.height_stride, options.width_stride = height, width, stride, stride
    return generator


class TestPyramid:
    @given(
        side=st.sampled_from([8, 16, 32]), height=st.integers(24, 90), width=st.integers(24, 90),
        scales=st.lists(st.floats(0.5, 4), min_size=1, max_size=3), stride=st.integers(4, 40),
    )
    @settings(max_examples=40, deadline=None)
    def test_a_window_shows_what_its_box_holds(self, side, height, width, scales, stride):
        pyramid = build_pyramid(grid(scales=scales, stride=stride), side, height, width)
        boxes = pyramid.boxes(height, width)
        # Each pixel says where it is: a window's mean is then the centre of its box.
        rows, columns = np.meshgrid(np.arange(height) + 0.5, np.arange(width) + 0.5, indexing="ij")
        canvas = np.stack([rows, columns, np.zeros_like(rows)], -1)[None].astype(np.float32)
        windows = pyramid.windows(tf.constant(canvas)).numpy()[0]
        assert windows.shape == (pyramid.count, side, side, 3) == (len(boxes), side, side, 3)
        centers = (boxes[:, :2] + boxes[:, 2:]) / 2
        # At the canvas's edge a resized pixel lies between the last ones instead of around them.
        np.testing.assert_allclose(windows.mean((1, 2))[:, :2], centers, atol=1.0)

    def test_windows_reach_from_edge_to_edge(self):
        boxes = build_pyramid(grid(), 32, 100, 140).boxes(100, 140)
        np.testing.assert_allclose(boxes.min(0)[:2], 0)
        np.testing.assert_allclose(boxes.max(0)[2:], [100, 140], rtol=1e-6)

    def test_scales_ratios_and_stride_are_the_config_s(self):
        boxes = build_pyramid(grid(scales=[2.0], ratios=[1.0]), 32, 256, 256).boxes(256, 256)
        np.testing.assert_allclose(boxes[:, 2:] - boxes[:, :2], 64)
        assert len(boxes) == 49 and boxes[1, 1] - boxes[0, 1] == 32
        tall = build_pyramid(grid(scales=[2.0], ratios=[0.25]), 32, 256, 256).boxes(256, 256)
        np.testing.assert_allclose(tall[:, 2:] - tall[:, :2], np.tile([[128, 32]], [len(tall), 1]))

    @pytest.mark.parametrize(("source", "target"), [(64, 64), (64, 40), (100, 17), (30, 70)])
    def test_resizing_is_tensorflow_s(self, source, target):
        rows = np.random.default_rng(1).random([1, source, 1, 3], np.float32)
        theirs = tf.image.resize(rows, [target, 1], antialias=True)[0, :, 0]
        np.testing.assert_allclose(resizing(source, target) @ rows[0, :, 0], theirs, atol=1e-5)

    def test_what_makes_no_windows_is_refused(self):
        for generator in (grid(scales=[]), grid(ratios=[]), grid(ratios=[-1.0]), grid(stride=0)):
            with pytest.raises(ZooError, match="grid_anchor_generator needs"):
                build_pyramid(generator, 32, 64, 64)
        anchors = generate_pipeline("faster_rcnn_resnet50_v1_fpn_640x640_coco17_tpu-8").model.faster_rcnn
        with pytest.raises(ZooError, match="has to be a grid_anchor_generator"):
            build_pyramid(anchors.first_stage_anchor_generator, 32, 64, 64)


def groundtruth():
    boxes = np.zeros([2, 3, 4], np.float32)
    # One that no window covers well, one as a window; in the second image nothing but a box that does not count.
    boxes[0, :2], boxes[1, :1] = [[0.1, 0.1, 0.2, 0.15], [0.0, 0.25, 0.5, 0.75]], [[0.5, 0.5, 1, 1]]
    return {
        "boxes": tf.constant(boxes),
        "classes": tf.constant([[1, 3, 0], [2, 0, 0]]),
        "weights": tf.constant([[1.0, 0.5, 0.0], [0.0, 0.0, 0.0]]),
    }


def test_it_learns_from_windows_by_their_overlap(model):
    truth = groundtruth()
    inputs, shapes = model.preprocess(images(2, 64, 64))
    predictions = model(inputs, shapes, training=True, groundtruth=truth)
    classes, weights = predictions["window_classes"].numpy(), predictions["window_weights"].numpy()
    assert classes.shape == weights.shape == (2, WINDOWS)
    assert set(classes[0]) == {0, 2, 4} and (classes[0] == 0).sum() >= WINDOWS / 2
    assert set(weights[0][classes[0] == 4]) == {0.5} and set(weights[0][classes[0] == 2]) == {1.0}
    assert not classes[1][weights[1] > 0].any()
    overlaps = pairwise_iou(truth["boxes"] * SIDE, predictions["proposal_boxes"]).numpy()
    background = (classes == 0) & (weights > 0)
    assert (np.where(truth["weights"].numpy()[..., None] > 0, overlaps, 0).max(1)[background] < 0.5).all()
    losses = model.compute_losses(predictions, truth, shapes)
    assert list(losses) == ["Loss/BoxClassifierLoss/classification_loss"]
    assert np.isfinite(float(losses["Loss/BoxClassifierLoss/classification_loss"]))
    with pytest.raises(UsageError, match="give groundtruth"):
        model(inputs, shapes, training=True)


def test_xla_compiles_what_is_not_the_network(model):
    inputs, _ = model.preprocess(images(2, 64, 64))
    windows = tf.function(model._pyramid.windows, jit_compile=True)(inputs)
    np.testing.assert_allclose(windows, model._pyramid.windows(inputs), rtol=1e-4, atol=1e-3)
    truth = groundtruth() | {"sampling_seed": tf.constant([[1, 0], [1, 1]])}
    # Its random numbers are others, by the same seed too.
    _, classes, weights = tf.function(lambda: model._sampled(truth), jit_compile=True)()
    assert set(classes.numpy()[0]) == {0, 2, 4} and not classes.numpy()[1][weights.numpy()[1] > 0].any()


def test_its_choice_is_a_function_of_the_seed(model):
    inputs, shapes = model.preprocess(images(2, 64, 64))
    chosen = [
        model(inputs, shapes, groundtruth=groundtruth() | {"sampling_seed": tf.constant([[seed, 0], [seed, 1]])})
        for seed in (1, 1, 2)
    ]
    boxes = [predictions["proposal_boxes"].numpy() for predictions in chosen]
    np.testing.assert_array_equal(boxes[0], boxes[1])
    assert not np.array_equal(boxes[0], boxes[2])


def test_detections_are_windows_and_a_batch_is_its_images(model):
    pictures = images(2)
    batch = {key: value.numpy() for key, value in model.detect(pictures).items()}
    for index in range(2):
        single = model.detect(pictures[index : index + 1])
        for key, value in single.items():
            np.testing.assert_allclose(batch[key][index], value[0], atol=1e-4, err_msg=key)
    count = int(batch["num_detections"][0])
    assert 0 < count <= model.max_detections
    # The image is 48 of the canvas's 64 pixels high; what reaches below it is cut off.
    windows = model._boxes.clip(0, [48, 64, 48, 64]) / [48, 64, 48, 64]
    apart = np.abs(batch["detection_boxes"][0, :count, None] - windows).max(-1)
    assert apart.min(-1).max() < 1e-5
    assert set(batch["detection_classes"][0, :count]) <= set(range(1, 91))


def test_operations_are_the_classifier_s_times_windows(model):
    windows = model._pyramid.count
    body = tf.function(lambda crops: model.backbone(crops)).get_concrete_function(tf.TensorSpec([1, 32, 32, 3]))
    head = 2 * 2048 * 91
    assert network_operations(model) == windows * (count_operations(body) + head)


def test_its_checkpoint_and_centernet_s_body(model, tmp_path):
    model.save_checkpoint(tmp_path / "ckpt-1")
    other = tfod_zoo.build(pipeline())
    other.restore_checkpoint(tmp_path / "ckpt-1")
    for key, variable in model.keyed_variables.items():
        np.testing.assert_array_equal(variable, other.keyed_variables[key], err_msg=key)
    donor = tfod_zoo.build(generate_pipeline("centernet_resnet50_v1_fpn_512x512_coco17_tpu-8", image_size=64))
    donor.save_checkpoint(tmp_path / "ckpt-2")
    report = other.restore_checkpoint(tmp_path / "ckpt-2", mode="detection")
    assert [key.split("/")[1] for key in report.missing] == ["_window_classifier"] * 2
    body = donor.extractor.body.get_layer("conv4_block3_2_conv").get_weights()
    np.testing.assert_array_equal(other.backbone.get_layer("conv4_block3_2_conv").get_weights()[0], body[0])


def test_a_window_too_small_for_the_network_is_refused():
    message = pipeline()
    message.model.faster_rcnn.initial_crop_size = 16
    with pytest.raises(ZooError, match="initial_crop_size is 16"):
        tfod_zoo.build(message)


def test_it_is_evaluated_and_benchmarked_as_the_others(tmp_path, capsys):
    train, validation, label_map = prepare_shapes(tmp_path / "data", train=2, validation=3, image_size=64, seed=1)
    message = pipeline(
        hardware="cpu", label_map=label_map, train_records=train, eval_records=validation, fine_tune_checkpoint=""
    )
    folder = tmp_path / "windows"
    folder.mkdir()
    write_pipeline(message, folder / "pipeline.config")
    tfod_zoo.build(message).save_checkpoint(folder / "ckpt-7")
    assert main(["eval", "--model-dir", str(folder)]) == 0
    metrics = json.loads((folder / "eval.json").read_text())["metrics"]
    capsys.readouterr()
    out = tmp_path / "out"
    assert main(["benchmark", str(folder), "--dataset", "config", "--min-calls", "2", "--min-seconds", "0",
                 "--out", str(out)]) == 0
    (row,) = [json.loads(line) for line in (out / "results.jsonl").read_text().splitlines()]
    assert row["status"] == "ok" and row["metrics"].keys() == metrics.keys()
    assert row["metrics"]["DetectionBoxes_Precision/mAP"] == pytest.approx(metrics["DetectionBoxes_Precision/mAP"])
