"""CenterNet's targets, losses and decoding against the worked examples of the specification (section 20)."""

import numpy as np
import pytest
import tensorflow as tf
import tf_keras
from hypothesis import given, settings
from hypothesis import strategies as st

import tfod_zoo
from tfod_zoo.config.pipeline import apply_override
from tfod_zoo.modeling.center_net import decoding, losses, peaks, targets
from tfod_zoo.modeling.center_net.feature_extractors import CAFFE_MEANS_BGR, caffe_scaling
from tfod_zoo.modeling.center_net.heads import OnDemand, prediction_head, sees_one_patch
from tfod_zoo.modeling.placement import for_another_runtime


@pytest.mark.parametrize(
    ("height", "width", "sigma"),
    [(1, 1, 1 / 6), (2, 4, 1 / 6), (4, 4, 0.5), (8, 8, 5 / 6), (32, 64, 23 / 6), (64, 64, 35 / 6), (0, 0, 1 / 6)],
)
def test_gaussian_sigma(height, width, sigma):
    value = targets.gaussian_sigma(tf.constant(float(height)), tf.constant(float(width)), 0.7)
    assert float(value) == pytest.approx(sigma, rel=1e-5)


@pytest.mark.parametrize(
    ("logit", "target", "loss"),
    [(0, 1, 0.1732868), (2, 0.5, 0.1031299), (-2, 0, 0.0018035626), (10, 0, 9.208332), (-12, 1, 9.208498)],
)
def test_penalty_reduced_focal(logit, target, loss):
    value = losses.penalty_reduced_focal(tf.constant(float(logit)), tf.constant(float(target)), 1.0, 2.0, 4.0)
    assert float(value) == pytest.approx(loss, rel=1e-4)


def test_the_focal_gradient_is_that_of_its_formula():
    rng = np.random.default_rng(0)
    logits = tf.constant(rng.normal(0, 3, (2, 5, 7, 3)), tf.float32)  # within the clip
    wanted = tf.constant(np.where(rng.random((2, 5, 7, 3)) < 0.2, 1.0, rng.random((2, 5, 7, 3))), tf.float32)
    weights = tf.constant(rng.random((2, 5, 7, 1)), tf.float32)
    with tf.GradientTape(persistent=True) as tape:
        tape.watch(logits)
        loss = 3 * losses.penalty_reduced_focal(logits, wanted, weights, 2.0, 4.0)
        right = tf.sigmoid(logits)
        centres = (1 - right) ** 2 * tf.math.log(right)
        others = (1 - wanted) ** 4 * right**2 * tf.math.log(1 - right)
        plain = -3 * tf.reduce_sum(weights * tf.where(wanted == 1, centres, others))
    assert float(loss) == pytest.approx(float(plain), rel=1e-5)
    np.testing.assert_allclose(tape.gradient(loss, logits), tape.gradient(plain, logits), atol=1e-5)


def one_image(boxes, classes, weights):
    return {
        "boxes": tf.constant([boxes], tf.float32),
        "classes": tf.constant([classes], tf.int32),
        "weights": tf.constant([weights], tf.float32),
    }


def test_box_targets():
    groundtruth = one_image([[0.1, 0.1, 0.5, 0.6], [0.3, 0.2, 0.9, 0.7]], [0, 0], [1, 1])
    got = targets.center_targets(groundtruth, 16, 16, 2, 0.7)
    np.testing.assert_array_equal(got["y"], [[4, 9]])
    np.testing.assert_array_equal(got["x"], [[5, 7]])
    np.testing.assert_allclose(got["size"], [[[6.4, 8], [9.6, 8]]], rtol=1e-5)
    np.testing.assert_allclose(got["offset"], [[[0.8, 0.6], [0.6, 0.2]]], atol=1e-5)


def test_whole_loss():
    groundtruth = one_image(
        [[0.1, 0.1, 0.5, 0.6], [0.3, 0.2, 0.7, 0.7], [0.05, 0.65, 0.45, 0.95], [0, 0, 0, 0]], [0, 0, 1, 0], [1, 1, 1, 0]
    )
    wanted = targets.center_targets(groundtruth, 16, 16, 2, 0.7)
    np.testing.assert_allclose(tf.reduce_sum(wanted["heatmap"], [0, 1, 2]), [3.232570, 1.616310], rtol=1e-5)
    weights = losses.pixel_weights(tf.constant([[48, 64, 3]]), 16, 16, 4)
    center = [tf.fill([1, 16, 16, 2], -2.19)]
    assert float(losses.center_loss(center, wanted, weights, 2.0, 4.0)) == pytest.approx(1.991417, rel=1e-5)
    assert float(losses.center_loss(center * 2, wanted, weights, 2.0, 4.0)) == pytest.approx(1.991417, rel=1e-5)
    assert 0.1 * float(losses.regression_loss([tf.ones([1, 16, 16, 2])], wanted, "size")) == pytest.approx(
        1.133333, rel=1e-5
    )
    assert float(losses.regression_loss([tf.fill([1, 16, 16, 2], 0.5)], wanted, "offset")) == pytest.approx(
        0.666666, rel=1e-5
    )


def test_pixel_weights_cover_every_touched_cell():
    weights = losses.pixel_weights(tf.constant([[21, 32, 3]]), 8, 8, 4).numpy()
    assert weights[0, :, :, 0].sum(0).tolist() == [6] * 8


def decode(center, scale, offset, true):
    """Boxes of one image's single best centre."""
    shapes = tf.constant([[*true, 3]])
    _, cells = decoding.decode_centers(center, shapes, 1, num_classes=1)
    return decoding.decode_boxes(scale, offset, cells, shapes, stride=4)


def decode_one(cell, size, offset, true, side=4):
    center = np.full([1, side, side, 1], -9, np.float32)
    center[0, cell[0], cell[1], 0] = 3
    filled = [tf.fill([1, side, side, 1], 0.0) + tf.constant(values, tf.float32) for values in (size, offset)]
    return decode(tf.constant(center), *filled, true)


def test_decoded_box():
    got = decode_one((1, 2), (2, 3), (0.25, 0.5), (12, 16))
    np.testing.assert_allclose(got["detection_boxes_strided"][0, 0], [0.25, 1, 2.25, 4], atol=1e-5)
    np.testing.assert_allclose(got["detection_boxes"][0, 0], [0.083333, 0.25, 0.75, 1], atol=1e-5)
    negative = decode_one((3, 0), (-1, 10), (0.5, 0.5), (12, 16))
    np.testing.assert_allclose(negative["detection_boxes_strided"][0, 0], [3.5, 0, 3.5, 4], atol=1e-5)
    np.testing.assert_allclose(negative["detection_boxes"][0, 0], [1, 0, 1, 1], atol=1e-5)


@settings(max_examples=30, deadline=None)
@given(
    seed=st.integers(0, 2**16),
    height=st.integers(2, 9),
    width=st.integers(2, 9),
    classes=st.integers(1, 4),
    k=st.integers(1, 8),
)
def test_top_k_is_over_cells_and_classes_together(seed, height, width, classes, k):
    k = min(k, height * width * classes)
    maps = np.random.default_rng(seed).integers(0, 9, [2, height, width, classes]).astype(np.float32)
    scores, y, x, c = (value.numpy() for value in peaks.top_k_peaks(tf.constant(maps), k))
    flat = maps.reshape(2, -1)
    order = np.argsort(-flat, axis=-1, kind="stable")[:, :k]  # stable: ties to the lower index
    np.testing.assert_array_equal((y * width + x) * classes + c, order)
    np.testing.assert_array_equal(scores, np.take_along_axis(flat, order, -1))


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 2**16),
    steps=st.sampled_from([1, 8, 1000]),  # few steps make plateaus and ties
    spread=st.sampled_from([0.0, 1.0, 20.0]),  # 20: probabilities of 0 and of 1
    smooth=st.booleans(),
    true=st.tuples(st.integers(0, 200), st.integers(1, 200)),
    k=st.sampled_from([10, 100]),
    more=st.integers(0, 1),
)
def test_the_peaks_of_few_cells_are_those_of_the_map(seed, steps, spread, smooth, true, k, more):
    logits = np.random.default_rng(seed).normal(-2, spread, [2, 48, 40, 3])
    if smooth:
        logits = sum(np.roll(logits, (i, j), (1, 2)) for i in range(3) for j in range(3)) / 3
    logits = tf.constant(np.round(logits * steps) / steps, tf.float32)
    inside = tf.cast((tf.range(48) < true[0])[:, None] & (tf.range(40) < true[1]), tf.float32)[None, ..., None]
    inside = tf.tile(inside, [2, 1, 1, 1])
    wanted = peaks.top_k_peaks(peaks.heatmap_peaks(tf.sigmoid(logits) * inside), k)
    got = peaks.highest_peaks(tf.pad(logits, [[0, 0]] * 3 + [[0, more]], constant_values=-1e9), inside, k, 3)
    for one, other in zip(got[1:], wanted[1:], strict=True):
        np.testing.assert_array_equal(one, other)
    np.testing.assert_allclose(got[0], wanted[0], rtol=1e-6)


@pytest.mark.parametrize("steps", [0, 2, 1000])
def test_ties_are_no_reason_to_look_at_the_whole_map(monkeypatch, steps):
    """bfloat16 and int8 leave few different logits, and one alone of random weights: whole maps took 2.5 ms more."""
    logits = np.random.default_rng(0).normal(-2, 1, [2, 48, 40, 3])
    logits = tf.constant(np.round(logits * steps) / max(1, steps), tf.float32)
    wanted = peaks.top_k_peaks(peaks.heatmap_peaks(tf.sigmoid(logits)), 100)
    monkeypatch.delattr(peaks, "heatmap_peaks")
    for one, other in zip(peaks.highest_peaks(logits, tf.ones([2, 48, 40, 1]), 100, 3), wanted, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-6)


@settings(max_examples=30, deadline=None)
@given(y=st.floats(0.1, 0.9), x=st.floats(0.1, 0.9), height=st.floats(0.05, 0.2), width=st.floats(0.05, 0.2))
def test_decoding_inverts_the_targets(y, x, height, width):
    """Perfect maps of one object decode to its box."""
    box = np.array([y - height / 2, x - width / 2, y + height / 2, x + width / 2], np.float32)
    wanted = targets.center_targets(one_image([box], [0], [1]), 16, 16, 1, 0.7)
    heatmap = tf.clip_by_value(wanted["heatmap"], 1e-4, 1 - 1e-4)
    got = decode(
        tf.math.log(heatmap / (1 - heatmap)),
        tf.broadcast_to(wanted["size"][:, :, None], [1, 16, 16, 2]),
        tf.broadcast_to(wanted["offset"][:, :, None], [1, 16, 16, 2]),
        (64, 64),
    )
    np.testing.assert_allclose(got["detection_boxes"][0, 0], np.clip(box, 0, 1), atol=1e-4)


@pytest.mark.parametrize("separable", [False, True])
@pytest.mark.parametrize("size", [1, 3, 4])
def test_a_head_on_demand_equals_its_map(size, separable):
    tf_keras.utils.set_random_seed(0)
    head = prediction_head(3, 5, filters=(7, 6), kernel_sizes=(size, 1), bias=-2.19, separable=separable)
    features = tf.random.stateless_normal([2, 6, 4, 5], [0, 1])
    every = tf.range(24)
    y, x = (tf.stack([cells, cells[::-1]])[:, :23] for cells in (every // 4, every % 4))
    assert sees_one_patch(head)
    on_demand = OnDemand(head, features)
    assert on_demand.shape == head(features).shape
    want = decoding.at_cells(head(features), y, x)
    np.testing.assert_allclose(on_demand.at(y, x), want, atol=1e-5)
    np.testing.assert_allclose(decoding.at_cells(on_demand, y, x), want, atol=1e-5)
    assert not sees_one_patch(prediction_head(3, 5, filters=(7, 6), kernel_sizes=(1, 3)))


@pytest.mark.parametrize(
    "name", ["centernet_mobilenetv2fpn_512x512_coco17_od", "centernet_resnet50_v2_512x512_kpts_coco17_tpu-8"]
)
def test_detections_need_few_cells_of_most_heads(name, monkeypatch):
    tf_keras.utils.set_random_seed(0)
    pipeline = tfod_zoo.generate_pipeline(name)
    resizer = pipeline.model.center_net.image_resizer.keep_aspect_ratio_resizer
    resizer.min_dimension = resizer.max_dimension = 192
    pipeline.model.center_net.object_center_params.max_box_predictions = 20
    for task in pipeline.model.center_net.keypoint_estimation_task:
        task.num_candidates_per_keypoint = 20
    model = tfod_zoo.build(pipeline)
    inputs, shapes = model.preprocess(tf.random.stateless_uniform([2, 150, 192, 3], [0, 1], 0, 255))
    looked_at = []
    at = OnDemand.at
    monkeypatch.setattr(OnDemand, "at", lambda self, y, x: looked_at.append(self.head.name) or at(self, y, x))
    found = model.detections_of(inputs, shapes)
    dense = [heads[-1].name for key, heads in model.heads.items() if key.endswith(("object_center", "heatmap"))]
    assert sorted([*looked_at, *dense]) == sorted(heads[-1].name for heads in model.heads.values())
    want = model.postprocess(model(inputs, shapes), shapes)
    assert found.keys() == want.keys()
    for key, value in want.items():
        np.testing.assert_allclose(found[key], value, atol=1e-4, err_msg=key)


def test_means_and_deviations_are_those_of_bgr_where_the_config_orders_so():
    pipeline = tfod_zoo.generate_pipeline("centernet_mobilenetv2fpn_512x512_coco17_od", image_size=64)
    for override in ("bgr_ordering=true", "channel_means=[1, 20, 90]", "channel_stds=[2, 3, 5]"):
        apply_override(pipeline, f"model.center_net.feature_extractor.{override}")
    model = tfod_zoo.build(pipeline)
    canvas = np.random.default_rng(0).uniform(0, 255, (2, 64, 64, 3)).astype(np.float32)
    wanted = (canvas[..., ::-1] - np.float32([1, 20, 90])) / np.float32([2, 3, 5])
    np.testing.assert_allclose(model.normalize(tf.constant(canvas)), model.extractor.scale(wanted), rtol=1e-6)


def test_other_runtimes_get_the_same_pixels_in_bgr():
    canvas = np.random.default_rng(0).uniform(0, 255, (2, 8, 6, 3)).astype(np.float32)
    wanted = canvas[..., ::-1] - np.float32(CAFFE_MEANS_BGR)
    np.testing.assert_array_equal(caffe_scaling(tf.constant(canvas)), wanted)
    with for_another_runtime():
        np.testing.assert_array_equal(caffe_scaling(tf.constant(canvas)), wanted)
