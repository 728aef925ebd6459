"""The whole detector and a train step compiled by XLA give what the plain graph gives."""

import numpy as np
import pytest
import tensorflow as tf
import tf_keras

import tfod_zoo

SIDE = 64


@pytest.fixture(scope="module", params=["faster_rcnn_resnet50_v1_640x640_coco17_tpu-8"])
def pipeline(request):
    message = tfod_zoo.generate_pipeline(request.param)
    config = message.model.faster_rcnn
    resizer = config.image_resizer.keep_aspect_ratio_resizer
    resizer.min_dimension = resizer.max_dimension = SIDE
    config.num_classes = 4
    config.first_stage_max_proposals, config.second_stage_batch_size = 16, 8
    nms = config.second_stage_post_processing.batch_non_max_suppression
    nms.max_detections_per_class, nms.max_total_detections = 10, 25
    return message


@pytest.fixture(autouse=True)
def same_weights():
    tf_keras.utils.set_random_seed(0)


def calm(model):
    """Random weights without averages of their own make numbers that overflow: a fainter input calms them."""
    model.extractor.body.conv.kernel.assign(model.extractor.body.conv.kernel * 1e-4)
    return model


def test_detect_compiles(pipeline):
    model = calm(tfod_zoo.build(pipeline))
    images = tf.constant(np.random.default_rng(0).integers(0, 256, [2, 48, 64, 3], dtype=np.uint8))
    compiled = tf.function(model.detect.python_function, jit_compile=True)(images)
    expected = model.detect(images)
    assert float(expected["num_detections"][0]) > 0
    for key in ("num_detections", "detection_scores", "raw_detection_scores", "raw_detection_boxes"):
        np.testing.assert_allclose(compiled[key], expected[key], atol=1e-3)


def test_a_train_step_compiles(pipeline):
    model = calm(tfod_zoo.build(pipeline, training=True, deterministic_sampling=True))
    groundtruth = {
        "boxes": tf.constant([[[0.1, 0.1, 0.5, 0.6], [0, 0, 0, 0]]]),
        "classes": tf.constant([[1, 0]]),
        "weights": tf.constant([[1.0, 0.0]]),
    }
    shapes = tf.constant([[SIDE, SIDE, 3]])

    def step(canvas):
        with tf.GradientTape() as tape:
            # Batch statistics of so few cells would blow rounding up.
            predictions = model(model.normalize(canvas), shapes, training=False, groundtruth=groundtruth)
            total = tf.add_n(list(model.compute_losses(predictions, groundtruth, shapes).values()))
        return total, tape.gradient(total, model.trainable_variables)

    canvas = tf.random.stateless_uniform([1, SIDE, SIDE, 3], [1, 2], 0, 255)
    total, gradients = tf.function(step, jit_compile=True)(canvas)
    expected, wanted = tf.function(step)(canvas)
    assert float(total) == pytest.approx(float(expected), rel=1e-4)
    # On so few cells one activation that rounding moves across ReLU's corner turns a gradient by a few per cent, in
    # length and direction; a wrong gradient is another vector altogether.
    for got, want in zip(gradients, wanted, strict=True):
        assert float(tf.norm(got - want)) <= 0.3 * float(tf.norm(want)) + 1e-6
