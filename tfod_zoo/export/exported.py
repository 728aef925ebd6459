"""A detector in the format of another runtime: converted, loaded again, compared, and only then kept.

    OUT/FORMAT_PRECISION/{NAME.xml, NAME.bin | NAME.tflite | NAME.onnx}   one for each network of the model
    OUT/FORMAT_PRECISION/pipeline.config, label_map.pbtxt                 what is around and between them; names
    OUT/FORMAT_PRECISION/remaining_weights.npz                            of the layers there, by their checkpoint keys
    OUT/FORMAT_PRECISION/export.json                                      what it was made of, and how far it is from it

A network goes from the pixels of the canvas to raw outputs. Resizing, the choice of proposals, small layers that are
needed in few places or in full precision, and the decoding of detections are this package's own operations in
TensorFlow, with the same numbers whatever runs the networks.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import zipfile
from collections.abc import Callable, Iterator, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

import tfod_zoo
from tfod_zoo.config.pipeline import read_pipeline
from tfod_zoo.errors import UsageError, ZooError, reason_of
from tfod_zoo.export import formats
from tfod_zoo.export.accuracy import LabelledData
from tfod_zoo.export.agreement import QUANTIZED, Agreement
from tfod_zoo.export.formats import REPORT
from tfod_zoo.export.networks import Detect, detector, in_tensorflow, network_inputs
from tfod_zoo.export.saved_model import replace, write_config
from tfod_zoo.modeling.detection_model import DetectionModel, RunNetwork

REMAINING_WEIGHTS = "remaining_weights.npz"
_CALIBRATION_CROPS = 8  # images whose proposals calibrate a second stage
_PACKAGES = ("tensorflow", "openvino", "nncf", "onnx", "onnxruntime", "tf2onnx")


def export_networks(
    model: DetectionModel,
    out: str | os.PathLike[str],
    images: Sequence[np.ndarray],
    *,
    format: str,
    precision: str = "float32",
    made_of: str = "",
    calibration: Sequence[np.ndarray] = (),
    labelled: LabelledData | None = None,
    lenient: bool = False,
    say: Callable[[str], None] = print,
) -> Path:
    """Writes `out/FORMAT_PRECISION`.

    Args:
      model: a detector with its weights.
      out: folder; created. An earlier export of the same format and precision is replaced at the end.
      images: uint8 `[H, W, 3]` each, to compare on.
      format, precision: of `formats.PRECISIONS`.
      made_of: what the weights are, for the record.
      calibration: images that int8 is fitted to; those compared on by default.
      labelled: data of the same model, by whose mAP int8 and dynamic are judged in place of single detections.
      lenient: detections alone refuse nothing, raw outputs still do, and the figures say how both differ: for random
        weights, whose near scores change places at a breath (float32's rounding alone chose other proposals, and so
        other detections, in two of six random Faster R-CNN), and where somebody measures mAP afterwards.
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
    room, fitted_to = formats.room(format), (calibration or images) if precision == "int8" else ()
    place = Path(out) / f"{format}_{precision}"
    unfinished = Path(out) / f".{place.name}.part"
    try:
        shutil.rmtree(unfinished, ignore_errors=True)
        unfinished.mkdir(parents=True)
        write_config(model, unfinished)
        remaining = {key: variable.numpy() for key, variable in model.remaining_variables.items()}
        np.savez(unfinished / REMAINING_WEIGHTS, **remaining)
        for networks in _attempts(model, precision):
            for name, each in networks.items():
                with _refusing(f"{format} {each} cannot be converted"):
                    # Of a second stage some images are enough: hundreds of crops each, a fifth of a megabyte a crop.
                    some = fitted_to[:_CALIBRATION_CROPS] if model.networks[name].rows > 1 else fitted_to
                    inputs = network_inputs(model, name, some) if each == "int8" else []
                    room.convert(name, model.networks[name], unfinished, each, inputs)
            with _refusing(f"{format} {precision} was converted, and does not run"):
                run = room.load(unfinished, networks, threads=0)
                loaded = _without_networks(unfinished)
                agreement = compare_with_model(model, loaded, run, images)
                cost = labelled.cost(loaded, run) if labelled and precision in QUANTIZED else None
            beyond = cost.beyond() if cost else agreement.beyond(precision)
            kept_all_the_same = lenient and not agreement.outputs_beyond(precision)
            if not beyond or kept_all_the_same:
                break
        report = {
            "format": format,
            "precision": precision,
            "holds": "the networks; all around them is the package's own, in TensorFlow",
            "networks": networks,
            "made_of": made_of,
            "calibrated_on": len(fitted_to),
            "agreement": vars(agreement),
            **({"map": vars(cost) | {"points": cost.points}} if cost else {}),
            "beyond_bounds": beyond,
            "versions": {"tfod_zoo": tfod_zoo.__version__, **_versions()},
        }
        if beyond and not kept_all_the_same:
            hint = "" if labelled or precision not in QUANTIZED else "; labelled data judge it by its mAP instead"
            raise ZooError(f"{format} {precision} is too far from the model, so it was not kept: {beyond}{hint}.")
        (unfinished / REPORT).write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
        replace(unfinished, place)
    except OSError as error:
        reason = reason_of(error)
        raise ZooError(f"{place} cannot be written ({reason}); free some space, or give another --out.") from error
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    mixed = [f"{name} in {each}" for name, each in networks.items() if each != precision]
    said = [*mixed, _in_words(agreement), str(cost or ""), f"kept all the same: {beyond}" if beyond else ""]
    say(f"{place}: {'; '.join(filter(None, said))}")
    return place


def _attempts(model: DetectionModel, precision: str) -> Iterator[dict[str, str]]:
    """Networks -> precisions, to try in turn: all in one; then, of two stages, the first in float32, which chooses the
    proposals: what it rounds away changes which they are, not only by how much."""
    everything = dict.fromkeys(model.networks, precision)
    yield everything
    if precision != "float32" and len(everything) > 1:
        yield everything | {next(iter(everything)): "float32"}


@contextlib.contextmanager
def _refusing(what: str) -> Iterator[None]:
    """Turns what another runtime's libraries raise, each its own, into one sentence."""
    try:
        yield
    except (ZooError, OSError):
        raise
    except Exception as error:
        raise ZooError(f"{what}: {reason_of(error)}.") from error


def compare_with_model(
    model: DetectionModel, loaded: DetectionModel, run: RunNetwork, images: Sequence[np.ndarray]
) -> Agreement:
    """The model's own detections and raw outputs beside those of a loaded export, image by image.

    Args:
      model: what the export was made of.
      loaded: of the same config, with the export's remaining weights.
      run: the export's networks.
      images: uint8 `[H, W, 3]` each.
    """
    agreement = Agreement()
    ours = in_tensorflow(model)

    def run_both(name: str, inputs: tf.Tensor) -> Sequence[Any]:
        wanted = ours(name, inputs)
        agreement.add_network(wanted, run(name, inputs))
        return wanted

    detect, detect_through = detector(model, run_both), detector(loaded, run)
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
    return detector(_without_networks(Path(folder)), run)


def _without_networks(folder: Path) -> DetectionModel:
    """A model as the export has it, whose networks' weights mean nothing."""
    model = tfod_zoo.build(read_pipeline(folder / "pipeline.config"))
    load_remaining_weights(model, folder)
    return model


def load_remaining_weights(model: DetectionModel, folder: str | os.PathLike[str]) -> None:
    """Gives the model those weights of an export that are not in its networks.

    Raises:
      ZooError: they are not there, or of another model.
    """
    place = Path(folder) / REMAINING_WEIGHTS
    try:
        with np.load(place) as values:
            for key, variable in model.remaining_variables.items():
                variable.assign(values[key])
    except (OSError, EOFError, ValueError, KeyError, zipfile.BadZipFile) as error:
        raise ZooError(
            f"{place} does not hold what is needed beside the networks ({reason_of(error)}); make the export again, as "
            "earlier versions left it out."
        ) from error


def load_networks(folder: str | os.PathLike[str], threads: int = 0) -> RunNetwork:
    """`load_exported`'s networks alone, for a model of the same config that is there already."""
    folder = Path(folder)
    try:
        report = json.loads((folder / REPORT).read_text(encoding="utf-8"))
        format, networks = report["format"], report["networks"]
    except (OSError, ValueError, KeyError) as error:
        raise ZooError(f"{folder} holds no export of networks; make one with `tfod-zoo export`.") from error
    formats.need(format)
    return formats.room(format).load(folder, networks, threads)


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
