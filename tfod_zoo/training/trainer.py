"""Model Garden's trainer and orbit's controller, with TFOD's checkpoint tree, losses at every step and clear ends."""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable
from typing import Any

import tensorflow as tf
from etils.epath import Path

from tfod_zoo.errors import ZooError
from tfod_zoo.training import pictures
from tfod_zoo.training.devices import device_kind, num_workers
from tfod_zoo.training.model_garden import base_trainer, config_definitions, orbit
from tfod_zoo.training.precision import without_loss_scale
from tfod_zoo.training.task import TOTAL_LOSS, DetectionTask

# Steps whose durations are averaged for the pace: enough to be calm, few enough to follow a machine that slows down.
_PACE_STEPS = 100
# Reading a loss waits for the accelerator; this often is free beside any step.
_SECONDS_BETWEEN_READINGS = 0.5

_PICTURES = 3  # of a batch, in TensorBoard

OnStep = Callable[[int, float], None]


class NonFiniteError(ZooError):
    """Loss or weights became infinite or not a number; `step` counts from 1 and says which update saw it first."""

    def __init__(self, step: int, what: str):
        super().__init__(f"{what} at step {step}")
        self.step = step


class DetectionTrainer(base_trainer.Trainer):
    """Runs train steps one by one from Python, so that progress, interrupts and losses are those of each step.

    Args:
      task, model, optimizer: made in the strategy's scope, where this is made too.
      on_step: called with the number of steps done and a loss, at the first step and then about twice a second.
      should_stop: asked after every step; True ends the loop after it. One of several workers must not stop alone:
        there a loop runs to its end.
    """

    def __init__(
        self, task: DetectionTask, model: Any, optimizer: Any, *, on_step: OnStep, should_stop: Callable[[], bool]
    ):
        strategy = tf.distribute.get_strategy()
        super().__init__(
            config_definitions.ExperimentConfig(),
            task,
            model,
            optimizer,
            evaluate=False,
            train_dataset=orbit.utils.make_distributed_dataset(strategy, task.build_inputs),
        )
        self._alone = num_workers(strategy) == 1
        # On a TPU they would be a transfer at every step.
        self._shows_pictures = device_kind(strategy) != "TPU"
        self._shown: list[tuple[Any, Any]] = []
        # Slots exist before a checkpoint is restored, so that nothing in it can be left over unnoticed.
        optimizer._create_all_weights(model.trainable_variables)
        self._checkpoint = tf.train.Checkpoint(step=self.global_step, model=model.tfod_tree, optimizer=optimizer)
        self._on_step, self._should_stop = on_step, should_stop
        self._losses: list[dict[str, tf.Tensor]] = []
        self._durations: deque[float] = deque(maxlen=_PACE_STEPS)
        self._read_at = 0.0

    @property
    def steps_per_second(self) -> float | None:
        """The pace of the last steps, without the first one, which compiles; None before there is one."""
        return len(self._durations) / sum(self._durations) if self._durations else None

    def train_step(self, iterator: Any) -> tuple[dict[str, tf.Tensor], list[tuple[Any, Any]]]:
        """One step on all replicas.

        Returns:
          The losses summed over the replicas (each holds its share), and the first images of the batch with their
          ground truth.
        """

        def step_fn(inputs: Any) -> tuple[dict[str, tf.Tensor], list[tuple[Any, Any]]]:
            losses = self.task.train_step(inputs, model=self.model, optimizer=self.optimizer)
            self.global_step.assign_add(1)
            return losses, [tf.nest.map_structure(lambda value: value[:_PICTURES], inputs)] * self._shows_pictures

        losses, shown = self.strategy.run(step_fn, args=(next(iterator),))
        summed = {key: self.strategy.reduce("SUM", value, axis=None) for key, value in losses.items()}
        first = tf.nest.map_structure(lambda value: self.strategy.experimental_local_results(value)[0], shown)
        return summed, first

    def check_weights(self) -> None:
        """Raises `NonFiniteError` where the last update broke the weights, which the next loss would show first."""
        if not all(bool(finite) for finite in self._finite_weights()):
            raise NonFiniteError(int(self.global_step.numpy()), "the weights are not finite numbers after the update")

    @tf.function
    def _finite_weights(self) -> list[tf.Tensor]:
        return [tf.reduce_all(tf.math.is_finite(variable)) for variable in self.model.trainable_variables]

    def pictures(self) -> list[tf.Tensor]:
        """The first images of the newest batch as the network got them, with their boxes."""
        return [
            pictures.with_groundtruth(features, groundtruth, row)
            for features, groundtruth in self._shown
            for row in range(features["image"].shape[0])
        ]

    def create_train_loop_fn(self) -> Callable[[Any, tf.Tensor], None]:
        """A Python loop over the traced step: its overhead of about a millisecond buys what the class promises."""
        step_fn = tf.function(self.train_step, autograph=False)
        traced = False

        def loop(iterator: Any, num_steps: tf.Tensor) -> None:
            nonlocal traced
            done = int(self.global_step.numpy())
            for step in range(done + 1, done + 1 + int(num_steps)):
                started = time.monotonic()
                losses, self._shown = step_fn(iterator)
                self._losses.append(losses)
                if not traced or started - self._read_at >= _SECONDS_BETWEEN_READINGS:
                    self._read_at = started
                    # Of several workers none may end alone; they all look at the end of the loop.
                    self._on_step(step, _finite(losses, step) if self._alone else float(losses[TOTAL_LOSS]))
                if traced:
                    self._durations.append(time.monotonic() - started)
                traced = True
                if self._alone and self._should_stop():
                    return

        return loop

    def train_loop_begin(self) -> None:
        """Forgets the losses of the loop before."""
        self._losses = []

    def train_loop_end(self) -> dict[str, float]:
        """Losses averaged over the loop's steps, and the learning rate of its last one.

        Raises:
          NonFiniteError: a step's total loss was not finite.
        """
        done = int(self.global_step.numpy())
        for step, losses in enumerate(self._losses, start=done - len(self._losses) + 1):
            _finite(losses, step)
        means = {key: float(tf.reduce_mean([losses[key] for losses in self._losses])) for key in self._losses[0]}
        return {**means, "learning_rate": float(without_loss_scale(self.optimizer).learning_rate(done - 1))}


def _finite(losses: dict[str, tf.Tensor], step: int) -> float:
    loss = float(losses[TOTAL_LOSS])
    if not math.isfinite(loss):
        raise NonFiniteError(step, f"the loss is {loss}")
    return loss


class TrainingController(orbit.Controller):
    """orbit's controller without its printing, with exact checkpoint steps and a sentence for a failed save.

    Args:
      trainer: what runs the steps.
      checkpoint_manager: keeps the newest checkpoints of `trainer.checkpoint`.
      restore_from: prefix of the checkpoint to go on from; None for a new run.
      writes_summaries: False for all workers but the first.
      checkpoint_every: steps between checkpoints; they fall on its multiples.
      summary_every: steps between two points of the TensorBoard curves, likewise.
      should_stop: True ends `train` after the step at hand.
      on_loop: called with the steps done and the loop's mean losses whenever summaries are written.
    """

    def __init__(
        self,
        trainer: DetectionTrainer,
        checkpoint_manager: tf.train.CheckpointManager,
        *,
        restore_from: str | None,
        writes_summaries: bool,
        checkpoint_every: int,
        summary_every: int,
        should_stop: Callable[[], bool],
        on_loop: Callable[[int, dict[str, float]], None],
    ):
        self._checkpoint_every, self._summary_every = checkpoint_every, summary_every
        self._should_stop, self._on_loop = should_stop, on_loop
        self._first_loop = True
        self._saved_step: int | None = None
        super().__init__(
            global_step=trainer.global_step,
            trainer=trainer,
            strategy=trainer.strategy,
            steps_per_loop=self._loop_length,
            summary_dir=str(Path(checkpoint_manager.directory) / "train") if writes_summaries else None,
        )
        # Given to the base class, it would be restored with a line on stdout.
        self.checkpoint_manager = checkpoint_manager
        self.restore_checkpoint(restore_from)

    def _loop_length(self, step: int) -> int:
        """A single step first, for the time it compiles; then to the next multiple of either interval."""
        if self._first_loop:
            return 1
        return min(every - int(step) % every for every in (self._summary_every, self._checkpoint_every))

    def restore_checkpoint(self, checkpoint_path: str | None = None) -> str | None:
        """Restores model, optimizer and step from a checkpoint, or lets the task initialise a new run.

        Raises:
          ZooError: the checkpoint was written by another model or optimizer.
        """
        prefix = checkpoint_path
        with self.strategy.scope():
            if prefix is None:
                self.trainer.initialize()
                return None
            try:
                status = self.trainer.checkpoint.restore(prefix)
                # Silences a list of every unread entry at exit; what was not found here is refused all the same.
                status.expect_partial().assert_existing_objects_matched()
            except (AssertionError, ValueError) as error:
                raise ZooError(
                    f"{prefix} was not written with this model and optimizer, so training cannot go on from it; "
                    "give another --model-dir, or the config that it was trained with."
                ) from error
        self._saved_step = int(self.global_step.numpy())
        return prefix

    def train(self, steps: int, checkpoint_at_completion: bool = False) -> None:
        """Trains until `steps` are done or a stop is asked for; checkpoints on the way."""
        while (done := int(self.global_step.numpy())) < steps and not self._should_stop():
            self._train_n_steps(min(steps - done, self.steps_per_loop))
            self._first_loop = False
            if int(self.global_step.numpy()) % self._checkpoint_every == 0:
                self.save_checkpoint()
        if checkpoint_at_completion:
            self.save_checkpoint()

    def _train_n_steps(self, num_steps: int) -> None:
        started, before = time.monotonic(), int(self.global_step.numpy())
        output = self.trainer.train(tf.constant(num_steps, tf.int32))
        done = int(self.global_step.numpy())
        output["steps_per_sec"] = (done - before) / (time.monotonic() - started)
        self.summary_manager.write_summaries(output)
        if before == 0 or done % self._checkpoint_every == 0:
            with self.summary_manager.summary_writer().as_default():
                for index, picture in enumerate(self.trainer.pictures()):
                    tf.summary.image(f"train_input_images_{index}", picture[None], step=done)
        self.summary_manager.flush()
        self._on_loop(done, output)

    def save_checkpoint(self) -> str:
        """Writes `ckpt-STEP`, unless it is there, drops the oldest, and returns the prefix.

        TensorFlow writes under other names and renames at the end, and drops old ones only then: a save that fails
        leaves every earlier checkpoint as it was.

        Raises:
          NonFiniteError: the weights are no numbers any more, and nothing was written.
          ZooError: it could not be written, on a full disk for example; its leftovers are removed.
        """
        manager, step = self.checkpoint_manager, int(self.global_step.numpy())
        newest = manager.latest_checkpoint
        if step == self._saved_step:  # all workers know it alike, though only one has it in its own folder
            return newest
        self.trainer.check_weights()
        try:
            saved = manager.save(checkpoint_number=step)
            self._saved_step = step
            return saved
        except (tf.errors.OpError, OSError, RuntimeError) as error:
            for leftover in Path(manager.directory).glob(f"ckpt-{step}[._]*"):
                leftover.rmtree(missing_ok=True) if leftover.is_dir() else leftover.unlink(missing_ok=True)
            kept = f"{newest} is kept" if newest else "there was none before"
            reason = str(error).strip().splitlines()[0]
            raise ZooError(
                f"the checkpoint of step {step} could not be written to {manager.directory} ({reason}); {kept}: free "
                "some space and run the same command to go on from it."
            ) from error
