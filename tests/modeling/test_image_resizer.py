"""Sizes and samples measured on TFOD itself (spec: CenterNet section 20, Faster R-CNN section 2.1)."""

import numpy as np
import pytest
import tensorflow as tf

from tfod_zoo.config.schema import message_class
from tfod_zoo.modeling.image_resizer import ResizerError, canvas_size, resize_and_pad


def keep_aspect(low, high=None, **fields):
    message = message_class("ImageResizer")()
    options = message.keep_aspect_ratio_resizer
    options.min_dimension, options.max_dimension = low, high or low
    options.pad_to_max_dimension = fields.pop("pad", True)
    options.per_channel_pad_value.extend(fields.pop("fill", []))
    return message


def fixed(height, width):
    message = message_class("ImageResizer")()
    message.fixed_shape_resizer.height, message.fixed_shape_resizer.width = height, width
    return message


@pytest.mark.parametrize("dynamic", [False, True])
@pytest.mark.parametrize(
    ("low", "high", "size", "expected"),
    [
        (512, 512, (427, 640), (342, 512)),
        (512, 512, (640, 427), (512, 342)),
        (512, 512, (333, 500), (341, 512)),
        (512, 512, (480, 640), (384, 512)),
        (512, 512, (375, 500), (384, 512)),
        (512, 512, (1, 1000), (1, 512)),
        (800, 1333, (480, 640), (800, 1067)),
        (800, 1333, (427, 640), (800, 1199)),
        (800, 1333, (640, 425), (1205, 800)),
        (800, 1333, (333, 500), (800, 1201)),
        (800, 1333, (1, 7), (190, 1333)),
        (640, 640, (333, 500), (426, 640)),
    ],
)
def test_keep_aspect_sizes(low, high, size, expected, dynamic):
    resizer = keep_aspect(low, high)
    call = lambda image: resize_and_pad(image, resizer)  # noqa: E731
    if dynamic:
        call = tf.function(call, input_signature=[tf.TensorSpec([None, None, 3], tf.uint8)])
    canvas, true_shape = call(tf.fill([*size, 3], tf.constant(9, tf.uint8)))
    assert canvas.shape == (high, high, 3) and canvas.dtype == tf.float32
    assert true_shape.numpy().tolist() == [*expected, 3]
    inside = canvas.numpy()[: expected[0], : expected[1]]
    assert np.all(inside == 9) and canvas.numpy().sum() == inside.sum()


@pytest.mark.parametrize("compiled", [False, True])
def test_ramp_is_sampled_as_tf1_did(compiled):
    ramp = tf.tile(tf.reshape(tf.range(15.0), [3, 5, 1]), [1, 1, 3])
    canvas, true_shape = tf.function(lambda image: resize_and_pad(image, keep_aspect(8)), jit_compile=compiled)(ramp)
    channel = canvas.numpy()[..., 1]
    assert true_shape.numpy().tolist() == [5, 8, 3]
    np.testing.assert_allclose(channel[0], [0, 0.625, 1.25, 1.875, 2.5, 3.125, 3.75, 4], atol=1e-5)
    np.testing.assert_allclose(channel[:5, 0], [0, 3, 6, 9, 10], atol=1e-5)  # source rows 0, .6, 1.2, 1.8, 2.4
    assert not channel[5:].any()


def test_a_batch_is_resized_like_its_images():
    batch = tf.constant(np.random.default_rng(0).integers(0, 256, (2, 33, 50, 3)), tf.uint8)
    canvases, true_shape = resize_and_pad(batch, keep_aspect(32, fill=[1.0, 2.0, 3.0]))
    for index in range(2):
        canvas, one_shape = resize_and_pad(batch[index], keep_aspect(32, fill=[1.0, 2.0, 3.0]))
        np.testing.assert_array_equal(canvases[index], canvas)
        np.testing.assert_array_equal(true_shape, one_shape)
    np.testing.assert_array_equal(canvases[0, -1, -1], [1, 2, 3])


def test_fixed_shape_ignores_the_aspect():
    canvas, true_shape = resize_and_pad(tf.reshape(tf.repeat(tf.range(4.0), 3), [1, 4, 3]), fixed(2, 8))
    assert true_shape.numpy().tolist() == [2, 8, 3] and canvas_size(fixed(2, 8)) == (2, 8)
    np.testing.assert_allclose(canvas[0, :, 0], [0, 0.5, 1, 1.5, 2, 2.5, 3, 3])


def test_what_has_no_fixed_size_is_refused_by_name():
    none, identity, nearest = (message_class("ImageResizer")() for _ in range(3))
    identity.identity_resizer.SetInParent()
    nearest.fixed_shape_resizer.resize_method = 1
    with pytest.raises(ResizerError, match="none set"):
        canvas_size(none)
    with pytest.raises(ResizerError, match="identity_resizer is not supported"):
        canvas_size(identity)
    with pytest.raises(ResizerError, match="NEAREST"):
        canvas_size(nearest)
    with pytest.raises(ResizerError, match="pad_to_max_dimension: true"):
        canvas_size(keep_aspect(8, pad=False))
    with pytest.raises(ResizerError, match="larger than max_dimension"):
        canvas_size(keep_aspect(9, 8))
