"""Faster R-CNN's losses against a loop over images and boxes (spec: Faster R-CNN, section 11)."""

import numpy as np
import pytest
import tensorflow as tf

from tfod_zoo.modeling.faster_rcnn import losses
from tfod_zoo.modeling.faster_rcnn.target_assigner import Targets


def entropy(logits, label):
    return float(np.log(np.exp(logits - logits.max()).sum()) + logits.max() - logits[label])


def huber(codes, targets):
    return sum(d * d / 2 if d <= 1 else d - 0.5 for d in np.abs(codes - targets).astype(float))


@pytest.mark.parametrize(("difference", "loss"), [(0, 0), (0.5, 0.125), (1, 0.5), (-3, 2.5)])
def test_smooth_l1(difference, loss):
    assert float(losses.smooth_l1(tf.constant([difference, 0, 0, 0.0]), tf.zeros(4))) == pytest.approx(loss)


def random_targets(random, n, classes=None):
    labels = random.integers(0, classes or 2, [2, n])
    weights = random.choice([0, 0.5, 1], [2, n]).astype(np.float32)
    box_weights = np.where(labels > 0, weights, 0).astype(np.float32)
    one_hot = labels.astype(np.float32) if classes is None else np.eye(classes, dtype=np.float32)[labels]
    codes = random.normal(size=[2, n, 4]).astype(np.float32)
    values = [tf.constant(value) for value in (one_hot, weights, codes, box_weights)]
    return labels, weights, codes, box_weights, Targets(*values, tf.zeros([2, n], tf.int32))


@pytest.mark.parametrize("compiled", [False, True])
def test_rpn_losses(compiled):
    random = np.random.default_rng(0)
    labels, _, codes, box_weights, targets = random_targets(random, 6)
    encodings = random.normal(size=[2, 6, 4]).astype(np.float32) * 2
    logits = random.normal(size=[2, 6, 2]).astype(np.float32)
    sampled = np.array([[1, 1, 1, 0, 1, 0], [0, 0, 0, 0, 0, 0]], bool)  # nothing sampled: nothing lost, no NaN
    function = tf.function(losses.rpn_losses, jit_compile=True) if compiled else losses.rpn_losses
    got = function(
        tf.constant(encodings),
        tf.constant(logits),
        targets,
        tf.constant(sampled),
        localization_weight=2.0,
        objectness_weight=3.0,
    )
    picked = np.flatnonzero(sampled[0])
    localization = sum(box_weights[0, a] * huber(encodings[0, a], codes[0, a]) for a in picked) / 4 / 2
    objectness = sum(entropy(logits[0, a], labels[0, a]) for a in picked) / 4 / 2
    assert set(got) == {"Loss/RPNLoss/localization_loss", "Loss/RPNLoss/objectness_loss"}
    assert float(got["Loss/RPNLoss/localization_loss"]) == pytest.approx(2 * localization, rel=1e-5)
    assert float(got["Loss/RPNLoss/objectness_loss"]) == pytest.approx(3 * objectness, rel=1e-5)


@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("shared", [False, True])
def test_box_head_losses(shared, compiled):
    random = np.random.default_rng(1)
    labels, weights, codes, box_weights, targets = random_targets(random, 5, classes=4)
    encodings = random.normal(size=[2, 5, 1 if shared else 3, 4]).astype(np.float32) * 2
    logits = random.normal(size=[2, 5, 4]).astype(np.float32)
    counts = [3, 5]
    function = tf.function(losses.box_head_losses, jit_compile=True) if compiled else losses.box_head_losses
    got = function(
        tf.constant(encodings),
        tf.constant(logits),
        targets,
        tf.constant(counts),
        localization_weight=2.0,
        classification_weight=3.0,
    )
    localization = classification = 0.0
    for image, count in enumerate(counts):
        for p in range(count):
            own = 0 if shared else labels[image, p] - 1
            box = huber(encodings[image, p, own], codes[image, p])
            localization += box_weights[image, p] * box / count / 2
            classification += weights[image, p] * entropy(logits[image, p], labels[image, p]) / count / 2
    assert set(got) == {"Loss/BoxClassifierLoss/localization_loss", "Loss/BoxClassifierLoss/classification_loss"}
    assert float(got["Loss/BoxClassifierLoss/localization_loss"]) == pytest.approx(2 * localization, rel=1e-5)
    assert float(got["Loss/BoxClassifierLoss/classification_loss"]) == pytest.approx(3 * classification, rel=1e-5)


def test_an_image_without_proposals_loses_nothing():
    *_, targets = random_targets(np.random.default_rng(2), 3, classes=4)
    got = losses.box_head_losses(
        tf.ones([2, 3, 1, 4]),
        tf.ones([2, 3, 4]),
        targets,
        tf.constant([0, 0]),
        localization_weight=1.0,
        classification_weight=1.0,
    )
    assert {key: float(value) for key, value in got.items()} == dict.fromkeys(got, 0.0)


def test_gradients_reach_predictions_and_no_targets():
    *_, targets = random_targets(np.random.default_rng(3), 3, classes=4)
    encodings, logits = tf.ones([2, 3, 3, 4]), tf.ones([2, 3, 4])
    with tf.GradientTape() as tape:
        tape.watch([encodings, logits])
        got = losses.box_head_losses(
            encodings, logits, targets, tf.constant([3, 3]), localization_weight=1.0, classification_weight=1.0
        )
        total = tf.add_n(list(got.values()))
    for gradient in tape.gradient(total, [encodings, logits]):
        assert np.abs(gradient.numpy()).max() > 0
