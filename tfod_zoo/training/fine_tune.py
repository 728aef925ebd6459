"""The checkpoint that `train_config` starts from, checked before anything is built (pipeline spec §7.5)."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

from tfod_zoo.errors import ZooError
from tfod_zoo.modeling.checkpoint import read_shapes

_TYPES = ("detection", "classification", "full")
_VERSION_V1 = 1  # CheckpointVersion.V1 of the schema, also what an absent field means


@dataclass(frozen=True)
class FineTune:
    """A checkpoint prefix and the restore mode for it."""

    checkpoint: str
    mode: str


def fine_tune_source(train_config: Any, model_dir: str | os.PathLike[str]) -> FineTune | None:
    """The checkpoint that training starts from; None for random weights.

    An empty type means "detection" where the deprecated `from_detection_checkpoint` is set, else "classification".

    Raises:
        ZooError: the settings contradict each other, or the checkpoint is not there or not of TensorFlow 2.
    """
    prefix = train_config.fine_tune_checkpoint
    if not prefix:
        return None
    if "PATH_TO_BE_CONFIGURED" in prefix:
        raise ZooError(
            f'train_config.fine_tune_checkpoint is still "{prefix}"; give a checkpoint prefix, or "" for random '
            "weights."
        )
    if train_config.fine_tune_checkpoint_version == _VERSION_V1:
        raise ZooError(
            "train_config.fine_tune_checkpoint_version is V1 (also when it is left out), which TensorFlow 2 cannot "
            "restore; write fine_tune_checkpoint_version: V2."
        )
    if train_config.load_all_detection_checkpoint_vars:
        raise ZooError(
            "train_config.load_all_detection_checkpoint_vars is of TF1; remove it and write "
            'fine_tune_checkpoint_type: "full".'
        )
    mode = train_config.fine_tune_checkpoint_type
    if not mode:
        mode = "detection" if train_config.from_detection_checkpoint else "classification"
    if mode == "fine_tune":
        raise ZooError('train_config.fine_tune_checkpoint_type "fine_tune" was dropped by TFOD; write "detection".')
    if mode not in _TYPES:
        raise ZooError(
            f'train_config.fine_tune_checkpoint_type "{mode}" does not exist; use one of {", ".join(_TYPES)}.'
        )
    if os.path.abspath(os.path.dirname(prefix)) == os.path.abspath(model_dir):
        raise ZooError(
            f"train_config.fine_tune_checkpoint {prefix} lies in the model folder itself; training there would go on "
            "from it anyway, so give another folder, or an empty fine_tune_checkpoint."
        )
    stored = read_shapes(prefix)
    if mode == "detection" and any(key.startswith("feature_extractor") for key in stored):
        raise ZooError(
            f'train_config.fine_tune_checkpoint {prefix} holds a bare feature extractor; write '
            'fine_tune_checkpoint_type: "classification".'
        )
    return FineTune(prefix, mode)
