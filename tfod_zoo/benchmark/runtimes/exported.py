"""A runtime of its own: the model is exported into a folder, and what is measured is loaded from there."""

from __future__ import annotations

from pathlib import Path

from tfod_zoo.benchmark.runtimes.loaded import Loaded
from tfod_zoo.export.exported import load_networks, load_remaining_weights
from tfod_zoo.export.networks import detector
from tfod_zoo.modeling.detection_model import DetectionModel


def load(model: DetectionModel, folder: Path, threads: int) -> Loaded:
    """The export in `folder`.

    Args:
      model: of the same config; it gets the export's remaining weights.
      threads: of the runtime; 0 for its own choice.
    """
    run = load_networks(folder, threads)
    load_remaining_weights(model, folder)
    return Loaded(
        detector(model, run), lambda canvas, true_image_shapes: model.detect_through(run, canvas, true_image_shapes)
    )
