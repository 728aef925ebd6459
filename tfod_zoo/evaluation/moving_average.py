"""Evaluation of a training's moving averages in place of its weights."""

from __future__ import annotations

from typing import Any

from tfod_zoo.errors import ZooError
from tfod_zoo.modeling.checkpoint import SUFFIX, RestoreReport, open_checkpoint, read_shapes

_AVERAGE = "/.OPTIMIZER_SLOT/optimizer/average"


def restore_for_evaluation(model: Any, prefix: str, pipeline: Any) -> RestoreReport:
    """Restores a training checkpoint; with `eval_config.use_moving_averages` the averages in place of the weights.

    Returns:
      The report of `restore_checkpoint`.

    Raises:
      ZooError: it does not fit, or has no averages.
    """
    report = model.restore_checkpoint(prefix)
    if not pipeline.eval_config.use_moving_averages:
        return report
    stored = read_shapes(prefix)
    averaged = {
        f"{key.removesuffix(SUFFIX)}{_AVERAGE}{SUFFIX}": variable for key, variable in model.keyed_variables.items()
    }
    averaged = {key: variable for key, variable in averaged.items() if key in stored}
    if not averaged:
        raise ZooError(
            f"eval_config.use_moving_averages is set, but {prefix} has no averages: it was trained without "
            "optimizer.use_moving_average; set the first to false."
        )
    reader = open_checkpoint(prefix)
    for key, variable in averaged.items():
        variable.assign(reader.get_tensor(key))
    return report
