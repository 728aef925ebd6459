"""The SavedModel of a zoo archive, whichever of the zoo's forms it has.

- Standard: signature `serving_default` from `input_tensor`, uint8 [1, H, W, 3] of any size, to named outputs.
- 2020: the same, but `detection_boxes_strided` and `detection_multiclass_scores` may not be there.
- TFLite-style (the MobileNet archives): float32 of one size, outputs `output_0`, `output_1`, ... without meaning in
  their names; what they are is told by their shapes and values.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from tfod_zoo.errors import ZooError

STANDARD, TFLITE_STYLE = "standard", "TFLite-style"


class NotComparableError(ZooError):
    """The SavedModel's outputs cannot be set beside a detector's; the message is a clause that says why."""


class ShippedModel:
    """Runs the SavedModel in a model's folder.

    Args:
      folder: a model's folder; the SavedModel may sit one folder deeper than usual.

    Attributes:
      form: STANDARD or TFLITE_STYLE.
      path: the SavedModel's folder.

    Raises:
      NotComparableError: there is none, or it takes or gives what no detector of the zoo does.
    """

    def __init__(self, folder: Path):
        import tensorflow as tf

        found = sorted(folder.rglob("saved_model.pb"), key=lambda path: len(path.parts))
        if not found:
            raise NotComparableError("the archive ships no SavedModel")
        self.path = found[0].parent
        try:
            self._loaded = tf.saved_model.load(str(self.path))  # kept: its variables live as long as it does
        except Exception as error:  # whatever TensorFlow makes of a file that it cannot read
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise NotComparableError(f"its SavedModel cannot be loaded ({reason[:200]})") from error
        if "serving_default" not in self._loaded.signatures:
            raise NotComparableError("its SavedModel has no signature serving_default")
        self._run = self._loaded.signatures["serving_default"]
        inputs = self._run.structured_input_signature[1]
        if len(inputs) != 1:
            raise NotComparableError(f"its SavedModel takes {len(inputs)} inputs where one image was expected")
        self._input, spec = next(iter(inputs.items()))
        self._dtype, self._shape = spec.dtype, spec.shape
        outputs = set(self._run.structured_outputs)
        if spec.shape.rank != 4:
            raise NotComparableError(f"its SavedModel takes {spec.dtype.name}{spec.shape}, not an image")
        if {"detection_boxes", "detection_scores"} <= outputs or {"detection_keypoints", "detection_scores"} <= outputs:
            self.form = STANDARD
        elif all(name.startswith("output_") for name in outputs):
            self.form = TFLITE_STYLE
        else:
            raise NotComparableError(f"its SavedModel gives {', '.join(sorted(outputs))}, not detections")

    def input_image(self, image: np.ndarray) -> np.ndarray:
        """The image [H, W, 3] uint8 at the size that the SavedModel takes, if it takes only one."""
        import tensorflow as tf

        height, width = self._shape[1:3]
        if height is None or width is None:
            return image
        resized = tf.image.resize(tf.cast(image, tf.float32), (height, width))
        return np.clip(np.rint(resized.numpy()), 0, 255).astype(np.uint8)

    def __call__(self, image: np.ndarray) -> dict[str, np.ndarray]:
        """Detections of one image [H, W, 3] uint8 from `input_image`, under the names of the standard form."""
        import tensorflow as tf

        outputs = self._run(**{self._input: tf.cast(image[None], self._dtype)})
        arrays = {key: value.numpy() for key, value in outputs.items()}
        return arrays if self.form == STANDARD else name_outputs(arrays)


def name_outputs(arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Names for `output_0...` by shape and value: boxes [1,N,4], classes and scores [1,N], a number [1].

    Classes are whole numbers of which some are not 0 or 1, scores lie in 0..1 and fall. TFLite's classes count from 0,
    the standard form's from 1.

    Raises:
      NotComparableError: the shapes leave it open, or are those of no detector.
    """
    named: dict[str, np.ndarray] = {}
    rows = []
    for array in arrays.values():
        if array.ndim == 3 and array.shape[-1] == 4:
            named["detection_boxes"] = array
        elif array.ndim == 4 and array.shape[-1] == 2:
            named["detection_keypoints"] = array
        elif array.ndim == 3:
            named["detection_keypoint_scores"] = array
        elif array.ndim == 2:
            rows.append(array)
        elif array.size == 1:
            named["num_detections"] = array.reshape(1)
    falling = [row for row in rows if np.all(np.diff(row) <= 0) and np.all((row >= 0) & (row <= 1)) and np.any(row % 1)]
    whole = [row for row in rows if np.all(row % 1 == 0)]
    if "detection_boxes" not in named or len(falling) != 1 or len(whole) > 1:
        shapes = ", ".join(f"{key} {list(value.shape)}" for key, value in sorted(arrays.items()))
        raise NotComparableError(f"what its TFLite-style outputs mean cannot be told ({shapes})")
    named["detection_scores"] = falling[0]
    if whole:
        named["detection_classes"] = whole[0] + 1
    return named
