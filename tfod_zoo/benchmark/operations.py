"""Floating-point operations of a traced network, counted from the static shapes of its graph."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import tensorflow as tf


def count_operations(concrete_function: Any) -> int:
    """Operations of one call: a multiply-add is two. Convolutions and matrix products only, as papers count.

    Shapes must be static. Functions called inside are followed; a loop's body counts once.
    """
    return _graph_operations(concrete_function.graph)


def network_operations(model: Any, batch_size: int = 1) -> int:
    """`count_operations` of the network on one batch of canvases, without pre- and post-processing."""
    height, width = model.input_shape_hw

    @tf.function
    def network(canvas: tf.Tensor, true_image_shapes: tf.Tensor) -> Any:
        return model(model.normalize(canvas), true_image_shapes, training=False)

    return count_operations(
        network.get_concrete_function(
            tf.TensorSpec([batch_size, height, width, 3], tf.float32), tf.TensorSpec([batch_size, 3], tf.int32)
        )
    )


def _graph_operations(graph: Any) -> int:
    total = 0
    for operation in graph.get_operations():
        counter = _COUNTERS.get(operation.type)
        if counter:
            total += counter(operation)
        elif operation.type in ("PartitionedCall", "StatefulPartitionedCall"):
            name = operation.get_attr("f").name
            total += _graph_operations(graph._get_function(name).graph)  # the only way to a nested function's graph
    return total


def _convolution(operation: Any) -> int:
    """Conv2D: each output value sums over a window of height x width x input channels (of its group)."""
    height, width, channels, _ = operation.inputs[1].shape
    return 2 * math.prod(operation.outputs[0].shape) * height * width * channels


def _depthwise(operation: Any) -> int:
    """DepthwiseConv2d: as above, with one channel a window."""
    height, width, _, _ = operation.inputs[1].shape
    return 2 * math.prod(operation.outputs[0].shape) * height * width


def _transposed_convolution(operation: Any) -> int:
    """Conv2DBackpropInput forwards: each *input* value is spread over a window and all output channels."""
    height, width, channels, _ = operation.inputs[1].shape
    return 2 * math.prod(operation.inputs[2].shape) * height * width * channels


def _matrix_product(operation: Any) -> int:
    left = operation.inputs[0].shape
    transposed = operation.get_attr("transpose_a" if operation.type == "MatMul" else "adj_x")
    return 2 * math.prod(operation.outputs[0].shape) * left[-2 if transposed else -1]


_COUNTERS: dict[str, Callable[[Any], int]] = {
    "Conv2D": _convolution,
    "DepthwiseConv2dNative": _depthwise,
    "Conv2DBackpropInput": _transposed_convolution,
    "MatMul": _matrix_product,
    "BatchMatMulV2": _matrix_product,
}
