"""A detector as TFOD's exporter lays it out: SavedModel, checkpoint, config (spec: pipeline and training, section 9).

    OUT/saved_model/{saved_model.pb, variables/}   signature `serving_default`; callable
    OUT/saved_model/assets.extra/                  TensorFlow Serving's warm-up requests
    OUT/checkpoint/ckpt-0.*                        TFOD's keys; `tfod_zoo.load(OUT)` reads it
    OUT/pipeline.config, OUT/label_map.pbtxt       the latter where the model's classes have names
    OUT/export.json                                what it was made of, and how far it is from it
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

import tfod_zoo
from tfod_zoo.certification.comparison import TOLERANCE, OutputDifference, compare_outputs
from tfod_zoo.config.label_map import find_label_map, read_label_map, write_label_map
from tfod_zoo.config.pipeline import write_pipeline
from tfod_zoo.errors import UsageError, ZooError, reason_of
from tfod_zoo.export.formats import REPORT
from tfod_zoo.export.warm_up import write_warm_up
from tfod_zoo.modeling.detection_model import DetectionModel

_IMAGE_FIELD = "image/encoded"  # of a tf.Example
# Spec, section 9: one image at a time as arrays of pixels, any number of encoded ones.
_SIGNATURES = {
    "image_tensor": tf.TensorSpec([1, None, None, 3], tf.uint8, name="input_tensor"),
    "float_image_tensor": tf.TensorSpec([None, None, None, 3], tf.float32, name="input_tensor"),
    "encoded_image_string_tensor": tf.TensorSpec([None], tf.string, name="input_tensor"),
    "tf_example": tf.TensorSpec([None], tf.string, name="input_tensor"),
}
INPUT_TYPES = tuple(_SIGNATURES)


class ServingModule(tf.Module):
    """A detector behind TFOD's serving signature; holds its variables and one function.

    Args:
      model: the detector.
      input_type: one of `INPUT_TYPES`: what the only argument, `input_tensor`, is.
    """

    def __init__(self, model: DetectionModel, input_type: str = INPUT_TYPES[0]):
        super().__init__()
        self._model = model.variables  # the layers themselves would be saved with a function each, which nobody calls
        self._detector = lambda: model  # tf.Module looks for variables in objects, not in functions
        serve = {
            "image_tensor": self._from_pixels,
            "float_image_tensor": self._from_pixels,
            "encoded_image_string_tensor": self._from_encoded,
            "tf_example": self._from_examples,
        }[input_type]
        self.__call__ = tf.function(serve, input_signature=[_SIGNATURES[input_type]], autograph=False)

    def _from_pixels(self, input_tensor: tf.Tensor) -> dict[str, tf.Tensor]:
        """RGB images `[B, H, W, 3]`, 0..255."""
        model = self._detector()
        return model.detect_preprocessed(*model.preprocess(input_tensor))

    def _from_encoded(self, input_tensor: tf.Tensor) -> dict[str, tf.Tensor]:
        """JPEG, PNG, GIF (its first frame) or BMP files `[B]`, each of any size."""
        model = self._detector()

        def prepare(encoded: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            pixels = tf.io.decode_image(encoded, channels=3, expand_animations=False)
            inputs, true_shapes = model.preprocess(tf.ensure_shape(pixels, [None, None, 3])[None])
            return inputs[0], true_shapes[0]

        prepared = (
            tf.TensorSpec([*model.input_shape_hw, 3], tf.float32),
            tf.TensorSpec([3], tf.int32),
        )
        return model.detect_preprocessed(*tf.map_fn(prepare, input_tensor, fn_output_signature=prepared))

    def _from_examples(self, input_tensor: tf.Tensor) -> dict[str, tf.Tensor]:
        """Serialised tf.Examples `[B]` with `image/encoded`."""
        fields = tf.io.parse_example(input_tensor, {_IMAGE_FIELD: tf.io.FixedLenFeature([], tf.string)})
        return self._from_encoded(fields[_IMAGE_FIELD])


def export_saved_model(
    model: DetectionModel,
    out: str | os.PathLike[str],
    images: Sequence[np.ndarray],
    *,
    input_type: str = INPUT_TYPES[0],
    made_of: str = "",
    say: Callable[[str], None] = print,
) -> dict[str, Any]:
    """Writes the SavedModel, loads it again, compares it with `model`, and only then puts it in its place.

    Args:
      model: a detector with its weights.
      out: folder; created. What an earlier export left there is replaced at the end, other files stay.
      images: uint8 `[H, W, 3]` each, to compare on.
      input_type: one of `INPUT_TYPES`.
      made_of: what the weights are, for the record.
      say: takes a line for the user.

    Returns:
      What `export.json` says: the signature, and for every output the largest difference over all images.

    Raises:
      UsageError: no such input type, or no image.
      ZooError: it cannot be written, or differs from the model.
    """
    if input_type not in _SIGNATURES:
        raise UsageError(f'there is no input type "{input_type}"; use one of {", ".join(INPUT_TYPES)}.')
    if not images:
        raise UsageError("there is no image to compare the export on; give at least one.")
    out = Path(out)
    unfinished = out / ".export.part"
    try:
        shutil.rmtree(unfinished, ignore_errors=True)
        unfinished.mkdir(parents=True)
        module = ServingModule(model, input_type)
        with _without_chatter():
            tf.saved_model.save(
                module, str(unfinished / "saved_model"), signatures={"serving_default": module.__call__}
            )
        write_warm_up(unfinished / "saved_model", (_as_input(image, input_type) for image in images))
        model.save_checkpoint(unfinished / "checkpoint" / "ckpt-0")
        write_config(model, unfinished)
        differences = compare_with_model(unfinished / "saved_model", model, images, input_type)
        report: dict[str, Any] = {
            "format": "SavedModel",
            "made_of": made_of,
            "input_type": input_type,
            "images": len(images),
            "largest_difference": {key: value.largest for key, value in differences.items()},
            "versions": {"tfod_zoo": tfod_zoo.__version__, "tensorflow": tf.__version__},
        }
        apart = [key for key, value in differences.items() if not value.agrees]
        if apart:
            raise ZooError(
                f"the SavedModel's {', '.join(apart)} differ from the model's by more than {TOLERANCE:g}, so it was "
                "not kept; please report the model and the images."
            )
        (unfinished / REPORT).write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
        for part in sorted(unfinished.iterdir()):
            replace(part, out / part.name)
    except (OSError, tf.errors.OpError) as error:
        reason = reason_of(error)
        raise ZooError(f"{out} cannot be written ({reason}); free some space, or give another --out.") from error
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    worst = max(report["largest_difference"].values())
    say(f"{out / 'saved_model'}: as the model on {len(images)} images (largest difference {worst:.1e})")
    return report


@contextlib.contextmanager
def _without_chatter() -> Iterator[None]:
    """TensorFlow tells a notebook of "assets", of which there are none, in a folder that is about to be renamed."""
    logger = tf.get_logger()
    before = logger.level
    logger.setLevel(logging.WARNING)
    try:
        yield
    finally:
        logger.setLevel(before)


def compare_with_model(
    saved_model: Path, model: DetectionModel, images: Sequence[np.ndarray], input_type: str
) -> dict[str, OutputDifference]:
    """Loads a SavedModel in this process and sets its outputs beside `model.detect`'s, image by image.

    Raises:
      ZooError: detections of the model are not among those of the SavedModel.
    """
    served = tf.saved_model.load(str(saved_model)).signatures["serving_default"]
    differences: dict[str, OutputDifference] = {}
    missing = 0
    for image in images:
        ours = {key: value.numpy() for key, value in model.detect(tf.constant(image[None])).items()}
        theirs = {key: value.numpy() for key, value in served(input_tensor=_as_input(image, input_type)).items()}
        if theirs.keys() != ours.keys():
            raise ZooError(f"the SavedModel gives {sorted(theirs)} where the model gives {sorted(ours)}.")
        missing += compare_outputs(ours, theirs, differences)
    if missing:
        raise ZooError(f"the SavedModel misses {missing} detections of the model, so it was not kept.")
    return differences


def _as_input(image: np.ndarray, input_type: str) -> tf.Tensor:
    if input_type == "image_tensor":
        return tf.constant(image[None])
    if input_type == "float_image_tensor":
        return tf.constant(image[None], tf.float32)
    encoded = tf.io.encode_png(image).numpy()
    if input_type == "tf_example":
        feature = tf.train.Feature(bytes_list=tf.train.BytesList(value=[encoded]))
        encoded = tf.train.Example(
            features=tf.train.Features(feature={_IMAGE_FIELD: feature})
        ).SerializeToString()
    return tf.constant([encoded])


def write_config(model: DetectionModel, folder: Path) -> None:
    """`pipeline.config`, and the label map, which the config may name where nobody has it."""
    write_pipeline(model.pipeline, folder / "pipeline.config")
    if label_map := find_label_map(model.pipeline, model.folder):
        write_label_map(read_label_map(label_map), folder / "label_map.pbtxt")


def replace(part: Path, place: Path) -> None:
    """Moves a file or folder to where an older one may be, which goes only when the new one is there."""
    old = place.with_name(f".{place.name}.old")
    if old.exists():
        shutil.rmtree(old) if old.is_dir() else old.unlink()
    if place.exists():
        os.replace(place, old)
    os.replace(part, place)
    if old.exists():
        shutil.rmtree(old) if old.is_dir() else old.unlink()
