"""From a pipeline config to the StableHLO text of what a TPU core runs."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorflow as tf

from tfod_zoo.benchmark.picture import HEIGHT, WIDTH
from tfod_zoo.errors import ZooError
from tfod_zoo.modeling.factory import build
from tfod_zoo.tpu.replica import OneReplicaOfMany
from tfod_zoo.training.model_garden import ExponentialMovingAverage
from tfod_zoo.training.optimizer import build_optimizer
from tfod_zoo.training.precision import choose_precision
from tfod_zoo.training.task import DetectionTask

# TensorFlow copies what would otherwise be one buffer under two names, in a dialect that JAX does not read; reshaping
# a value to its own shape says as little.
_COPY = re.compile(r"= mhlo\.copy (%\S+) : (tensor<[^>]*>)")
# TensorFlow's MLIR prints large tables of booleans with eight of them to a byte, JAX's reads one to a byte.
_PACKED_BOOLEANS = re.compile(r'dense<"0x([0-9A-F]+)"> : tensor<([0-9x]+)xi1>')
_UNSUPPORTED = re.compile(r"unsupported operations .*?: (\w+) \(")
_OWN_LINE = re.compile(r'File "[^"]*?(tfod_zoo/[^"]+)", line (\d+)')


class LoweringError(ZooError):
    """TensorFlow cannot turn a function into an XLA program; the message names the operation and where it is made."""


@dataclass(frozen=True)
class Program:
    """A program for one core.

    Attributes:
      name: for messages, such as `train step`.
      text: StableHLO, its inputs the arguments and then the variables; updated variables are also its outputs, and
        share their inputs' memory.
      cores: how many cores run it together.
      batch_per_core: images that each of them takes.
    """

    name: str
    text: str
    cores: int
    batch_per_core: int


class TrainStep:
    """The update that training does, for one of `cores` cores: forward, losses, gradients, their sum, the optimizer.

    Args:
      pipeline: TrainEvalPipelineConfig message.
      cores: replicas in sync.
      recompute: as `tfod_zoo.training.run.train` takes it.

    Raises:
      ZooError: the network or the optimizer does not exist here, or recomputation does not.
    """

    def __init__(self, pipeline: Any, cores: int, recompute: bool = False):
        self._pipeline, self._strategy = pipeline, OneReplicaOfMany(cores)
        with self._strategy.scope():
            precision = choose_precision(None, pipeline.train_config.use_bfloat16, "TPU", lambda line: None)
            self._task = DetectionTask(pipeline, precision=precision)
            self._model = self._task.build_model()
            if recompute:
                self._model.recompute_gradients()
            self._optimizer = build_optimizer(pipeline.train_config.optimizer)
            if isinstance(self._optimizer, ExponentialMovingAverage):
                self._optimizer.shadow_copy(self._model)
            self._optimizer._create_all_weights(self._model.trainable_variables)

    def lower(self, batch_per_core: int) -> Program:
        """The program for `batch_per_core` images a core.

        Raises:
          LoweringError: an operation in it cannot be compiled.
        """
        specs = _batch_specs(self._pipeline, self._model.input_shape_hw, batch_per_core)

        def replica_step(inputs: Any) -> dict[str, tf.Tensor]:
            return self._task.train_step(inputs, model=self._model, optimizer=self._optimizer)

        def step(*flat: tf.Tensor) -> dict[str, tf.Tensor]:
            return self._strategy.run(replica_step, args=(tf.nest.pack_sequence_as(specs, flat),))

        with self._strategy.scope():
            text = _stablehlo(step, tf.nest.flatten(specs), "train step")
        return Program("train step", text, self._strategy.num_replicas_in_sync, batch_per_core)


def lower_detect(pipeline: Any, batch: int = 1) -> Program:
    """`detect` on one core, on photographs of the commonest size in COCO.

    Raises:
      LoweringError: an operation in it cannot be compiled.
    """
    model = build(pipeline)
    text = _stablehlo(model.detect, [tf.TensorSpec([batch, HEIGHT, WIDTH, 3], tf.uint8)], "detect")
    return Program("detect", text, 1, batch)


def _batch_specs(pipeline: Any, canvas: tuple[int, int], batch: int) -> Any:
    """What the input pipeline gives a core: see `tfod_zoo.data.input_pipeline.build_dataset`."""
    reader = pipeline.train_input_reader
    boxes = reader.max_number_of_boxes

    def spec(*shape: int, dtype: tf.DType = tf.float32) -> tf.TensorSpec:
        return tf.TensorSpec([batch, *shape], dtype)

    features = {"image": spec(*canvas, 3), "true_image_shape": spec(3, dtype=tf.int32)}
    groundtruth = {
        "boxes": spec(boxes, 4),
        "classes": spec(boxes, dtype=tf.int32),
        "weights": spec(boxes),
        "is_crowd": spec(boxes, dtype=tf.bool),
        "area": spec(boxes),
        "num_boxes": spec(dtype=tf.int32),
    }
    if reader.num_keypoints:
        groundtruth["keypoints"] = spec(boxes, reader.num_keypoints, 2)
    return features, groundtruth


def _stablehlo(function: Any, specs: list[tf.TensorSpec], name: str) -> str:
    compiled = tf.function(lambda *args: function(*args), jit_compile=True, autograph=False)
    try:
        # Platform CPU, since TensorFlow without a TPU has no other; the text is the same for all but a few operations.
        text = compiled.experimental_get_compiler_ir(*specs)(stage="stablehlo", platform_name="CPU")
    except (ValueError, tf.errors.OpError) as error:
        raise LoweringError(_sentence(str(error), name)) from error
    return _PACKED_BOOLEANS.sub(_unpacked, _COPY.sub(r"= stablehlo.reshape \1 : (\2) -> \2", text))


def _unpacked(match: re.Match[str]) -> str:
    size = math.prod(int(length) for length in match[2].split("x"))
    packed = np.frombuffer(bytes.fromhex(match[1]), np.uint8)
    if packed.size == size:
        return match[0]
    booleans = np.unpackbits(packed, bitorder="little", count=size)
    return f'dense<"0x{booleans.tobytes().hex().upper()}"> : tensor<{match[2]}xi1>'


def _sentence(message: str, name: str) -> str:
    operation, line = _UNSUPPORTED.search(message), _OWN_LINE.findall(message)
    where = f" ({line[-1][0]}, line {line[-1][1]})" if line else ""
    if operation:
        return f"{name}: XLA has no {operation[1]}{where}; a TPU cannot run it."
    return f"{name}: TensorFlow cannot lower it{where}: {message.strip().splitlines()[0][:300]}"
