"""The checkpoints of a run: where it goes on, which ones are kept, and the best one."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from typing import Any

import tensorflow as tf
from etils.epath import Path

from tfod_zoo.config.pipeline import read_pipeline, write_pipeline
from tfod_zoo.errors import UsageError, ZooError, reason_of
from tfod_zoo.modeling.checkpoint import SUFFIX, open_checkpoint, read_shapes

BEST = "best"
_STEP_KEY = f"step{SUFFIX}"
_NOTES = "training.json"
_BEST_NOTES = "best.json"


def newest_whole_checkpoint(folder: Path, say: Callable[[str], None]) -> str | None:
    """Prefix of the newest checkpoint that can be read to its last tensor; None where the folder has none at all.

    A process may be killed while it writes, and a machine may lose its power: then the one before counts.

    Raises:
      ZooError: there are checkpoints, and all are damaged.
    """
    state = tf.train.get_checkpoint_state(str(folder)) if folder.is_dir() else None
    if state is None:
        return None
    prefixes = list(dict.fromkeys([state.model_checkpoint_path, *reversed(state.all_model_checkpoint_paths)]))
    for prefix in prefixes:
        damage = _damage(prefix)
        if damage is None:
            return prefix
        say(f"{prefix} is damaged ({damage}); looking for the one before")
    raise ZooError(
        f"all checkpoints of {folder} are damaged ({', '.join(prefixes)}); give another --model-dir, or put one back."
    )


def _damage(prefix: str) -> str | None:
    """What is wrong with a checkpoint; TensorFlow compares every tensor with its checksum as it reads."""
    try:
        reader = open_checkpoint(prefix)
        for key in reader.get_variable_to_shape_map():
            reader.get_tensor(key)
    except (tf.errors.OpError, ValueError, RuntimeError) as error:
        return reason_of(error)
    return None


def step_of(checkpoint: str, folder: Path, pipeline: Any) -> int:
    """The step at which a checkpoint of a training folder stands.

    Raises:
      ZooError: it is no training checkpoint, or the folder belongs to another model.
    """
    config = folder / "pipeline.config"
    if config.is_file() and read_pipeline(config).model != pipeline.model:
        raise ZooError(
            f"{folder} holds the training of another model: its pipeline.config differs from yours in `model`; give "
            "another --model-dir, or the config that is in it."
        )
    if _STEP_KEY not in read_shapes(checkpoint):
        raise ZooError(
            f"{checkpoint} is no training checkpoint (it has no step); give another --model-dir, and this one as "
            "train_config.fine_tune_checkpoint to start from it."
        )
    return int(open_checkpoint(checkpoint).get_tensor(_STEP_KEY))


def seed_of_run(folder: Path, seed: int | None, going_on: bool) -> int:
    """The seed given, or the one the run was begun with, which decides where its data go on."""
    notes = folder / _NOTES
    begun = json.loads(notes.read_text())["seed"] if going_on and notes.is_file() else None
    if begun is not None and seed is not None and seed != begun:
        raise UsageError(f"{folder} was begun with seed {begun}, not {seed}; leave --seed out to go on with it.")
    return next((each for each in (seed, begun) if each is not None), 0)


def write_description(folder: Path, pipeline: Any, seed: int) -> None:
    """Writes `pipeline.config` and the seed into the folder, which is made."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_pipeline(pipeline, folder / "pipeline.config")
        _write_json(folder / _NOTES, {"seed": seed})
    except (OSError, tf.errors.OpError) as error:
        raise ZooError(f"{folder} cannot be written to ({reason_of(error)}); give another --model-dir.") from error


def remove_unfinished(folder: Path) -> None:
    """Removes what a process left that was killed while it wrote a checkpoint."""
    for leftover in (*folder.glob("ckpt-*_temp*"), *folder.glob("ckpt-*.tempstate*")):
        leftover.rmtree(missing_ok=True) if leftover.is_dir() else leftover.unlink(missing_ok=True)


class BestCheckpoint:
    """The checkpoint with the highest metric so far, in the folder `best/`, from which a detector can be loaded.

    `best.json` there says what is known, so that a run that goes on, or a process that follows one, does too.

    Args:
      folder: the training folder. pipeline: its config.
      metric: what decides; None for what decided before, or the first metric there is.
      writes: False for all workers but the first, who keep count only.

    Attributes:
      evaluated_step: of the newest evaluation; None before the first.
      evaluations_since: how many evaluations the best one is ago.
    """

    def __init__(self, folder: Path, pipeline: Any, metric: str | None = None, writes: bool = True):
        self._folder, self._pipeline, self._writes = folder / BEST, pipeline, writes
        notes = self._folder / _BEST_NOTES
        known = json.loads(notes.read_text()) if notes.is_file() else {}
        # Another metric begins a new comparison.
        known = known if metric in (None, known.get("metric")) else {}
        self.metric: str | None = metric or known.get("metric")
        self.value: float | None = known.get("value")
        self.step: int | None = known.get("step")
        self.evaluated_step: int | None = known.get("evaluated_step")
        self.evaluations_since: int = known.get("evaluations_since", 0)

    def add(self, checkpoint: str, step: int, metrics: dict[str, Any]) -> bool:
        """Notes an evaluation; copies the checkpoint and returns True where it is the best so far.

        Raises:
          ZooError: the metrics do not have the one that decides, or the folder cannot be written.
          FileNotFoundError: the checkpoint is gone.
        """
        self.metric = self.metric or next(iter(metrics))
        if self.metric not in metrics:
            raise ZooError(f"there is no metric {self.metric!r} to choose by; there is {', '.join(metrics)}.")
        value = metrics[self.metric]
        better = self.value is None or value > self.value
        try:
            if better:
                if self._writes:
                    self._copy(checkpoint)
                self.value, self.step, self.evaluations_since = value, step, 0
            else:
                self.evaluations_since += 1
            self.evaluated_step = step
            keys = ("metric", "value", "step", "evaluated_step", "evaluations_since")
            if self._writes:
                _write_json(self._folder / _BEST_NOTES, {key: getattr(self, key) for key in keys})
        except FileNotFoundError:
            raise
        except (OSError, tf.errors.OpError) as error:
            raise ZooError(
                f"{self._folder} cannot be written to ({reason_of(error)}); free some space and run the same command "
                "to go on."
            ) from error
        return better

    def _copy(self, checkpoint: str) -> None:
        """The new files first, then the state file that names them, then the old ones go."""
        self._folder.mkdir(parents=True, exist_ok=True)
        name = os.path.basename(checkpoint)
        files = list(Path(os.path.dirname(checkpoint)).glob(f"{name}.*"))
        if not any(file.suffix == ".index" for file in files):
            raise FileNotFoundError(checkpoint)
        for file in files:
            copy = self._folder / file.name
            unfinished = copy.with_name(f"{copy.name}.part")
            file.copy(unfinished, overwrite=True)
            unfinished.replace(copy)
        write_pipeline(self._pipeline, self._folder / "pipeline.config")
        state = self._folder / "checkpoint.part"
        state.write_text(f'model_checkpoint_path: "{name}"\nall_model_checkpoint_paths: "{name}"\n')
        state.replace(self._folder / "checkpoint")
        for file in self._folder.glob("ckpt-*"):
            if not file.name.startswith(f"{name}."):
                file.unlink()


def _write_json(path: Path, content: dict[str, Any]) -> None:
    """In one step, so that a reader, or whoever comes after a kill, never sees half of it."""
    unfinished = path.with_name(f"{path.name}.part")
    unfinished.write_text(json.dumps(content) + "\n")
    unfinished.replace(path)
