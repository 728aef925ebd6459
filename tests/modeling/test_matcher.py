"""The argmax matcher against a loop over images, rows and columns (spec: Faster R-CNN, section 10.1)."""

import box_oracles
import numpy as np
import pytest
import tensorflow as tf
from box_oracles import random_boxes
from hypothesis import given, settings
from hypothesis import strategies as st

from tfod_zoo.modeling.boxes import pairwise_iou
from tfod_zoo.modeling.faster_rcnn import matcher


def match(rows, columns, weights, matched=0.5, unmatched=0.3, force=True, function=matcher.match):
    return function(
        tf.constant(rows, tf.float32),
        tf.constant(columns, tf.float32),
        tf.constant(weights, tf.float32),
        matched_threshold=matched,
        unmatched_threshold=unmatched,
        force_match_rows=force,
    ).numpy()


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 2**16),
    side=st.sampled_from([3, 6, 30]),
    thresholds=st.sampled_from([(0.7, 0.3), (0.5, 0.5)]),
    force=st.booleans(),
    shared=st.booleans(),
    width=st.sampled_from([4, 5, 1000]),
)
def test_any_boxes(seed, side, thresholds, force, shared, width):
    """Whatever the slices of columns: small sides make ties and boxes without area common."""
    rows, columns = random_boxes(seed, 2, 5, side=side), random_boxes(seed + 1, 2, 17, side=side)
    weights = np.random.default_rng(seed).integers(0, 2, [2, 5]).astype(np.float32)
    if shared:
        columns = columns[:1].repeat(2, 0)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(matcher, "_COLUMNS_AT_A_TIME", width)
        got = match(rows, columns[0] if shared else columns, weights, *thresholds, force)
    for image in range(2):
        want = box_oracles.matches(rows[image], columns[image], weights[image], *thresholds, force)
        assert got[image].tolist() == want


def test_thresholds_ties_and_claims():
    rows = [[[0, 0, 10, 10], [0, 0, 10, 10], [40, 40, 50, 50], [0, 0, 0, 0]]]
    columns = [[60, 60, 70, 70], [0, 0, 10, 5], [0, 0, 10, 3], [0, 0, 10, 2], [40, 40, 50, 41], [0, 0, 10, 5]]
    # Overlaps with row 0 and, equal to it, row 1: 0, .5, .3, .2, 0, .5; with row 2: .1 in column 4.
    assert match(rows, columns, [[1, 1, 1, 0]], force=False).tolist() == [[-1, 0, -2, -1, -1, 0]]
    assert match(rows, columns, [[1, 1, 1, 0]], matched=0.6).tolist() == [[-1, 0, -2, -1, 2, -2]]
    # Row 0 may not claim, so row 1 gets the column, though its threshold match would be row 0.
    assert match(rows, columns, [[0, 1, 0, 0]], matched=0.6).tolist() == [[-1, 1, -2, -1, -1, -2]]
    # An object that overlaps nothing claims the first column.
    assert match([[[80, 80, 90, 90]]], columns, [[1]]).tolist() == [[0, -1, -1, -1, -1, -1]]


def test_padding_matches_nothing():
    assert (match(np.zeros([2, 3, 4]), random_boxes(0, 7), np.zeros([2, 3])) == matcher.NEGATIVE).all()


@pytest.mark.parametrize("width", [7, 1000])
def test_compiled(width, monkeypatch):
    monkeypatch.setattr(matcher, "_COLUMNS_AT_A_TIME", width)
    rows, columns, weights = random_boxes(3, 2, 5, side=9), random_boxes(4, 40, side=9), np.ones([2, 5], np.float32)
    compiled = tf.function(matcher.match, jit_compile=True)
    np.testing.assert_array_equal(match(rows, columns, weights, function=compiled), match(rows, columns, weights))


def test_no_table_of_all_boxes_and_all_anchors(monkeypatch):
    """204,600 anchors (the FPN at 640) and 100 boxes are 82 MB an image, and there would be several of it."""
    tables = []

    def recorded(rows, columns):
        tables.append(pairwise_iou(rows, columns))
        return tables[-1]

    monkeypatch.setattr(matcher, "pairwise_iou", recorded)
    tf.function(matcher.match).get_concrete_function(
        tf.TensorSpec([1, 100, 4]),
        tf.TensorSpec([204600, 4]),
        tf.TensorSpec([1, 100]),
        matched_threshold=0.7,
        unmatched_threshold=0.3,
        force_match_rows=True,
    )
    assert tables and max(table.shape.num_elements() for table in tables) < 204600 * 100 / 10


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**16), exponent=st.integers(-6, 6))
def test_both_gathers_give_the_same_bits(seed, exponent):
    random = np.random.default_rng(seed)
    values = (random.normal(size=[2, 6, 3]) * 10.0**exponent).astype(np.float32)
    matches = random.integers(0, 6, [2, 20]).astype(np.int32)
    want = np.stack([values[image, matches[image]] for image in range(2)])
    for matmul in (False, True):
        for jit in (False, True):
            gather = tf.function(matcher.gather_matched, jit_compile=jit)
            got = gather(tf.constant(values), tf.constant(matches), matmul=matmul)
            np.testing.assert_array_equal(got, want)


def test_pieces_pass_through_bfloat16_unrounded():
    values = np.random.default_rng(0).uniform(0, 1333, [1000]).astype(np.float32)
    pieces = matcher._eight_bit_pieces(tf.constant(values))
    for piece in pieces:
        np.testing.assert_array_equal(tf.cast(tf.cast(piece, tf.bfloat16), tf.float32), piece)
    np.testing.assert_array_equal(pieces[0] + (pieces[1] + pieces[2]), values)


def test_gather_without_a_match_is_finite():
    matches = tf.constant([[-1, -2, 1]])
    for matmul in (False, True):
        got = matcher.gather_matched(tf.constant([[[1.0], [2.0]]]), matches, matmul=matmul).numpy()
        assert np.isfinite(got).all() and got[0, 2] == 2
