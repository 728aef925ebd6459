"""LiteRT (TensorFlow Lite): a NAME.tflite for each network, run by TensorFlow's own interpreter."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from tfod_zoo.export.networks import traced
from tfod_zoo.modeling.detection_model import Network, RunNetwork


def convert(name: str, network: Network, folder: Path, precision: str, inputs: Sequence[np.ndarray]) -> None:
    """Writes a network. int8 quantises weights and activations by what `inputs` make of them, and keeps float32 at
    both ends; dynamic has int8 weights and finds the range of activations as it runs."""
    function = traced(network, 1)
    converter = tf.lite.TFLiteConverter.from_concrete_functions([function.get_concrete_function()], network)
    if precision != "float32":
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
    if precision == "float16":
        converter.target_spec.supported_types = [tf.float16]
    if precision == "int8":
        converter.representative_dataset = lambda: ([value] for value in inputs)
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that int8 inputs have no statistics, of ones that stay float32
        (folder / f"{name}.tflite").write_bytes(converter.convert())


def load(folder: Path, networks: Iterable[str], threads: int) -> RunNetwork:
    """The networks, by name, on the CPU; its own choice of threads would be one."""
    threads = threads or len(os.sched_getaffinity(0))
    interpreters = {}
    for name in networks:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that it is to move to a package of its own
            interpreters[name] = tf.lite.Interpreter(model_path=str(folder / f"{name}.tflite"), num_threads=threads)
        interpreters[name].allocate_tensors()

    def run(name: str, inputs: Any) -> list[np.ndarray]:
        interpreter = interpreters[name]
        pixels = np.asarray(inputs)
        (taken,) = interpreter.get_input_details()
        if tuple(taken["shape"]) != pixels.shape:
            interpreter.resize_tensor_input(taken["index"], pixels.shape, strict=False)
            interpreter.allocate_tensors()
        interpreter.set_tensor(taken["index"], pixels)
        interpreter.invoke()
        return [interpreter.get_tensor(output["index"]) for output in interpreter.get_output_details()]

    return run
