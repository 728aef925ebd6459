"""The codes that both stages of Faster R-CNN predict."""

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from tfod_zoo.modeling.faster_rcnn.box_coder import decode, encode


def test_worked_codes():
    """Centre (10, 20) to (14, 15) over sides (20, 40); sides to (40, 10)."""
    codes = encode(tf.constant([-6.0, 10, 34, 20]), tf.constant([0.0, 0, 20, 40]))
    np.testing.assert_allclose(codes, [10 * 4 / 20, -10 * 5 / 40, 5 * np.log(2), 5 * np.log(1 / 4)], rtol=1e-6)


def test_zero_codes_are_the_anchor():
    anchors = tf.constant([[1.0, 2, 3, 8], [0, 0, 45.25483, 22.62742]])
    np.testing.assert_allclose(decode(tf.zeros([2, 4]), anchors), anchors, rtol=1e-6)


def test_boxes_without_area_have_finite_codes():
    codes = encode(tf.constant([[3.0, 3, 3, 3], [0, 0, 8, 8]]), tf.constant([[0.0, 0, 16, 16], [5, 5, 5, 5]])).numpy()
    assert np.isfinite(codes).all()
    assert codes[0, 2] == pytest.approx(5 * np.log(1e-8 / 16), rel=1e-5)


@settings(max_examples=50, deadline=None)
@given(
    box=st.tuples(*[st.floats(0, 500)] * 2, *[st.floats(1, 500)] * 2),
    anchor=st.tuples(*[st.floats(0, 500)] * 2, *[st.floats(1, 500)] * 2),
)
def test_decoding_inverts_encoding(box, anchor):
    box, anchor = (np.array([y, x, y + h, x + w], np.float32) for y, x, h, w in (box, anchor))
    # One anchor for boxes of two images: leading axes broadcast.
    boxes = tf.constant(np.stack([[box], [anchor]]))
    np.testing.assert_allclose(decode(encode(boxes, anchor), tf.constant(anchor)), boxes, rtol=1e-4, atol=2e-3)
