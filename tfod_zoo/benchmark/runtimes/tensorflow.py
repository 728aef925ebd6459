"""TensorFlow: its graph executor in float32 or bfloat16, or XLA."""

from __future__ import annotations

import numpy as np
import tensorflow as tf

from tfod_zoo.benchmark.runtimes.loaded import Loaded
from tfod_zoo.evaluation.coco import make_detect_step
from tfod_zoo.modeling.detection_model import DetectionModel


def load(model: DetectionModel, runtime: str, precision: str) -> Loaded:
    """The model itself; `detect` has one trace for each size of image.

    bfloat16 is TensorFlow's own rewriting of graphs for oneDNN, which leaves float32 what would suffer; it holds for
    the whole process.
    """
    if precision == "bfloat16":
        tf.config.optimizer.set_experimental_options({"auto_mixed_precision_onednn_bfloat16": True})
    compiled = runtime == "xla"
    function = (
        # Not `model.detect`, which may have been traced for TensorFlow's own kernels already.
        tf.function(lambda images: model.detect_preprocessed(*model.preprocess(images)), jit_compile=True)
        if compiled
        else lambda images: model.detect(images)  # by itself it would not keep the model alive
    )
    step = make_detect_step(model)

    def detect(images: np.ndarray) -> dict[str, np.ndarray]:
        return {key: value.numpy() for key, value in function(tf.constant(images)).items()}

    return Loaded(detect, tf.function(step, jit_compile=True) if compiled else step)
