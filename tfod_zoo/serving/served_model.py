"""A detector with what a server needs of it: one graph for images of every size, answers in JSON, its description."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import tensorflow as tf
from google.protobuf.json_format import MessageToDict
from tensorflow_serving.apis.get_model_metadata_pb2 import SignatureDefMap

from tfod_zoo.export.saved_model import ServingModule
from tfod_zoo.modeling.detection_model import DetectionModel
from tfod_zoo.pictures.detections import Detections
from tfod_zoo.pictures.labels import Labels
from tfod_zoo.serving.image_file import TENSORFLOW_FORMATS, check_image, read_upright
from tfod_zoo.serving.predict_request import INPUT, SIGNATURE, files, parse_request, pixels, response
from tfod_zoo.serving.refusal import Refusal

VERSION = "1"  # TensorFlow Serving numbers a model's versions; here there is one
# More examples in a request would take memory on the network's canvas, however small they come.
MAX_BATCH = 32
_WARM_UP_SIZE = (480, 640)
_METHOD = "tensorflow/serving/predict"


class ServedModel:
    """Takes bodies of requests, gives bodies of answers. Use it from one thread.

    Args:
      model: a detector with its weights.
      name: what it is called in addresses.
      input_type: one of `tfod_zoo.export.saved_model.INPUT_TYPES`, what `predict` takes.
      max_pixels: of a request's images together.
    """

    def __init__(self, model: DetectionModel, name: str, input_type: str, max_pixels: int):
        self.name = name
        self._input_type = input_type
        self._max_pixels = max_pixels
        self._labels = labels = model.labels
        self._poses = {labels.name(id): _pose(labels, id) for id, points in labels.keypoints_of.items() if points}
        # Traced for any height and width, so that a client's new size costs nobody a trace.
        self._detect = ServingModule(model).__call__
        self._predict = self._detect if input_type == "image_tensor" else ServingModule(model, input_type).__call__

    def warm_up(self) -> None:
        """Traces and runs once, so that no client waits for it."""
        self._detect(tf.zeros([1, *_WARM_UP_SIZE, 3], tf.uint8))
        self._predict.get_concrete_function()

    def detect_file(self, data: bytes, min_score: float = 0.0) -> bytes:
        """An image file -> JSON: `Detections.to_dict()`, and for every class with keypoints their names and skeleton.

        Args:
          data: the file.
          min_score: detections below it are left out.

        Raises:
          Refusal: it is not an image, is damaged or too large.
        """
        image = read_upright(data, self._max_pixels)
        outputs = self._detect(tf.constant(image[None]))
        found = Detections.from_outputs(outputs, image.shape[:2], labels=self._labels).above(min_score)
        return _to_json({"model": self.name, **found.to_dict(), "poses": self._poses})

    def predict(self, body: bytes) -> bytes:
        """TensorFlow Serving's `:predict`.

        Raises:
          Refusal: the request does not fit the signature, or an image in it is not one or too large.
        """
        request = parse_request(body)
        if self._input_type in ("image_tensor", "float_image_tensor"):
            value = tf.constant(self._checked_pixels(request.value))
        else:
            value = tf.constant(self._checked_files(request.value))
        try:
            outputs = {key: value.numpy() for key, value in self._predict(value).items()}
        except tf.errors.InvalidArgumentError as error:  # its header was right, its data are not
            raise Refusal(400, "An image is damaged or cut off; send whole files.") from error
        return _to_json(response(outputs, request.by_rows))

    def _checked_pixels(self, value: Any) -> np.ndarray:
        whole = self._input_type == "image_tensor"
        images = pixels(value, np.uint8 if whole else np.float32)
        if whole and len(images) != 1:
            raise Refusal(400, f"The signature takes one image a request, and this has {len(images)}; send each alone.")
        self._check_amount(len(images), images.shape[0] * images.shape[1] * images.shape[2])
        return images

    def _checked_files(self, value: Any) -> list[bytes]:
        encoded = files(value)
        images = encoded if self._input_type != "tf_example" else [_image_of_example(data) for data in encoded]
        self._check_amount(len(encoded), 0)
        sizes = [check_image(image, self._max_pixels, TENSORFLOW_FORMATS) for image in images]
        self._check_amount(len(encoded), sum(math.prod(size) for size in sizes))
        return encoded

    def _check_amount(self, images: int, total_pixels: int) -> None:
        if images > MAX_BATCH:
            raise Refusal(413, f"The request has {images} images, but {MAX_BATCH} are allowed; send fewer at once.")
        if total_pixels > self._max_pixels:
            raise Refusal(
                413, f"The request has {total_pixels} pixels, but {self._max_pixels} are allowed; send less at once."
            )

    def status(self) -> dict[str, Any]:
        """TensorFlow Serving's answer about a model that is ready."""
        state = {"version": VERSION, "state": "AVAILABLE", "status": {"error_code": "OK", "error_message": ""}}
        return {"model_version_status": [state]}

    def metadata(self) -> dict[str, Any]:
        """TensorFlow Serving's description: the signature's names, dtypes and shapes."""
        traced = self._predict.get_concrete_function()
        described = SignatureDefMap()
        signature = described.signature_def[SIGNATURE]
        signature.method_name = _METHOD
        tensors = [(signature.inputs[INPUT], traced.structured_input_signature[0][0])]
        tensors += [(signature.outputs[key], value) for key, value in traced.structured_outputs.items()]
        for info, tensor in tensors:
            info.dtype = tensor.dtype.as_datatype_enum
            info.tensor_shape.CopyFrom(tensor.shape.as_proto())
        for name in signature.inputs:
            signature.inputs[name].name = f"{SIGNATURE}_{name}:0"
        for name in signature.outputs:
            signature.outputs[name].name = f"{name}:0"
        in_full = {"preserving_proto_field_name": True, "always_print_fields_with_no_presence": True}
        return {
            "model_spec": {"name": self.name, "signature_name": "", "version": VERSION},
            "metadata": {"signature_def": MessageToDict(described, **in_full)},
        }


def _pose(labels: Labels, class_id: int) -> dict[str, Any]:
    """Names of a class's keypoints in the order of its detections, and pairs of places in it that lines join."""
    points = labels.keypoints_of[class_id]
    lines = [[points.index(start), points.index(end)] for start, end in labels.edges if {start, end} <= set(points)]
    return {"keypoints": [labels.keypoint_name(index) for index in points], "skeleton": lines}


def _image_of_example(data: bytes) -> bytes:
    try:
        values = tf.train.Example.FromString(data).features.feature["image/encoded"].bytes_list.value
    except Exception as error:  # protobuf's DecodeError, which has no public home that all its versions share
        raise Refusal(400, "An example is not a serialised tf.Example.") from error
    if len(values) != 1:
        raise Refusal(400, f'A tf.Example has {len(values)} values of "image/encoded"; give it one.')
    return values[0]


def _to_json(message: dict[str, Any]) -> bytes:
    return json.dumps(message, separators=(",", ":")).encode()
