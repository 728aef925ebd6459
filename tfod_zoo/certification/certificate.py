"""A certificate: what was compared, on what, how far apart it was, and the versions and hashes to check it by."""

from __future__ import annotations

import hashlib
import platform
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

import tfod_zoo
from tfod_zoo.certification.comparison import TOLERANCE, OutputDifference, compare_outputs
from tfod_zoo.certification.shipped_model import NotComparableError, ShippedModel
from tfod_zoo.zoo.origin import Origin, now
from tfod_zoo.zoo.registry import get_model

AGREES, DIFFERS, NOT_COMPARABLE = "agrees", "differs", "not comparable"
_CHUNK_BYTES = 2**20
_IMAGE_SIZES = ((240, 320), (223, 331), (512, 512))  # odd ones on purpose


def generated_images(seed: int = 0) -> list[np.ndarray]:
    """A few images uint8 [H, W, 3] of coloured shapes on a smooth ground, the same ones every time."""
    rng = np.random.default_rng(seed)
    images = []
    for height, width in _IMAGE_SIZES:
        rows, columns = np.mgrid[0:height, 0:width] / max(height, width)
        ground = [np.sin(6 * (rows * a + columns * b) + c) for a, b, c in rng.uniform(-1, 1, (3, 3))]
        image = 128 + 60 * np.stack(ground, -1) + rng.normal(0, 4, (height, width, 3))
        for _ in range(6):
            top, left = rng.integers(0, height - 40), rng.integers(0, width - 40)
            tall, wide = rng.integers(20, 40, 2)
            image[top : top + tall, left : left + wide] = rng.uniform(0, 255, 3)
        images.append(np.clip(image, 0, 255).astype(np.uint8))
    return images


def certify(name: str, folder: Path, images: Sequence[np.ndarray], images_from: str) -> dict[str, Any]:
    """Runs the SavedModel in `folder` and our network restored from its checkpoint on the same images.

    Args:
      name: the zoo model that the folder holds.
      folder: an unpacked archive.
      images: uint8 [H, W, 3] each.
      images_from: where they came from, for the record.

    Returns:
      The certificate, of JSON types: `verdict` (AGREES, DIFFERS or NOT_COMPARABLE), `reason`, `outputs` (largest and
      mean difference of each), `versions`, `hashes`.

    Raises:
      ZooError: our network cannot be built or restored.
    """
    count = f"{len(images)} image{'' if len(images) == 1 else 's'}"
    certificate: dict[str, Any] = {
        "model": name, "when": now(), "images": f"{count} ({images_from})", "tolerance": TOLERANCE,
        "outputs": {}, "only_shipped": [], "only_ours": [], "missing_detections": 0,
        "versions": _versions(), "hashes": _hashes(name, folder),
    }
    try:
        shipped = ShippedModel(folder)
        certificate["form"] = shipped.form
        differences = _differences(name, folder, shipped, images, certificate)
    except NotComparableError as error:
        return {**certificate, "verdict": NOT_COMPARABLE, "reason": str(error)}
    certificate["outputs"] = {
        key: {"rows": value.rows, "largest": value.largest, "mean": value.mean, "agrees": value.agrees}
        for key, value in differences.items()
    }
    apart = [key for key, value in differences.items() if not value.agrees]
    missing = certificate["missing_detections"]
    if not apart and not missing:
        return {**certificate, "verdict": AGREES, "reason": f"every output within {TOLERANCE:g}"}
    reason = f"{missing} detections without a partner" if missing else f"beyond {TOLERANCE:g}: {', '.join(apart)}"
    return {**certificate, "verdict": DIFFERS, "reason": reason}


def _differences(
    name: str, folder: Path, shipped: ShippedModel, images: Sequence[np.ndarray], certificate: dict[str, Any]
) -> dict[str, OutputDifference]:
    from tfod_zoo.config.generate import generate_pipeline
    from tfod_zoo.modeling.factory import build
    from tfod_zoo.zoo.layout import find_prefix

    model = build(generate_pipeline(name))
    model.restore_checkpoint(find_prefix(folder, get_model(name)))
    differences: dict[str, OutputDifference] = {}
    for image in images:
        taken = shipped.input_image(image)
        theirs = shipped(taken)
        ours = {key: value.numpy() for key, value in model.detect(taken[None]).items()}
        certificate["missing_detections"] += compare_outputs(theirs, ours, differences)
        certificate["only_shipped"] = sorted(theirs.keys() - ours.keys())
        certificate["only_ours"] = sorted(ours.keys() - theirs.keys())
    return differences


def one_line(certificate: dict[str, Any]) -> str:
    """The certificate for people."""
    outputs = ", ".join(f"{key} {value['largest']:.1e}" for key, value in certificate["outputs"].items())
    text = f"{certificate['model']}: {certificate['verdict']} ({certificate['reason']}), {certificate['images']}"
    return text + (f"; largest differences: {outputs}" if outputs else "")


def _versions() -> dict[str, str]:
    import tensorflow as tf
    import tf_keras

    return {"tfod_zoo": tfod_zoo.__version__, "tensorflow": tf.__version__, "tf_keras": tf_keras.__version__,
            "numpy": np.__version__, "python": platform.python_version(), "machine": platform.machine()}


def _hashes(name: str, folder: Path) -> dict[str, str]:
    """sha256 of the archive, if it is known, and of the files that were compared."""
    origin = Origin.read(folder)
    hashes = {"archive": origin.archive.sha256} if origin and origin.archive else {}
    for path in [*sorted(folder.glob("checkpoint/*")), *sorted(folder.rglob("saved_model.pb"))]:
        digest = hashlib.sha256()
        with open(path, "rb") as file:
            while chunk := file.read(_CHUNK_BYTES):
                digest.update(chunk)
        hashes[path.relative_to(folder).as_posix()] = digest.hexdigest()
    return hashes
