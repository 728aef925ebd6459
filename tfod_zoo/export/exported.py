"""A detector in the format of another runtime: converted, loaded again, compared, and only then kept.

    OUT/FORMAT_PRECISION/{NAME.xml, NAME.bin | NAME.tflite | NAME.onnx}   one for each network of the model
    OUT/FORMAT_PRECISION/pipeline.config                                  what is around and between them
    OUT/FORMAT_PRECISION/export.json                                      what it was made of, and how far it is from it

A network goes from the pixels of the canvas to raw outputs. Resizing, the choice of proposals and the decoding of
detections are this package's own operations in TensorFlow, with the same numbers whatever runs the networks.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

import tfod_zoo
from tfod_zoo.config.pipeline import read_pipeline, write_pipeline
from tfod_zoo.errors import UsageError, ZooError
from tfod_zoo.export import formats
from tfod_zoo.export.agreement import Agreement
from tfod_zoo.export.formats import REPORT
from tfod_zoo.export.networks import Detect, detector, in_tensorflow, network_inputs
from tfod_zoo.export.saved_model import replace
from tfod_zoo.modeling.detection_model import DetectionModel, RunNetwork

_CALIBRATION_CROPS = 8  # images whose proposals calibrate a second stage: hundreds of crops each, megabytes a crop
_PACKAGES = ("tensorflow", "openvino", "nncf", "onnx", "onnxruntime", "tf2onnx")


def export_networks(
    model: DetectionModel,
    out: str | os.PathLike[str],
    images: Sequence[np.ndarray],
    *,
    format: str,
    precision: str = "float32",
    made_of: str = "",
    trained: bool = True,
    calibration: Sequence[np.ndarray] = (),
    say: Callable[[str], None] = print,
) -> Path:
    """Writes `out/FORMAT_PRECISION`.

    Args:
      model: a detector with its weights.
      out: folder; created. An earlier export of the same format and precision is replaced at the end.
      images: uint8 `[H, W, 3]` each, to compare on.
      format, precision: of `formats.PRECISIONS`.
      made_of: what the weights are, for the record.
      trained: False for random weights: near scores change places at a breath, so lower precisions are then judged by
        the networks' outputs alone (int8 and dynamic not at all), and the figures say how detections differ.
      calibration: images that int8 is fitted to; those compared on by default.
      say: takes a line for the user.

    Returns:
      The folder.

    Raises:
      UsageError: no such format or precision, or no image.
      ZooError: it cannot be converted or written, its packages are missing, or it is too far from the model.
    """
    formats.check(format, precision)
    if not images:
        raise UsageError("there is no image to compare the export on; give at least one.")
    formats.need(format, precision)
    place = Path(out) / f"{format}_{precision}"
    unfinished = Path(out) / f".{place.name}.part"
    try:
        shutil.rmtree(unfinished, ignore_errors=True)
        unfinished.mkdir(parents=True)
        write_pipeline(model.pipeline, unfinished / "pipeline.config")
        seen = network_inputs(model, calibration or images) if precision == "int8" else {}
        for name, network in model.networks.items():
            inputs = seen.get(name, [])
            fitted = inputs[: _CALIBRATION_CROPS if network.rows > 1 else None]
            formats.room(format).convert(name, network, unfinished, precision, fitted)
        del seen
        run = formats.room(format).load(unfinished, list(model.networks), precision, threads=0)
        agreement = compare_with_model(model, run, images)
        beyond = agreement.beyond(precision)
        report = {
            "format": format,
            "precision": precision,
            "holds": "the networks; resizing, proposals and decoding are the package's own, in TensorFlow",
            "networks": list(model.networks),
            "made_of": made_of,
            "trained": trained,
            "calibrated_on": len(calibration or images) if precision == "int8" else 0,
            "agreement": vars(agreement),
            "beyond_bounds": beyond,
            "versions": {"tfod_zoo": tfod_zoo.__version__, **_versions()},
        }
        if beyond and (trained or precision == "float32" or agreement.outputs_beyond(precision)):
            raise ZooError(f"{format} {precision} is too far from the model, so it was not kept: {beyond}.")
        (unfinished / REPORT).write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
        replace(unfinished, place)
    except (OSError, tf.errors.OpError) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise ZooError(f"{place} cannot be written ({reason}); free some space, or give another --out.") from error
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    say(f"{place}: {_in_words(agreement)}{f'; kept, as the weights are random: {beyond}' if beyond else ''}")
    return place


def compare_with_model(model: DetectionModel, run: RunNetwork, images: Sequence[np.ndarray]) -> Agreement:
    """The model's own detections and raw outputs beside those with its networks run by `run`, image by image."""
    agreement = Agreement()
    ours = in_tensorflow(model)

    def run_both(name: str, inputs: tf.Tensor) -> Sequence[Any]:
        wanted = ours(name, inputs)
        agreement.add_network(wanted, run(name, inputs))
        return wanted

    detect, detect_through = detector(model, run_both), detector(model, run)
    for image in images:
        agreement.add(detect(image[None]), detect_through(image[None]))
    return agreement


def load_exported(folder: str | os.PathLike[str], threads: int = 0) -> Detect:
    """A kept export as a function of images.

    Args:
      folder: `OUT/FORMAT_PRECISION`.
      threads: of the runtime; 0 for its own choice.

    Raises:
      ZooError: it is no such folder, or the runtime's package is missing.
    """
    run = load_networks(folder, threads)
    return detector(tfod_zoo.build(read_pipeline(Path(folder) / "pipeline.config")), run)


def load_networks(folder: str | os.PathLike[str], threads: int = 0) -> RunNetwork:
    """`load_exported`'s networks alone, for a model of the same config that is there already."""
    folder = Path(folder)
    try:
        report = json.loads((folder / REPORT).read_text(encoding="utf-8"))
        format, precision = report["format"], report["precision"]
    except (OSError, ValueError, KeyError) as error:
        raise ZooError(f"{folder} holds no export of networks; make one with `tfod-zoo export`.") from error
    formats.need(format)
    return formats.room(format).load(folder, report["networks"], precision, threads)


def _in_words(agreement: Agreement) -> str:
    if not agreement.detections:
        return (
            f"no detection over the least score on {agreement.images} images, outputs differ by "
            f"{agreement.network_difference:.1e} of their size"
        )
    return (
        f"{agreement.matched} of {agreement.detections} detections found again on {agreement.images} images, scores "
        f"within {agreement.score_difference:.1e}, outputs within {agreement.network_difference:.1e} of their size"
    )


def _versions() -> dict[str, str]:
    installed = {}
    for package in _PACKAGES:
        try:
            installed[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return installed
