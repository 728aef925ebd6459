"""Targets of both stages against what TFOD assigned, and against a loop over boxes (spec: Faster R-CNN, section 10)."""

import box_oracles
import numpy as np
import pytest
import tensorflow as tf
from box_oracles import REFERENCE_BOXES, REFERENCE_CODES, REFERENCE_IGNORED, REFERENCE_MATCHES, REFERENCE_WEIGHTS
from hypothesis import given, settings
from hypothesis import strategies as st

from tfod_zoo.modeling.faster_rcnn.target_assigner import detection_targets, rpn_targets


@pytest.mark.parametrize("matmul_gather", [False, True])
def test_rpn_targets_are_tfods(matmul_gather):
    anchors, weights = tf.constant(box_oracles.grid_anchors(16)), tf.constant(REFERENCE_WEIGHTS)
    got = rpn_targets(anchors, tf.constant(REFERENCE_BOXES * 256), weights, matmul_gather=matmul_gather)
    for image, want in enumerate(REFERENCE_MATCHES):
        matched = got.matched[image].numpy()
        assert {int(column): int(matched[column]) for column in np.flatnonzero(matched >= 0)} == want
        assert (matched == -2).sum() == REFERENCE_IGNORED[image]
        np.testing.assert_array_equal(got.class_targets[image], matched >= 0)
        np.testing.assert_array_equal(got.class_weights[image], matched != -2)
        np.testing.assert_array_equal(got.box_weights[image], matched >= 0)
    for index, code in REFERENCE_CODES.items():
        np.testing.assert_allclose(got.box_targets[index], code, atol=1e-4)
    assert not got.box_targets.numpy()[got.matched.numpy() < 0].any()


def test_detection_targets_are_tfods():
    """Four proposals of the first reference image, with TFOD's matches and codes for them."""
    proposals = tf.constant(
        [
            [
                [0.0, 147.76616, 192, 256],
                [56.462555, 2.9506207, 192, 59.85112],
                [76.819946, 100.018532, 179.90448, 256],
                [0.732338, 78.558365, 132.47995, 256],
                [200, 0, 256, 60],
            ]
        ]
    )
    vectors = tf.one_hot([[5, 6, 7, 8, 9]], 91)
    got = detection_targets(proposals, tf.constant(REFERENCE_BOXES[:1] * 256), vectors, tf.ones([1, 5]))
    assert got.matched.numpy().tolist() == [[1, 2, 1, 1, -1]]
    assert tf.argmax(got.class_targets, -1).numpy().tolist() == [[6, 7, 6, 6, 0]]
    assert tf.reduce_sum(got.class_targets, -1).numpy().tolist() == [[1] * 5]
    codes = [
        [0.333333, -2.687061, -1.115718, 1.315231],
        [0.466935, 2.354835, -1.157855, 0.587895],
        [-2.518537, -0.333968, 1.994012, -0.511984],
        [2.716849, 0.311134, 0.767318, -1.156507],
        [0, 0, 0, 0],
    ]
    np.testing.assert_allclose(got.box_targets[0], codes, atol=1e-4)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**16), side=st.sampled_from([6, 30]), rpn=st.booleans(), matmul_gather=st.booleans())
def test_any_boxes(seed, side, rpn, matmul_gather):
    random = np.random.default_rng(seed)
    boxes, anchors = (
        box_oracles.random_boxes(seed, 2, 4, side=side),
        box_oracles.random_boxes(seed + 1, 2, 15, side=side),
    )
    weights = random.choice([0, 0.5, 1], [2, 4]).astype(np.float32)
    classes = random.integers(1, 4, [2, 4])
    inputs = [tf.constant(value) for value in (boxes, np.eye(4, dtype=np.float32)[classes], weights)]
    if rpn:
        got = rpn_targets(tf.constant(anchors), inputs[0], inputs[2], matmul_gather=matmul_gather)
    else:
        got = detection_targets(tf.constant(anchors), *inputs, matmul_gather=matmul_gather)
    thresholds = (0.7, 0.3, True) if rpn else (0.5, 0.5, False)
    for image in range(2):
        matched = box_oracles.matches(boxes[image], anchors[image], weights[image], *thresholds)
        for column, row in enumerate(matched):
            if rpn:
                assert got.class_targets[image, column] == (row >= 0)
            else:
                assert tf.argmax(got.class_targets[image, column]) == (classes[image, row] if row >= 0 else 0)
            weight = weights[image, row] if row >= 0 else 0
            assert got.class_weights[image, column] == {-1: 1, -2: 0}.get(row, weight)
            assert got.box_weights[image, column] == weight
            code = box_oracles.code(boxes[image, row].astype(float), anchors[image, column].astype(float))
            np.testing.assert_allclose(
                got.box_targets[image, column], code if row >= 0 else [0] * 4, rtol=1e-4, atol=1e-4
            )


def test_compiled():
    boxes = tf.constant(REFERENCE_BOXES * 256)
    arguments = (tf.constant(box_oracles.grid_anchors(16)), boxes, tf.constant(REFERENCE_WEIGHTS))
    for want, got in zip(rpn_targets(*arguments), tf.function(rpn_targets, jit_compile=True)(*arguments), strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-5)
    arguments = (boxes + 5, boxes, tf.one_hot([[1, 2, 3, 1, 1]] * 2, 4), tf.constant(REFERENCE_WEIGHTS))
    compiled = tf.function(detection_targets, jit_compile=True)
    for want, got in zip(detection_targets(*arguments), compiled(*arguments), strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-5)
