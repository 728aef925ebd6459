"""What an export costs in COCO mAP: its own on labelled images, beside the model's on the same ones."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from tfod_zoo.evaluation.coco import MAP
from tfod_zoo.evaluation.coco_keypoints import keypoint_metric_name
from tfod_zoo.evaluation.pipeline_data import evaluate_pipeline
from tfod_zoo.modeling.detection_model import DetectionModel, RunNetwork

MOST_POINTS = 1.0  # percentage points that int8 and dynamic may cost
_KEYPOINT_MAP = keypoint_metric_name("Precision/mAP", "")  # and the class

_SILENT: AbstractContextManager[Callable[[int], None]] = nullcontext(lambda done: None)


@dataclasses.dataclass(frozen=True)
class MapCost:
    """mAP in percent, of boxes and of each class's keypoints, by the evaluation's names.

    Attributes:
      dataset, images: what both were measured on.
      model, export: name -> percent.
    """

    dataset: str
    images: int
    model: dict[str, float]
    export: dict[str, float]

    @property
    def points(self) -> float:
        """The largest loss; below 0 where everything gained."""
        return max(percent - self.export[name] for name, percent in self.model.items())

    def beyond(self) -> str:
        """What is over the bound, in words; empty where nothing is."""
        return "" if self.points < MOST_POINTS else f"it costs {self.points:.2f} points of mAP (under {MOST_POINTS:g})"

    def __str__(self) -> str:
        pairs = ", ".join(f"{percent:.2f} -> {self.export[name]:.2f}" for name, percent in self.model.items())
        return f"mAP {pairs} % on {self.images} images"


class LabelledData:
    """Labelled images to measure an export on.

    Args:
      model: the detector that exports are made of; its own mAP is measured once.
      pipeline: its first eval reader names the data (`evaluation.pipeline_data.with_eval_data`).
      limit: the first so many images only.
      progress: what is measured -> a context that hears how many images it has seen.
    """

    def __init__(
        self,
        model: DetectionModel,
        pipeline: Any,
        limit: int | None = None,
        progress: Callable[[str], AbstractContextManager[Callable[[int], None]]] = lambda what: _SILENT,
    ):
        self.model, self.pipeline, self._limit, self._progress = model, pipeline, limit, progress
        self._images = 0

    def cost(self, loaded: DetectionModel, run: RunNetwork) -> MapCost:
        """That of an export: `loaded` has its remaining weights, `run` its networks."""
        of_model = self._of_model
        of_export = self._measure("the export's mAP", functools.partial(loaded.detect_through, run))
        dataset = ", ".join(self.pipeline.eval_input_reader[0].tf_record_input_reader.input_path)
        return MapCost(dataset, self._images, of_model, of_export)

    @functools.cached_property
    def _of_model(self) -> dict[str, float]:
        return self._measure("the model's mAP", None)

    def _measure(self, what: str, detect_step: Any) -> dict[str, float]:
        with self._progress(what) as progress:

            def on_progress(done: int) -> None:
                self._images = done
                progress(done)

            metrics = evaluate_pipeline(
                self.model, self.pipeline, limit=self._limit, detect_step=detect_step, on_progress=on_progress
            )
        judged = (name for name in metrics if name == MAP or name.startswith(_KEYPOINT_MAP))
        return {name: 100 * metrics[name] for name in judged if metrics[name] >= 0}
