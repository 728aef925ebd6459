"""Evaluation of a run from outside it: every new checkpoint as it appears, by another process or machine."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import tensorflow as tf
from etils.epath import Path

from tfod_zoo.config.pipeline import read_pipeline
from tfod_zoo.errors import UsageError
from tfod_zoo.evaluation.moving_average import restore_for_evaluation
from tfod_zoo.modeling.checkpoint import CheckpointError
from tfod_zoo.modeling.factory import build
from tfod_zoo.training.checkpoints import BestCheckpoint, step_of
from tfod_zoo.training.evaluation import Evaluation, main_figures

TIMEOUT = 3600.0  # TFOD's
_SECONDS_BETWEEN_LOOKS = 2.0


def follow(
    model_dir: Path,
    pipeline: Any | None = None,
    *,
    timeout: float = TIMEOUT,
    best_metric: str | None = None,
    say: Callable[[str], None] = print,
) -> dict[str, Any]:
    """Evaluates the newest checkpoint of a training folder and every later one, until the run's last step.

    Curves and pictures go to `eval/`, the best checkpoint to `best/`, as from the run itself (which should not evaluate
    at the same time). Checkpoints that the run removes before their turn are passed over.

    Args:
      model_dir: the training folder; may still be empty.
      pipeline: in place of the folder's pipeline.config, for other evaluation data.
      timeout: seconds without a new checkpoint after which it ends.
      best_metric: see `tfod_zoo.training.run.train`.
      say: takes lines for the user.

    Returns:
      The metrics of the last evaluation.

    Raises:
      ZooError: no checkpoint came in time, or it cannot be evaluated.
    """
    seen: str | None = None
    evaluation: Evaluation | None = None
    metrics: dict[str, Any] = {}
    waited_since = time.monotonic()
    while True:
        newest = tf.train.latest_checkpoint(str(model_dir)) if model_dir.is_dir() else None
        if newest is None or newest == seen:
            if time.monotonic() - waited_since >= timeout:
                if seen is None:
                    raise UsageError(f"{model_dir} got no checkpoint in {timeout:.0f} s; start the training first.")
                say(f"no new checkpoint in {timeout:.0f} s: ended")
                return metrics
            time.sleep(_SECONDS_BETWEEN_LOOKS)
            continue
        seen = newest
        if evaluation is None:
            config = pipeline or read_pipeline(model_dir / "pipeline.config")
            model = build(config)
            evaluation = Evaluation(model, config, model_dir, lambda: False)
            best = BestCheckpoint(model_dir, config, best_metric)
        try:
            restore_for_evaluation(model, newest, config)
            step = step_of(newest, model_dir, config)
        except CheckpointError as error:
            if tf.train.latest_checkpoint(str(model_dir)) == newest:
                raise
            say(f"{newest} is gone already ({error}); on with the next")
            continue
        metrics = evaluation.run(step)
        line = f"step {step}: {main_figures(metrics)}"
        try:
            if best.add(newest, step, metrics):
                line += ", the best so far"
        except FileNotFoundError:
            line += ", the best so far, but the run has removed it: train with a larger --keep"
        say(line)
        waited_since = time.monotonic()
        if step >= read_pipeline(model_dir / "pipeline.config").train_config.num_steps:
            return metrics
