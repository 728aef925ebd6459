"""CenterNet's keypoint decoding and losses against the worked examples of the specification (section 20)."""

import numpy as np
import pytest
import tensorflow as tf

import tfod_zoo
from tfod_zoo.config import schema
from tfod_zoo.config.pipeline import merge_text
from tfod_zoo.errors import ZooError
from tfod_zoo.modeling.center_net import losses
from tfod_zoo.modeling.center_net.keypoint_decoding import refine_keypoints
from tfod_zoo.modeling.center_net.keypoint_losses import keypoint_losses, neighbours
from tfod_zoo.modeling.center_net.keypoint_task import KeypointTask

KPTS = "centernet_mobilenetv2fpn_512x512_coco17_kpts"


def task(text="", keypoints=3):
    message = schema.message_class("CenterNet")().keypoint_estimation_task.add()
    merge_text(
        message,
        'task_name: "pose" offset_peak_radius: 3 per_keypoint_offset: true '
        "loss { classification_loss { penalty_reduced_logistic_focal_loss { alpha: 2 beta: 4 } } }" + text,
    )
    return KeypointTask(message, 0, tuple(range(keypoints)), (1.0,) * keypoints)


@pytest.mark.parametrize(
    ("mode", "points", "scores"),
    [
        ("min_distance", [(2.5, 2), (6, 6), (1.2, 9)], [0.9, 0.1, 0.2]),
        ("score_distance_ratio", [(2.5, 2), (6, 6), (1, 9.5)], [0.9, 0.1, 0.3]),
        ("gaussian_weighted", [(2.5, 2), (6, 6), (1, 9.5)], [0.751743, 0.1, 0.250581]),
    ],
)
def test_refinement(mode, points, scores):
    regressed = tf.constant([[[(2.0, 2), (6, 6), (1, 9)]]])
    candidates = tf.constant([[[(2.5, 2), (4, 4)], [(6, 9), (6, 6.2)], [(1, 9.5), (1.2, 9)]]])
    candidate_scores = tf.constant([[[0.9, 0.2], [0.8, 0.05], [0.3, 0.2]]])
    boxes = tf.constant([[[1.0, 1, 8, 9]]])
    ranked = task(f' candidate_ranking_mode: "{mode}"')
    got, got_scores = refine_keypoints(regressed, candidates, candidate_scores, boxes, ranked)
    np.testing.assert_allclose(got[0, 0], points, atol=1e-5)
    np.testing.assert_allclose(got_scores[0, 0], scores, atol=1e-5)


def test_neighbours():
    assert len(neighbours(3)) == 29
    assert neighbours(1).tolist() == [[-1, 0], [0, -1], [0, 0], [0, 1], [1, 0]]
    assert neighbours(0).tolist() == [[0, 0]]


@pytest.mark.parametrize("outputs", [1, 2])
def test_whole_loss(outputs):
    nan = float("nan")
    groundtruth = {
        "boxes": tf.constant([[[0.1, 0.1, 0.5, 0.6], [0.3, 0.2, 0.7, 0.7], [0.05, 0.65, 0.45, 0.95], [0, 0, 0, 0]]]),
        "classes": tf.constant([[0, 0, 1, 0]]),
        "weights": tf.constant([[1.0, 1, 1, 0]]),
        "keypoints": tf.constant(
            [
                [
                    [(0.2, 0.2), (0.3, 0.5), (nan, nan)],
                    [(0.4, 0.3), (0.68, 0.6), (0.5, 0.5)],
                    [(nan, nan)] * 3,
                    [(0.0, 0)] * 3,
                ]
            ]
        ),
    }
    predictions = {
        "pose/keypoint/heatmap": [tf.fill([1, 16, 16, 3], -2.19)] * outputs,
        "pose/keypoint/offset": [tf.zeros([1, 16, 16, 6])] * outputs,
        "pose/keypoint/regression": [tf.zeros([1, 16, 16, 6])] * outputs,
    }
    weights = losses.pixel_weights(tf.constant([[48, 64, 3]]), 16, 16, 4)
    got = {key: float(value) for key, value in keypoint_losses(predictions, groundtruth, weights, task()).items()}
    assert got == pytest.approx(
        {
            "Loss/pose/keypoint/heatmap": 1.944900,
            "Loss/pose/keypoint/offset": 2.670069,
            "Loss/pose/keypoint/regression": 4.030069,
        },
        rel=1e-5,
    )


@pytest.fixture(scope="module", params=[1, 2], ids=["one_class", "several_classes"])
def model(request):
    pipeline = tfod_zoo.generate_pipeline(KPTS)
    center_net = pipeline.model.center_net
    center_net.feature_extractor.type, center_net.num_classes = "hourglass_10", request.param
    resizer = center_net.image_resizer.keep_aspect_ratio_resizer
    resizer.min_dimension = resizer.max_dimension = 64
    return tfod_zoo.build(pipeline)


def test_a_batch_equals_its_images(model):
    images = np.random.default_rng(1).integers(0, 256, [3, 64, 48, 3], dtype=np.uint8)
    together = model.detect(images)
    assert together["detection_keypoints"].shape == (3, 20, 17, 2)
    assert together["detection_keypoint_scores"].shape == (3, 20, 17)
    for index in range(3):
        alone = model.detect(images[index : index + 1])
        for key in ("detection_keypoints", "detection_keypoint_scores", "detection_scores"):
            np.testing.assert_allclose(alone[key][0], together[key][index], atol=1e-4)
    others = together["detection_classes"].numpy() != 1
    assert not together["detection_keypoint_scores"].numpy()[others].any()  # only persons have keypoints


def test_training_without_keypoints_is_refused(model):
    inputs, shapes = model.preprocess(np.zeros([1, 64, 64, 3], np.uint8))
    groundtruth = {"boxes": tf.zeros([1, 1, 4]), "classes": tf.zeros([1, 1], tf.int32), "weights": tf.zeros([1, 1])}
    with pytest.raises(ZooError, match="needs ground truth with keypoints"):
        model.compute_losses(model(inputs, shapes), groundtruth, shapes)


@pytest.mark.parametrize(
    ("change", "part"),
    [
        ('keypoint_class_name: "dragon"', "dragon"),
        ("predict_depth: true", "predict_depth"),
        ('candidate_ranking_mode: "luck"', "luck"),
    ],
)
def test_a_task_that_cannot_be_built_is_refused(change, part):
    pipeline = tfod_zoo.generate_pipeline(KPTS)
    merge_text(pipeline.model.center_net.keypoint_estimation_task[0], change)
    with pytest.raises(ZooError, match=part):
        tfod_zoo.build(pipeline)


def test_two_tasks_on_one_class_are_refused():
    pipeline = tfod_zoo.generate_pipeline(KPTS)
    tasks = pipeline.model.center_net.keypoint_estimation_task
    tasks.add().CopyFrom(tasks[0])
    tasks[1].task_name = "other"
    with pytest.raises(ZooError, match="used twice"):
        tfod_zoo.build(pipeline)
