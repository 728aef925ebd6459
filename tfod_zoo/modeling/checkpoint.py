"""Zoo checkpoints: TFOD's tree of names over our layers, read and written (spec: CenterNet, 14 and 15)."""

import os
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import tensorflow as tf
from etils.epath import Path

from tfod_zoo.errors import ZooError

SUFFIX = "/.ATTRIBUTES/VARIABLE_VALUE"
OBJECT_GRAPH = "_CHECKPOINTABLE_OBJECT_GRAPH"
SHOWN_KEYS = 3  # keys that an error names before it only counts


class CheckpointError(ZooError):
    """A checkpoint that cannot be read, written, or restored into a model."""


@dataclass(frozen=True)
class RestoreReport:
    """What a restore did.

    Attributes:
      prefix: the checkpoint.
      restored: keys whose values the model now holds.
      missing: the model's keys that the chosen mode leaves as they were (e.g. new heads).
      unused: the checkpoint's keys that the model does not use (optimizer slots, `step`, ...).
    """

    prefix: str
    restored: tuple[str, ...]
    missing: tuple[str, ...]
    unused: tuple[str, ...]

    def summary(self) -> str:
        """One line for a log."""
        text = f"restored {len(self.restored)} of {len(self.restored) + len(self.missing)} variables from {self.prefix}"
        if self.missing:
            text += f"; new: {_some(self.missing)}"
        if self.unused:
            number = len(self.unused)
            text += f"; not used: {number} {'entry' if number == 1 else 'entries'} of the checkpoint"
        return text


def _some(keys: Sequence[str]) -> str:
    names = ", ".join(key.removesuffix(SUFFIX) for key in keys[:SHOWN_KEYS])
    return names + (f" and {len(keys) - SHOWN_KEYS} more" if len(keys) > SHOWN_KEYS else "")


def tree(**children) -> tf.__internal__.tracking.AutoTrackable:
    """A node of a checkpoint's tree: its children are tracked under their keyword names."""
    node = tf.__internal__.tracking.AutoTrackable()
    for name, child in children.items():
        setattr(node, name, child)
    return node


def numbered(layers: Sequence, start: int) -> tf.__internal__.tracking.AutoTrackable:
    """A node whose children are `layer_with_weights-N`, N from `start`, as Keras names a functional model's layers."""
    return tree(**{f"layer_with_weights-{start + i}": layer for i, layer in enumerate(layers)})


def keyed_variables(root, name: str) -> Iterator[tuple[str, tf.Variable]]:
    """Every variable under `root` with its checkpoint key, when `root` is saved as `name`.

    A variable's key is its shortest path from the root; among equally short ones the first that was tracked.
    """
    view = tf.train.TrackableView(root)
    paths, queue = {id(root): name}, deque([root])
    while queue:
        node = queue.popleft()
        if isinstance(node, tf.Variable):
            yield paths[id(node)] + SUFFIX, node
            continue
        for child_name, child in view.children(node).items():
            if id(child) not in paths:
                paths[id(child)] = f"{paths[id(node)]}/{child_name.replace('.', '..').replace('/', '.S')}"
                queue.append(child)


def open_checkpoint(prefix: str) -> Any:
    """A reader of the checkpoint at a prefix; `tf.train.load_checkpoint` would first ask whether it is a folder."""
    return tf.compat.v1.train.NewCheckpointReader(prefix)


def read_shapes(prefix: str) -> dict[str, list[int]]:
    """Shape of every entry of a checkpoint by key, without the object graph.

    Raises:
      CheckpointError: there is no TF2 (object-based) checkpoint at this prefix.
    """
    if not tf.io.gfile.exists(f"{prefix}.index"):
        raise CheckpointError(
            f"{prefix}.index does not exist; give a checkpoint's prefix, such as .../ckpt-0, without an ending."
        )
    try:
        shapes = open_checkpoint(prefix).get_variable_to_shape_map()
    except (tf.errors.OpError, ValueError, RuntimeError) as error:
        raise CheckpointError(
            f"{prefix} cannot be read as a checkpoint ({_first_line(error)}); fetch it again."
        ) from error
    if OBJECT_GRAPH not in shapes:
        raise CheckpointError(f"{prefix} is a name-based TF1 checkpoint; give one of the TF2 zoo.")
    return {key: shape for key, shape in shapes.items() if key != OBJECT_GRAPH}


def newest_checkpoint(folder: str | os.PathLike) -> str:
    """Prefix of the newest checkpoint of a training folder or an unpacked archive.

    Raises:
      CheckpointError: there is none yet.
    """
    for place in (Path(folder), Path(folder) / "checkpoint"):
        prefix = tf.train.latest_checkpoint(str(place))
        if prefix:
            return prefix
    raise CheckpointError(f"{folder} holds no checkpoint yet; train first, or give a checkpoint's prefix.")


def restore(prefix: str, wanted: dict[str, tf.Variable], kept: Sequence[str] = ()) -> RestoreReport:
    """Reads every wanted key into its variable; nothing is written unless all are there in the right shape.

    Args:
      prefix: checkpoint prefix.
      wanted: checkpoint key -> variable.
      kept: the model's other keys, for the report.

    Raises:
      CheckpointError: keys are missing or of another shape; it names them.
    """
    stored = read_shapes(prefix)
    missing = [key for key in wanted if key not in stored]
    if missing:
        raise CheckpointError(
            f"{prefix} lacks {len(missing)} of the {len(wanted)} variables that this model restores, such as "
            f"{_some(missing)}; it is a checkpoint of another model, or of another fine_tune_checkpoint_type."
        )
    clashes = [key for key, variable in wanted.items() if list(variable.shape) != stored[key]]
    if clashes:
        shapes = "; ".join(
            f"{key.removesuffix(SUFFIX)} has shape {stored[key]} there and {list(wanted[key].shape)} here"
            for key in clashes[:SHOWN_KEYS]
        )
        more = f" and {len(clashes) - SHOWN_KEYS} more" if len(clashes) > SHOWN_KEYS else ""
        raise CheckpointError(
            f"{prefix} does not fit this model: {shapes}{more}; for another number of classes restore with "
            'fine_tune_checkpoint_type "detection", which leaves the heads new.'
        )
    reader = open_checkpoint(prefix)
    try:
        values = {key: reader.get_tensor(key) for key in wanted}
    except (tf.errors.OpError, ValueError, RuntimeError) as error:
        raise CheckpointError(f"{prefix} is damaged ({_first_line(error)}); fetch it again.") from error
    for key, variable in wanted.items():
        variable.assign(values[key])
    unused = tuple(sorted(set(stored) - set(wanted)))
    return RestoreReport(prefix, tuple(wanted), tuple(kept), unused)


def save(prefix: str | os.PathLike, model_tree) -> None:
    """Writes `model_tree` as `model`, and `save_counter`, which TFOD's loader asks for, with the state file beside it.

    TensorFlow writes to temporary names and renames, so an earlier checkpoint survives a failure.

    Raises:
      CheckpointError: the disk is full or the folder cannot be written.
    """
    checkpoint = tf.train.Checkpoint(model=model_tree)
    checkpoint.save_counter.assign(1)
    folder, name = os.path.split(prefix)
    try:
        if folder:
            tf.io.gfile.makedirs(folder)
        checkpoint.write(str(prefix))
        # TensorFlow's own writer of this file is gone from TF2; relative names let the folder be moved.
        state = f'model_checkpoint_path: "{name}"\nall_model_checkpoint_paths: "{name}"\n'
        tf.io.write_file(os.path.join(folder, "checkpoint"), state)
    except (tf.errors.OpError, OSError) as error:
        raise CheckpointError(
            f"the checkpoint {prefix} could not be written ({_first_line(error)}); free space or give another folder."
        ) from error


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
