"""ONNX: a NAME.onnx for each network, any batch size, run by ONNX Runtime."""

from __future__ import annotations

import gc
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tfod_zoo.export.networks import traced
from tfod_zoo.modeling.detection_model import Network, RunNetwork

_OPSET = 18  # the newest that tf2onnx 1.17 writes


def convert(name: str, network: Network, folder: Path, precision: str, inputs: Sequence[np.ndarray]) -> None:
    """Writes a network.

    The steps of `tf2onnx.convert.from_function`, of which a big network's weights fill the memory: it copies the graph
    before each of its twelve optimizers, and each keeps another copy of the weights for good.
    """
    import onnx
    from tf2onnx.optimizer import optimize_graph
    from tf2onnx.optimizer.back_to_back_optimizer import BackToBackOptimizer
    from tf2onnx.optimizer.const_fold_optimizer import ConstFoldOptimizer
    from tf2onnx.optimizer.identity_optimizer import IdentityOptimizer
    from tf2onnx.optimizer.transpose_optimizer import TransposeOptimizer

    graph = _in_onnx(network)
    gc.collect()  # TensorFlow's graphs, with the weights in them
    # To channels first, with batch norm folded into convolutions; a runtime does the rest itself.
    optimizers = (TransposeOptimizer, ConstFoldOptimizer, IdentityOptimizer, BackToBackOptimizer)
    graph = optimize_graph(graph, catch_errors=False, optimizers={each.__name__: each for each in optimizers})
    onnx.save(graph.make_model(name), str(folder / f"{name}.onnx"))


def _in_onnx(network: Network) -> Any:
    """The network as tf2onnx's graph, operation by operation."""
    from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2
    from tf2onnx.tfonnx import process_tf_graph

    frozen = convert_variables_to_constants_v2(
        traced(network, None).get_concrete_function(), lower_control_flow=False, aggressive_inlining=True
    )
    (taken,), given = frozen.inputs, [output.name for output in frozen.outputs]
    with frozen.graph.as_default():
        return process_tf_graph(
            frozen.graph, opset=_OPSET, input_names=[taken.name], output_names=given,
            tensors_to_rename={taken.name: taken.op.name},
        )  # fmt: skip


def load(folder: Path, networks: Iterable[str], threads: int) -> RunNetwork:
    """The networks, by name, on the CPU."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    sessions = {
        name: onnxruntime.InferenceSession(str(folder / f"{name}.onnx"), options, providers=["CPUExecutionProvider"])
        for name in networks
    }

    def run(name: str, inputs: Any) -> list[np.ndarray]:
        return sessions[name].run(None, {sessions[name].get_inputs()[0].name: np.asarray(inputs)})

    return run
