"""TensorFlow Serving's REST form of a prediction: JSON to one tensor, tensors to JSON.

The form is that of "RESTful API" in TensorFlow Serving's guide: `instances` (rows: one value an example) is answered by
`predictions`, `inputs` (columns: one value an input) by `outputs`.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from tfod_zoo.serving.refusal import Refusal

SIGNATURE = "serving_default"
INPUT = "input_tensor"  # the only input of TFOD's signatures
_KNOWN = ("signature_name", "instances", "inputs")


@dataclass(frozen=True)
class PredictRequest:
    """A prediction asked for.

    Attributes:
      value: what the input is to be: nested lists of numbers, or of strings and `{"b64": ...}`, the batch first.
      by_rows: it came as `instances`.
    """

    value: Any
    by_rows: bool


def parse_request(body: bytes) -> PredictRequest:
    """Reads the body of a `:predict`.

    Raises:
      Refusal: 400 where it is not JSON of this form; 404 for a signature that does not exist.
    """
    try:
        message = json.loads(body)
    except (ValueError, RecursionError) as error:
        reason = "it is nested too deeply" if isinstance(error, RecursionError) else str(error)
        raise Refusal(400, f"The body is not JSON ({reason}).") from error
    if not isinstance(message, dict):
        raise Refusal(400, 'The body is not a JSON object; send {"instances": [...]} or {"inputs": ...}.')
    unknown = sorted(message.keys() - set(_KNOWN))
    if unknown:
        raise Refusal(400, f"The request has an unknown key {_shown(unknown[0])}; known are {', '.join(_KNOWN)}.")
    signature = message.get("signature_name", SIGNATURE)
    if signature not in ("", SIGNATURE):
        raise Refusal(404, f"There is no signature {_shown(signature)}; the model has {SIGNATURE}.")
    if ("instances" in message) == ("inputs" in message):
        raise Refusal(400, 'The request has to have either "instances" or "inputs".')
    if "instances" in message:
        instances = message["instances"]
        if not isinstance(instances, list) or not instances:
            raise Refusal(400, '"instances" is not a list with an example or more.')
        return PredictRequest([_only_input(instance) for instance in instances], by_rows=True)
    return PredictRequest(_only_input(message["inputs"]), by_rows=False)


def _only_input(value: Any) -> Any:
    """The input's value, with or without its name around it."""
    if not isinstance(value, dict) or value.keys() == {"b64"}:
        return value
    if value.keys() != {INPUT}:
        names = ", ".join(map(_shown, value)) or "none"
        raise Refusal(400, f'The signature has one input, "{INPUT}"; the request names {names}.')
    return value[INPUT]


def pixels(value: Any, dtype: type[np.generic]) -> np.ndarray:
    """Nested lists `[B, H, W, 3]` of numbers in 0..255 as an array of `dtype`, uint8 or float32.

    Raises:
      Refusal: 400 for another shape, or something that is not such a number.
    """
    try:
        array = np.asarray(value)
    except ValueError as error:
        raise Refusal(400, f'"{INPUT}" is not a regular array; give every row and pixel the same length.') from error
    whole = np.issubdtype(dtype, np.integer)
    if array.size and array.dtype.kind not in ("iu" if whole else "iuf"):
        raise Refusal(400, f'"{INPUT}" takes {"whole " if whole else ""}numbers in 0..255, and has something else.')
    if array.ndim != 4 or array.shape[-1] != 3 or array.size == 0:
        raise Refusal(400, f'"{INPUT}" has shape {list(array.shape)}, but takes images as [batch, height, width, 3].')
    if not (array.min() >= 0 and array.max() <= 255):  # this way round, so that NaN is refused
        raise Refusal(400, f'"{INPUT}" takes numbers in 0..255, and has some outside.')
    return array.astype(dtype)


def files(value: Any) -> list[bytes]:
    """A list of `{"b64": ...}` as bytes.

    Raises:
      Refusal: 400 for anything else.
    """
    advice = f'"{INPUT}" takes encoded data, one {{"b64": "..."}} an example'
    if not isinstance(value, list) or not value:
        raise Refusal(400, f"{advice}, in a list.")
    found = []
    for entry in value:
        if not isinstance(entry, dict) or entry.keys() != {"b64"} or not isinstance(entry["b64"], str):
            raise Refusal(400, f"{advice}, and has something else.")
        try:
            found.append(base64.b64decode(entry["b64"], validate=True))
        except (binascii.Error, ValueError) as error:
            raise Refusal(400, f"{advice}; this is not base64 ({error}).") from error
    return found


def response(outputs: Mapping[str, np.ndarray], by_rows: bool) -> dict[str, Any]:
    """The answer's JSON: outputs `[B, ...]` by name, as the request was by rows or by columns."""
    values = {name: value.tolist() for name, value in outputs.items()}
    if not by_rows:
        return {"outputs": values}
    return {"predictions": [dict(zip(values, row, strict=True)) for row in zip(*values.values(), strict=True)]}


def _shown(text: Any) -> str:
    """A client's own words, short enough for a sentence."""
    shown = json.dumps(text)
    return shown if len(shown) <= 40 else shown[:40] + "..."
