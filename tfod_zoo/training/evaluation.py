"""Evaluation of a model while it trains: metrics, pictures and the best checkpoint."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import tensorflow as tf
from etils.epath import Path

from tfod_zoo.training import pictures
from tfod_zoo.training.model_garden import orbit

MAP = "DetectionBoxes_Precision/mAP"
_KEYPOINT_MAP = "Keypoints_Precision/mAP ByCategory/"  # and the class


class EvaluationStopped(Exception):
    """The run was asked to stop during an evaluation; its checkpoint was written before it began."""


def main_figures(metrics: dict[str, Any]) -> str:
    """The metrics that decide, for a line: box AP and, per class that has them, keypoint AP."""
    boxes = {"AP": MAP, "AP50": f"{MAP}@.50IOU"}
    figures = [f"{title} {metrics[key]:.3f}" for title, key in boxes.items() if key in metrics]
    for key, value in metrics.items():
        if key.startswith(_KEYPOINT_MAP):
            figures.append(f"keypoint AP {value:.3f} ({key.removeprefix(_KEYPOINT_MAP)})")
    return ", ".join(figures)


class Evaluation:
    """Evaluates a model on its config's eval reader, again and again; traced once.

    Args:
      model: the detector.
      pipeline: its config.
      folder: the training folder, which gets curves and pictures under `eval/` and the reader's name; None for none.
      should_stop: asked after every batch; True ends the evaluation with `EvaluationStopped`.

    Raises:
      UsageError: the eval reader names no data or no label map.
    """

    def __init__(self, model: Any, pipeline: Any, folder: Path | None, should_stop: Callable[[], bool]):
        from tfod_zoo.evaluation.coco import make_detect_step
        from tfod_zoo.evaluation.pipeline_data import eval_label_map, with_eval_data

        # Both refuse an eval reader without data or label map now, not after the first thousand steps.
        self._pipeline = with_eval_data(pipeline)
        self._label_map = eval_label_map(self._pipeline)
        self._model, self._should_stop = model, should_stop
        self._detect_step = make_detect_step(model)
        self._step = tf.Variable(0, dtype=tf.int64, trainable=False)
        name = self._pipeline.eval_input_reader[0].name
        self._summaries = orbit.utils.SummaryManager(
            str(folder / "eval" / name) if folder else None, tf.summary.scalar, global_step=self._step
        )

    def run(self, step: int) -> dict[str, Any]:
        """Metrics of the model as it stands at `step`.

        Raises:
          EvaluationStopped: it was asked to.
        """
        from tfod_zoo.data.input_pipeline import build_dataset
        from tfod_zoo.evaluation.coco import evaluate
        from tfod_zoo.evaluation.pipeline_data import DEFAULT_BATCH_SIZE

        dataset = build_dataset(self._pipeline, training=False, batch_size=DEFAULT_BATCH_SIZE)
        drawn = _Pictures(self._pipeline.eval_config, self._detect_step)
        metrics = evaluate(
            self._model,
            drawn.watched(dataset),
            self._label_map,
            detect_step=drawn.detect_step,
            on_progress=self._stop_if_asked,
        )
        self._step.assign(step)
        self._summaries.write_summaries({key: value for key, value in metrics.items() if isinstance(value, float)})
        with self._summaries.summary_writer().as_default():
            for index, picture in enumerate(drawn.pictures):
                tf.summary.image(f"eval_side_by_side_{index}_0", picture[None], step=step)
        self._summaries.flush()
        return metrics

    def _stop_if_asked(self, images_done: int) -> None:
        if self._should_stop():
            raise EvaluationStopped


class _Pictures:
    """Draws the first images of an evaluation as they go by."""

    def __init__(self, config: Any, detect_step: Callable[..., dict[str, tf.Tensor]]):
        self._config, self._detect = config, detect_step
        self._batch: tuple[Any, Any] | None = None
        self.pictures: list[tf.Tensor] = []

    def watched(self, dataset: tf.data.Dataset) -> Iterator[tuple[Any, Any]]:
        for self._batch in dataset:
            yield self._batch

    def detect_step(self, image: tf.Tensor, true_image_shape: tf.Tensor) -> dict[str, tf.Tensor]:
        detections = self._detect(image, true_image_shape)
        assert self._batch is not None
        features, groundtruth = self._batch
        missing = self._config.num_visualizations - len(self.pictures)
        self.pictures += [
            pictures.side_by_side(
                features,
                groundtruth,
                detections,
                row,
                min_score=self._config.min_score_threshold,
                max_boxes=self._config.max_num_boxes_to_visualize,
            )
            for row in range(min(missing, int(features["image"].shape[0])))
        ]
        return detections
