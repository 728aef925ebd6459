"""A detector's networks as other runtimes get them: traced graphs, and the inputs that images make for them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from tfod_zoo.modeling.detection_model import DetectionModel, Network, RunNetwork, as_served
from tfod_zoo.modeling.placement import for_another_runtime

# Images uint8 [B, H, W, 3] to arrays under the keys of TFOD's serving signature.
Detect = Callable[[np.ndarray], dict[str, np.ndarray]]


def traced(network: Network, batch: int | None) -> tf.types.experimental.GenericFunction:
    """The network for a converter: a function of one `input`, `[batch * rows, ...]` float32, traced once."""
    rows = None if batch is None else batch * network.rows
    function = tf.function(
        lambda input: network.call(input),
        input_signature=[tf.TensorSpec([rows, *network.input_shape], tf.float32, name="input")],
        autograph=False,
    )
    with for_another_runtime():
        function.get_concrete_function()
    return function


def in_tensorflow(model: DetectionModel) -> RunNetwork:
    """The networks run by TensorFlow, each traced once."""
    traced = {name: tf.function(network.call, autograph=False) for name, network in model.networks.items()}
    return lambda name, inputs: traced[name](inputs)


def detector(model: DetectionModel, run: RunNetwork) -> Detect:
    """`model.detect` with its networks run by `run`."""
    to_canvas = tf.function(model.to_canvas, reduce_retracing=True, autograph=False)

    def detect(images: np.ndarray) -> dict[str, np.ndarray]:
        detections = as_served(model.detect_through(run, *to_canvas(tf.constant(images))))
        return {key: value.numpy() for key, value in detections.items()}

    return detect


def network_inputs(model: DetectionModel, name: str, images: Iterable[np.ndarray]) -> list[np.ndarray]:
    """What the network `name` gets while `images`, uint8 `[H, W, 3]` each, are detected in TensorFlow."""
    if model.networks[name].input_shape == (*model.input_shape_hw, 3):  # no detection is needed to see the canvas
        return [np.asarray(model.to_canvas(image[None])[0]) for image in images]
    run = in_tensorflow(model)
    seen = []

    def run_and_keep(each: str, inputs: tf.Tensor) -> Sequence[Any]:
        if each == name:
            seen.append(np.asarray(inputs))
        return run(each, inputs)

    detect = detector(model, run_and_keep)
    for image in images:
        detect(image[None])
    return seen
