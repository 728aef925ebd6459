"""Boxes and keypoints in one pass of `evaluate`: frames, padding, several tasks, and data that do not fit."""

import numpy as np
import pytest
import tensorflow as tf

from tfod_zoo.config.label_map import LabelMap, LabelMapItem
from tfod_zoo.config.schema import message_class
from tfod_zoo.evaluation.coco import METRIC_NAMES, EvaluationError, evaluate
from tfod_zoo.evaluation.coco_keypoints import KEYPOINT_METRICS, keypoint_metric_name

MAP = METRIC_NAMES[0]
DOG_MAP, CAT_MAP = (keypoint_metric_name("Precision/mAP", name) for name in ("dog", "cat"))
ROWS, FOUND, K = 4, 3, 5  # padded ground-truth rows, detections an image, keypoints over both classes
CANVAS = (64, 64)
LABELS = LabelMap((
    LabelMapItem(1, "dog", keypoints=((0, "nose"), (1, "ear"), (2, "tail"))),
    LabelMapItem(2, "cat", keypoints=((3, "nose"), (4, "tail"))),
    LabelMapItem(3, "ball"),
))
DOG_BOX, CAT_BOX = (0.1, 0.2, 0.5, 0.9), (0.5, 0.1, 0.95, 0.4)
DOG = np.array([[0.2, 0.3], [0.3, 0.5], [0.45, 0.8], [np.nan] * 2, [np.nan] * 2])
CAT = np.array([[np.nan] * 2] * 3 + [[0.6, 0.2], [0.9, 0.3]])


class FixedDetector:
    """Finds what it was told for the image whose index is painted in its first pixel."""

    num_classes = 3

    def __init__(self, per_image, keypoints=K):
        self.pipeline = message_class("TrainEvalPipelineConfig")()
        arrays = {"detection_boxes": (4,), "detection_scores": (), "detection_classes": (),
                  "detection_keypoints": (keypoints, 2)}
        values = {name: np.zeros((len(per_image), FOUND, *shape), np.float32) for name, shape in arrays.items()}
        for i, found in enumerate(per_image):
            for row, parts in enumerate(found):
                for name, part in zip(arrays, parts, strict=True):
                    values[name][i, row] = np.nan_to_num(part) if name != "detection_scores" else part
        self._values = {name: tf.constant(value) for name, value in values.items()}
        self._values["num_detections"] = tf.constant([len(found) for found in per_image])

    def normalize(self, canvas):
        return canvas

    def __call__(self, inputs, true_image_shapes, training=False):
        return tf.cast(inputs[:, 0, 0, 0], tf.int32)

    def postprocess(self, index, true_image_shapes):
        return {name: tf.gather(value, index) for name, value in self._values.items()}


def dataset(images, keypoints=K):
    """Batches of one from (truths, options): truths are (canvas box, class, canvas keypoints)."""
    for index, (truths, options) in enumerate(images):
        boxes, classes = np.zeros((1, ROWS, 4), np.float32), np.zeros((1, ROWS), np.int32)
        points = np.full((1, ROWS, keypoints, 2), np.nan, np.float32)
        for row, (box, class_, own) in enumerate(truths):
            boxes[0, row], classes[0, row], points[0, row] = box, class_, own[:keypoints]
        pixels = np.zeros((1, *CANVAS, 3), np.float32)
        pixels[0, 0, 0] = index
        yield (
            {"image": tf.constant(pixels), "true_image_shape": tf.constant([[*options.get("true", CANVAS), 3]]),
             "original_shape": tf.constant([options.get("original", (200, 200))]), "source_id": tf.constant([b""])},
            {"boxes": tf.constant(boxes), "classes": tf.constant(classes), "keypoints": tf.constant(points),
             "is_crowd": tf.zeros((1, ROWS), tf.bool), "weights": tf.ones((1, ROWS)),
             "num_boxes": tf.constant([len(truths)]), "area": tf.zeros((1, ROWS))},
        )


def one(*truths, **options):
    return [(truths, options)]


def test_boxes_and_keypoints_of_two_tasks_in_one_pass():
    images = one((DOG_BOX, 0, DOG), (CAT_BOX, 1, CAT)) + one((DOG_BOX, 0, DOG))
    found = [[(DOG_BOX, 0.9, 0, DOG), (CAT_BOX, 0.8, 1, CAT + 0.04)], [(DOG_BOX, 0.7, 0, DOG)]]
    metrics = evaluate(FixedDetector(found), dataset(images), LABELS)
    assert metrics[MAP] == metrics[DOG_MAP] == pytest.approx(1.0)
    assert metrics[CAT_MAP] < 0.9, "the cat's keypoints are 8 px off, its box is not"
    names = {keypoint_metric_name(metric, name) for metric in KEYPOINT_METRICS for name in ("dog", "cat")}
    assert set(metrics) == {*METRIC_NAMES, *names}


def test_keypoints_are_read_in_the_frame_of_the_original_image():
    """A 480x640 image on a 64x64 canvas covers its upper 48 rows: canvas and true image differ by 4/3 in y."""
    to_canvas = np.array([48 / 64, 1.0])
    images = one((np.tile(to_canvas, 2) * DOG_BOX, 0, DOG * to_canvas), original=(480, 640), true=(48, 64))
    metrics = evaluate(FixedDetector([[(DOG_BOX, 0.9, 0, DOG)]]), dataset(images), LABELS)
    assert metrics[DOG_MAP] == pytest.approx(1.0)
    metrics = evaluate(FixedDetector([[(DOG_BOX, 0.9, 0, DOG * to_canvas)]]), dataset(images), LABELS)
    assert metrics[DOG_MAP] < 0.5


def test_images_without_the_class_still_cost_false_alarms():
    images = one((DOG_BOX, 0, DOG)) + one((CAT_BOX, 1, CAT))
    found = [[(DOG_BOX, 0.8, 0, DOG)], [(DOG_BOX, 0.9, 0, DOG), (CAT_BOX, 0.9, 1, CAT)]]
    metrics = evaluate(FixedDetector(found), dataset(images), LABELS)
    assert (metrics[DOG_MAP], metrics[CAT_MAP]) == pytest.approx((0.5, 1.0))


def test_the_configs_sigmas_count():
    def dog_map(sigma):
        detector = FixedDetector([[(DOG_BOX, 0.9, 0, DOG + 0.02)]])
        block = detector.pipeline.eval_config.parameterized_metric.add().coco_keypoint_metrics
        block.class_label = "dog"
        for name in ("nose", "ear", "tail"):
            block.keypoint_label_to_sigmas[name] = sigma
        metrics = evaluate(detector, dataset(one((DOG_BOX, 0, DOG))), LABELS)
        assert CAT_MAP not in metrics, "the config names the dog only"
        return metrics[DOG_MAP]

    assert dog_map(0.01) == 0.0
    assert dog_map(1.0) == pytest.approx(1.0)


def test_a_class_without_labelled_keypoints_is_left_out_and_said(caplog):
    found = [[(DOG_BOX, 0.9, 0, DOG), (CAT_BOX, 0.8, 1, CAT)]]
    images = one((DOG_BOX, 0, DOG), (CAT_BOX, 1, np.full((K, 2), np.nan)))
    metrics = evaluate(FixedDetector(found), dataset(images), LABELS)
    assert metrics[MAP] == metrics[DOG_MAP] == pytest.approx(1.0) and CAT_MAP not in metrics
    assert "no labelled keypoint of class cat" in caplog.text


def test_a_model_of_boxes_and_a_set_without_keypoints_are_measured_by_boxes():
    plain = LabelMap(tuple(LabelMapItem(item.id, item.name) for item in LABELS.items))
    unlabelled = one((DOG_BOX, 0, np.full((K, 2), np.nan)))
    assert set(evaluate(FixedDetector([[(DOG_BOX, 0.9, 0, DOG)]]), dataset(unlabelled), plain)) == set(METRIC_NAMES)
    boxes_only = FixedDetector([[(DOG_BOX, 0.9, 0, DOG)]])
    del boxes_only._values["detection_keypoints"]
    assert set(evaluate(boxes_only, dataset(one((DOG_BOX, 0, DOG))), LABELS)) == set(METRIC_NAMES)


def test_a_model_of_keypoints_alone_is_measured_by_them():
    detector = FixedDetector([[(DOG_BOX, 0.9, 0, DOG)]])
    del detector._values["detection_boxes"]
    metrics = evaluate(detector, dataset(one((DOG_BOX, 0, DOG))), LABELS)
    assert metrics[DOG_MAP] == pytest.approx(1.0) and MAP not in metrics
    with pytest.raises(EvaluationError, match="finds no boxes"):
        evaluate(detector, dataset(one((DOG_BOX, 0, np.full((K, 2), np.nan)))), LABELS)


def test_keypoints_that_do_not_fit_get_a_sentence():
    truths, found = one((DOG_BOX, 0, DOG)), [[(DOG_BOX, 0.9, 0, DOG)]]
    plain = LabelMap(tuple(LabelMapItem(item.id, item.name) for item in LABELS.items))
    with pytest.raises(EvaluationError, match="label map names none"):
        evaluate(FixedDetector(found), dataset(truths), plain)
    with pytest.raises(EvaluationError, match="data have 3 keypoints.*num_keypoints"):
        evaluate(FixedDetector(found), dataset(truths, keypoints=3), LABELS)
    with pytest.raises(EvaluationError, match="model has 3 keypoints"):
        evaluate(FixedDetector([[(DOG_BOX, 0.9, 0, DOG[:3])]], keypoints=3), dataset(truths), LABELS)


def test_keypoints_that_are_no_numbers_get_a_sentence():
    detector = FixedDetector([[(DOG_BOX, 0.9, 0, DOG)]])
    detector._values["detection_keypoints"] *= float("nan")
    with pytest.raises(EvaluationError, match="not finite"):
        evaluate(detector, dataset(one((DOG_BOX, 0, DOG))), LABELS)
