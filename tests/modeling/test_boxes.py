"""Areas, overlaps, clipping and units of boxes."""

import numpy as np
import tensorflow as tf
from box_oracles import overlap, random_boxes
from hypothesis import given, settings
from hypothesis import strategies as st

from tfod_zoo.modeling import boxes


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**16), side=st.sampled_from([4, 100]))
def test_iou_of_every_pair_of_every_image(seed, side):
    rows, columns = random_boxes(seed, 2, 3, side=side), random_boxes(seed + 1, 2, 5, side=side)
    iou = boxes.pairwise_iou(tf.constant(rows), tf.constant(columns)).numpy()
    for image in range(2):
        want = [[overlap(a, b) for b in columns[image]] for a in rows[image]]
        np.testing.assert_allclose(iou[image], want, rtol=1e-6)
    assert iou.min() >= 0 and iou.max() <= 1
    mirrored = boxes.pairwise_iou(tf.constant(columns), tf.constant(rows)).numpy()
    np.testing.assert_array_equal(iou, mirrored.transpose(0, 2, 1))


def test_iou_of_boxes_without_area_is_zero_even_with_themselves():
    empty = tf.constant([[0.0, 0, 0, 0], [3, 3, 3, 9], [5, 5, 2, 2]])
    assert not boxes.pairwise_iou(empty, empty).numpy().any()


def test_one_set_of_columns_serves_every_image():
    rows, columns = random_boxes(1, 2, 3), random_boxes(2, 5)
    shared = boxes.pairwise_iou(tf.constant(rows), tf.constant(columns))
    np.testing.assert_array_equal(shared, boxes.pairwise_iou(tf.constant(rows), tf.constant(np.stack([columns] * 2))))


def test_area():
    np.testing.assert_array_equal(boxes.area(tf.constant([[[1.0, 2, 4, 6], [3, 3, 3, 9], [5, 5, 2, 2]]])), [[12, 0, 0]])


def test_clip_to_each_images_own_window():
    got = boxes.clip_to_window(
        tf.constant([[[-2.0, -3, 5, 30], [20, 20, 30, 30]]] * 2), tf.constant([[0.0, 0, 10, 20], [0, 0, 100, 25]])
    )
    np.testing.assert_array_equal(got[0], [[0, 0, 5, 20], [10, 20, 10, 20]])
    np.testing.assert_array_equal(got[1], [[0, 0, 5, 25], [20, 20, 30, 25]])


def test_units():
    pixels = tf.constant([[[8.0, 32, 16, 64]], [[8, 32, 16, 64]]])
    sizes = tf.constant([[16, 64], [32, 128]])
    unit = boxes.normalize(pixels, sizes)
    np.testing.assert_array_equal(unit, [[[0.5, 0.5, 1, 1]], [[0.25, 0.25, 0.5, 0.5]]])
    np.testing.assert_array_equal(boxes.denormalize(unit, sizes), pixels)
