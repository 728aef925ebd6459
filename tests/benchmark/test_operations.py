"""Operations counted from a graph, against counts worked out by hand."""

import pytest
import tensorflow as tf
import tf_keras

from tfod_zoo.benchmark.operations import count_operations


def traced(layer, *shape):
    return tf.function(layer).get_concrete_function(tf.TensorSpec(shape, tf.float32))


@pytest.mark.parametrize(
    "layer, shape, expected",
    [
        (tf_keras.layers.Conv2D(8, 3, padding="same"), (2, 10, 12, 4), 2 * (2 * 10 * 12 * 8) * 3 * 3 * 4),
        (tf_keras.layers.Conv2D(8, 3, strides=2, padding="same"), (1, 10, 12, 4), 2 * (5 * 6 * 8) * 3 * 3 * 4),
        (tf_keras.layers.Conv2D(8, 1, groups=2), (1, 5, 5, 4), 2 * (5 * 5 * 8) * 2),
        (tf_keras.layers.DepthwiseConv2D(3, padding="same"), (1, 10, 12, 4), 2 * (10 * 12 * 4) * 3 * 3),
        (tf_keras.layers.Conv2DTranspose(8, 4, strides=2, padding="same"), (1, 5, 6, 3), 2 * (5 * 6 * 3) * 4 * 4 * 8),
        (tf_keras.layers.Dense(7), (3, 5), 2 * 3 * 5 * 7),
        (tf_keras.layers.ReLU(), (3, 5), 0),
    ],
)
def test_counts_by_hand(layer, shape, expected):
    assert count_operations(traced(layer, *shape)) == expected


def test_functions_called_inside_are_followed():
    kernel = tf.ones([5, 7])

    @tf.function
    def inner(x):
        return tf.matmul(x, kernel)

    assert count_operations(traced(lambda x: inner(x) + inner(x), 3, 5)) == 2 * (2 * 3 * 5 * 7)
