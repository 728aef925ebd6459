"""ONNX: a NAME.onnx for each network, any batch size, run by ONNX Runtime."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tfod_zoo.export.networks import traced
from tfod_zoo.modeling.detection_model import Network, RunNetwork

_OPSET = 18  # the newest that tf2onnx 1.17 writes


def convert(name: str, network: Network, folder: Path, precision: str, inputs: Sequence[np.ndarray]) -> None:
    """Writes a network."""
    import tf2onnx

    function = traced(network, None)
    tf2onnx.convert.from_function(
        function, input_signature=function.input_signature, opset=_OPSET, output_path=str(folder / f"{name}.onnx")
    )


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
