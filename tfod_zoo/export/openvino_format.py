"""OpenVINO IR: a NAME.xml and a NAME.bin for each network, any batch size."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from tfod_zoo.export.networks import traced
from tfod_zoo.modeling.detection_model import Network, RunNetwork

# What is left to floating point. A processor with bfloat16 matrix units would otherwise compute all of it so, unasked.
_COMPUTES = {"float32": "f32", "float16": "f32", "bfloat16": "bf16", "int8": "bf16"}

_ALIGNMENT = 64  # bytes, of TensorFlow's tensors where a processor has AVX-512


def convert(name: str, network: Network, folder: Path, precision: str, inputs: Sequence[np.ndarray]) -> None:
    """Writes a network; int8 quantises it by what `inputs` make of it."""
    import openvino

    function = traced(network, None).get_concrete_function()
    converted = openvino.convert_model(function)
    wanted = {output.name for output in function.outputs}
    for result in converted.get_results():
        # The converter makes outputs of what nothing uses, too: the batch size given to a transposed convolution.
        if not wanted & result.output(0).get_names():
            converted.remove_result(result)
    if precision == "int8":
        import nncf

        converted = nncf.quantize(converted, nncf.Dataset(inputs), subset_size=len(inputs))
    for result in converted.get_results():
        _transpose_apart(result)
    # Weights in half the size lose what float32 promises; int8's others are few.
    openvino.save_model(converted, folder / f"{name}.xml", compress_to_fp16=precision in ("float16", "bfloat16"))


def _transpose_apart(result: Any) -> None:
    """Gives an output that is a transposed ReLU or ReLU6, as features are, a ReLU and a transposition of its own.

    They change no value. Without them the runtime shares one transposition with the layers that go on, in layouts that
    cost far more: 8 of the 72 ms of a Faster R-CNN's first stage in bfloat16, 1.6 of the 58 of a ResNet-50 CenterNet
    (OpenVINO 2026.4, two cores).
    """
    from openvino import opset13

    shared = result.input_value(0)
    transposition = shared.get_node()
    if transposition.get_type_name() != "Transpose":
        return
    features, order = transposition.input_values()
    activation = features.get_node()
    if activation.get_type_name() != "Relu" and activation.get_attributes().get("min") != 0:
        return
    own = opset13.transpose(opset13.relu(features), order).output(0)
    own.set_names(shared.get_names())
    shared.set_names(set())
    result.input(0).replace_source_output(own)


def load(folder: Path, networks: Mapping[str, str], threads: int) -> RunNetwork:
    """The networks, name -> precision, on the CPU; compiled for each batch size when it is first seen."""
    import openvino

    core = openvino.Core()
    has_bfloat16 = "BF16" in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    limit = {"INFERENCE_NUM_THREADS": threads} if threads else {}
    compiled: dict[tuple[str, tuple[int, ...]], Any] = {}

    def run(name: str, inputs: Any) -> list[tf.Tensor]:
        pixels = np.ascontiguousarray(inputs)
        key = (name, pixels.shape)
        if key not in compiled:
            model = core.read_model(folder / f"{name}.xml")
            model.reshape(list(pixels.shape))
            computes = _COMPUTES[networks[name]] if has_bfloat16 else "f32"
            options = {"INFERENCE_PRECISION_HINT": computes, "PERFORMANCE_HINT": "LATENCY", **limit}
            compiled[key] = core.compile_model(model, "CPU", options)
        # Without copies: what comes out is read before the next call, which overwrites it.
        results = compiled[key](pixels, share_inputs=True, share_outputs=True)
        return [_as_tensor(results[i]) for i in range(len(results))]

    return run


def _as_tensor(array: np.ndarray) -> tf.Tensor:
    """Without a copy where it is aligned as TensorFlow's own are; from another address TensorFlow ends the process."""
    if array.ctypes.data % _ALIGNMENT:
        return tf.constant(array)
    return tf.experimental.dlpack.from_dlpack(array.__dlpack__())
