"""A model's own SavedModel, as its folder has it, whoever wrote it: what our network is to be compared with."""

from __future__ import annotations

from pathlib import Path

import numpy as np

import tfod_zoo
from tfod_zoo.benchmark.entry import Entry
from tfod_zoo.certification.shipped_model import NotComparableError, ShippedModel
from tfod_zoo.errors import ZooError
from tfod_zoo.export.networks import Detect


def load(entry: Entry) -> Detect:
    """The SavedModel in the folder of `entry.model`, an archive's fetched where it is missing.

    One that takes images of a single size gets them resized to that, as its user would have to.

    Raises:
      ZooError: the entry asks for other weights or more images a call than it has or takes, or it is no detector.
    """
    name = Path(entry.model).name
    if entry.weights != "zoo":
        raise ZooError(f"{name}'s SavedModel has the weights that it was saved with; leave out --weights.")
    if entry.batch_size != 1 or entry.input_size:
        raise ZooError(f"{name}'s SavedModel takes one image on its own canvas; leave out batch and input sizes.")
    folder = Path(entry.model) if Path(entry.model).is_dir() else tfod_zoo.download(entry.model, store=entry.store)
    try:
        shipped = ShippedModel(folder)
    except NotComparableError as error:
        raise ZooError(f"{name}: {error}.") from error

    def detect(images: np.ndarray) -> dict[str, np.ndarray]:
        return shipped(shipped.input_image(images[0]))

    return detect
