"""What a benchmark asks of a runtime."""

from __future__ import annotations

from typing import NamedTuple

from tfod_zoo.evaluation.coco import DetectStep
from tfod_zoo.export.networks import Detect


class Loaded(NamedTuple):
    """A detector in a runtime.

    Attributes:
      detect: uint8 images `[B, H, W, 3]` in host memory to arrays under TFOD's signature keys, waited for.
      detect_step: what `evaluation.coco.evaluate` runs, of the same artefact.
    """

    detect: Detect
    detect_step: DetectStep
