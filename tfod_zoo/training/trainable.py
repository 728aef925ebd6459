"""Which variables learn, by the patterns of `train_config`, and how fast their biases do."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

import tensorflow as tf
import tf_keras

from tfod_zoo.errors import UsageError
from tfod_zoo.modeling.checkpoint import SUFFIX


def apply_freezing(model: Any, train_config: Any) -> list[tf.Variable]:
    """Fixes what `freeze_variables` and `update_trainable_variables` say; TFOD reads them for TF1 only.

    Both are lists of regular expressions, looked for in a variable's checkpoint key without its suffix
    (`model/_feature_extractor/...`, as `tfod-zoo show NAME --variables` lists them): the first fixes what it finds, the
    second, where given, everything that it does not find. A layer all of whose variables are fixed also stays on its
    batch-norm averages.

    Returns:
      The variables that learn, in the order of `model.trainable_variables`.

    Raises:
      UsageError: no regular expression, one that finds nothing, or nothing left to learn.
    """
    keys = {key.removesuffix(SUFFIX): variable for key, variable in model.keyed_variables.items()}
    frozen = _found(keys, train_config.freeze_variables, "freeze_variables")
    chosen = _found(keys, train_config.update_trainable_variables, "update_trainable_variables")
    learning = {id(variable) for variable in keys.values()} - frozen
    if train_config.update_trainable_variables:
        learning &= chosen
    fix_layers_without(model, learning)
    variables = [variable for variable in model.trainable_variables if id(variable) in learning]
    if not variables:
        raise UsageError(
            "train_config.freeze_variables and update_trainable_variables leave nothing to learn; narrow them."
        )
    return variables


def fix_layers_without(model: Any, learning: set[int]) -> None:
    """Fixes every layer none of whose variables' ids are in `learning`, its batch-norm averages included."""
    for layer in model.submodules:
        if isinstance(layer, tf_keras.layers.Layer) and layer.weights and not any(
            id(variable) in learning for variable in layer.weights
        ):
            layer.trainable = False


def biases(model: Any) -> set[int]:
    """Ids of the biases of convolutions and dense layers; the shift of a batch norm is none."""
    return {id(variable) for key, variable in model.keyed_variables.items() if key.endswith(f"/bias{SUFFIX}")}


def _found(keys: dict[str, tf.Variable], patterns: Iterable[str], field: str) -> set[int]:
    found: set[int] = set()
    for pattern in patterns:
        try:
            search = re.compile(pattern).search
        except re.error as error:
            raise UsageError(f'train_config.{field} "{pattern}" is no regular expression: {error}.') from error
        matching = {id(variable) for key, variable in keys.items() if search(key)}
        if not matching:
            raise UsageError(
                f'train_config.{field} "{pattern}" finds no variable of this model; their names look like '
                f"{next(iter(keys))} (tfod-zoo show NAME --variables lists them)."
            )
        found |= matching
    return found
