"""The requests that TensorFlow Serving sends a model before it opens, so that no user waits for the first calls."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from pathlib import Path

import tensorflow as tf
from tensorflow_serving.apis.predict_pb2 import PredictRequest
from tensorflow_serving.apis.prediction_log_pb2 import PredictionLog, PredictLog

# Where TensorFlow Serving looks for them, and how many it takes ("SavedModel Warmup" of its guide).
WARM_UP_FILE = "assets.extra/tf_serving_warmup_requests"
MOST_REQUESTS = 1000
_SIGNATURE = "serving_default"


def write_warm_up(saved_model: Path, inputs: Iterable[tf.Tensor]) -> None:
    """Writes a request for each of the inputs, the first `MOST_REQUESTS`, beside a SavedModel.

    Args:
      saved_model: its folder.
      inputs: values of the signature's `input_tensor`. Sizes that the model will meet are what makes them useful.
    """
    place = saved_model / WARM_UP_FILE
    place.parent.mkdir(exist_ok=True)
    with tf.io.TFRecordWriter(str(place)) as writer:
        for value in itertools.islice(inputs, MOST_REQUESTS):
            request = PredictRequest(inputs={"input_tensor": tf.make_tensor_proto(value)})
            request.model_spec.signature_name = _SIGNATURE
            writer.write(PredictionLog(predict_log=PredictLog(request=request)).SerializeToString())
