"""A training run from a pipeline config to a folder of checkpoints (pipeline spec §7)."""

from __future__ import annotations

import errno
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import FrameType
from typing import Any

import tensorflow as tf
import tf_keras
from etils.epath import Path

from tfod_zoo.data.input_pipeline import NOTHING_READABLE
from tfod_zoo.errors import UsageError, ZooError
from tfod_zoo.modeling.factory import build
from tfod_zoo.training.checkpoints import (
    BestCheckpoint,
    newest_whole_checkpoint,
    remove_unfinished,
    seed_of_run,
    step_of,
    write_description,
)
from tfod_zoo.training.devices import described, device_kind, make_strategy, num_workers, worker_index
from tfod_zoo.training.evaluation import Evaluation, EvaluationStopped, main_figures
from tfod_zoo.training.fine_tune import fine_tune_source
from tfod_zoo.training.model_garden import ExponentialMovingAverage
from tfod_zoo.training.optimizer import build_optimizer, schedule_end
from tfod_zoo.training.precision import choose_precision, with_loss_scale, without_loss_scale
from tfod_zoo.training.progress import Progress
from tfod_zoo.training.task import TOTAL_LOSS, DetectionTask
from tfod_zoo.training.trainer import DetectionTrainer, NonFiniteError, TrainingController

CHECKPOINT_EVERY = 1000  # TFOD's interval
KEPT_CHECKPOINTS = 5
# Steps between two points of the TensorBoard curves: ten seconds or so on the CPUs that quickstart runs on.
SUMMARY_EVERY = 20
_NAMED_IMAGES = 8  # of a batch, in an error
# Fields of train_config without a meaning here: what they governed in TF1 is the strategy's and tf.data's affair.
_WITHOUT_EFFECT = (
    "startup_delay_steps",
    "replicas_to_aggregate",
    "batch_queue_capacity",
    "num_batch_queue_threads",
    "prefetch_queue_capacity",
    "max_number_of_boxes",
    "retain_original_images",
    "use_multiclass_scores",
    "merge_multiple_label_boxes",
    "summarize_gradients",
)


class DoesNotFitError(ZooError):
    """The batch needs more memory than the device has; `step` says how many steps were done before."""

    def __init__(self, message: str, step: int):
        super().__init__(message)
        self.step = step


@dataclass(frozen=True)
class TrainingResult:
    """What a run left behind.

    Attributes:
      model: the trained detector, also in `model_dir`.
      checkpoint: prefix of the newest checkpoint.
      step: global step it stands at.
      losses: (step, total loss averaged over the steps since the point before), as in TensorBoard.
      metrics: of the last evaluation; empty where none was asked for.
      first_step_seconds: tracing and compiling included; steps_per_second: the pace at the end, without that.
    """

    model: Any
    checkpoint: str
    step: int
    losses: list[tuple[int, float]] = field(default_factory=list)
    metrics: dict[str, Any] = field(default_factory=dict)
    first_step_seconds: float | None = None
    steps_per_second: float | None = None


def train(
    pipeline: Any,
    model_dir: str | os.PathLike[str],
    *,
    steps: int | None = None,
    seed: int | None = None,
    eval_every: int | None = None,
    best_metric: str | None = None,
    early_stop: int | None = None,
    checkpoint_every: int = CHECKPOINT_EVERY,
    keep: int = KEPT_CHECKPOINTS,
    precision: str | None = None,
    sync_batch_norm: bool = False,
    xla: bool = False,
    recompute: bool = False,
    strategy: tf.distribute.Strategy | None = None,
    make_task: Callable[..., DetectionTask] = DetectionTask,
    say: Callable[[str], None] = print,
    on_progress: Callable[[Progress], None] | None = None,
) -> TrainingResult:
    """Trains the detector of `pipeline` and leaves everything in `model_dir`; goes on where an earlier run stopped.

    `model_dir` gets `pipeline.config`, the newest checkpoints (`ckpt-STEP`: `model` with TFOD's keys, `optimizer`,
    `step`), with evaluations the best one under `best/`, and TensorBoard's curves and pictures under `train/` and
    `eval/`; `tfod_zoo.load(model_dir)` reads it. A run that goes on, however the one before ended, is the run that
    would have been: step, optimizer, averages and place in the data come from the checkpoint, and every random draw is
    a function of seed and step. The first SIGINT or SIGTERM ends the step at hand and saves; a second one stops at
    once.

    The global batch defines the result: with several replicas, losses are normalised, and gradients added up and
    clipped, over all of them. Only batch norm sees a replica's share, as in TFOD, unless `sync_batch_norm`.

    Args:
      pipeline: TrainEvalPipelineConfig message.
      model_dir: folder, made where it is missing; of several workers all must see it.
      steps: global steps to end at; None for `train_config.num_steps`.
      seed: of weights, data order and augmentation; None for 0, or for the seed that `model_dir` was begun with.
      eval_every: steps between evaluations on the eval reader, and one at the end; None for no evaluation.
      best_metric: the metric, higher is better, by which the best checkpoint is chosen; None for box AP, or the first
        keypoint AP of a model without boxes.
      early_stop: end when so many evaluations in a row were not better than the best; None to train to the end.
      checkpoint_every: steps between checkpoints; there is also one at the start and one at the end.
      keep: how many of the newest checkpoints stay; `train_config.keep_checkpoint_every_n_hours` adds one of every so
        many hours.
      precision: see `precision.choose_precision`.
      sync_batch_norm: batch norm in training sees the global batch.
      xla: compile the train step.
      recompute: keep fewer activations and compute them again, for less memory and more time (hourglass networks).
      strategy: None for `make_strategy()`.
      make_task: takes the arguments of `DetectionTask`; another one trains another part of the network.
      say: takes lines for the user, one at a time.
      on_progress: takes the progress, about twice a second at most.

    Raises:
      UsageError: no number of steps, a batch that does not divide among the replicas, another seed than before, readers
        without the model's keypoints, a precision that the device has not.
      DoesNotFitError: the batch does not fit into the device's memory.
      ZooError: a checkpoint that does not fit, a loss that is not finite, a full disk.
      KeyboardInterrupt: SIGINT or SIGTERM, after saving.
    """
    pipeline = _copy(pipeline)
    strategy = strategy or make_strategy()
    folder = Path(model_dir)
    steps = _final_step(pipeline, steps)
    check_batch(pipeline, strategy)
    for name, number in (
        ("eval_every", eval_every),
        ("checkpoint_every", checkpoint_every),
        ("keep", keep),
        ("early_stop", early_stop),
    ):
        if number is not None and number < 1:
            raise UsageError(f"{name} is {number}; give a number of at least 1.")
    if early_stop and not eval_every:
        raise UsageError("early_stop goes by evaluations; give eval_every, too.")
    device = device_kind(strategy)
    if eval_every and device == "TPU":
        raise UsageError(
            f"evaluation is not for a TPU: leave --eval-every out, and run tfod-zoo eval --model-dir {model_dir} "
            "--follow on another machine."
        )
    precision = choose_precision(precision, pipeline.train_config.use_bfloat16, device, say)
    source = fine_tune_source(pipeline.train_config, folder)
    going_on_from = newest_whole_checkpoint(folder, say)
    start = step_of(going_on_from, folder, pipeline) if going_on_from else None
    seed = seed_of_run(folder, seed, going_on=start is not None)
    for line in _remarks(pipeline.train_config, steps):
        say(f"note: {line}")

    # Variables draw from the global generators, whatever ran in this process before.
    tf_keras.utils.set_random_seed(seed)
    task = make_task(
        pipeline,
        seed=seed,
        start_step=start or 0,
        fine_tune=source,
        precision=precision,
        sync_batch_norm=sync_batch_norm,
        xla=xla,
        say=say,
    )
    run = _Run(steps, strategy, on_progress, say)
    is_chief = worker_index(strategy) == 0
    with strategy.scope(), _signals(run):
        trainer = make_trainer(task, pipeline, recompute=recompute, run=run, restore_from=going_on_from)
        run.trainer = trainer
        own_folder = folder if is_chief else folder / f"worker{worker_index(strategy)}.part"
        if is_chief:
            remove_unfinished(folder)
        elif own_folder.exists():
            own_folder.rmtree()
        hours = pipeline.train_config.keep_checkpoint_every_n_hours
        manager = tf.train.CheckpointManager(
            trainer.checkpoint, str(own_folder), max_to_keep=keep, keep_checkpoint_every_n_hours=hours or None
        )
        controller = TrainingController(
            trainer,
            manager,
            restore_from=going_on_from,
            writes_summaries=is_chief,
            checkpoint_every=checkpoint_every,
            summary_every=SUMMARY_EVERY,
            should_stop=run.should_stop,
            on_loop=run.on_loop,
        )
        if is_chief:
            write_description(folder, pipeline, seed)
        controller.save_checkpoint()
        if start is not None:
            say(f"going on from {going_on_from}, step {start}")
        evaluations = None
        if eval_every:
            best = BestCheckpoint(folder, pipeline, best_metric, writes=is_chief)
            evaluations = _Evaluations(
                pipeline, folder if is_chief else None, best, early_stop, trainer, manager, run
            )
        run.started = time.monotonic()
        if (start or 0) < steps:
            say("tracing the train step: the first step takes much longer than the others")
        try:
            if evaluations and start and eval_every and (start % eval_every == 0 or start >= steps):
                evaluations.catch_up(start)
            while (
                (done := int(trainer.global_step.numpy())) < steps
                and not run.should_stop()
                and not (evaluations and evaluations.enough())
            ):
                until = min(steps, done + eval_every - done % eval_every) if eval_every else steps
                controller.train(until, checkpoint_at_completion=True)
                if evaluations and not run.should_stop():
                    evaluations.evaluate()
        except NonFiniteError as error:
            raise _explained(error, pipeline, seed, manager.latest_checkpoint) from error
        except tf.errors.ResourceExhaustedError as error:
            if _is_of_the_disk(error):
                raise ZooError(
                    f"the disk of {folder} is full; {manager.latest_checkpoint} is kept: free some space and run the "
                    "same command to go on from it."
                ) from error
            raise batch_too_large(pipeline, strategy, int(trainer.global_step.numpy())) from error
        except tf.errors.InvalidArgumentError as error:
            if NOTHING_READABLE not in str(error):
                raise
            paths = ", ".join(pipeline.train_input_reader.tf_record_input_reader.input_path)
            raise ZooError(f"{NOTHING_READABLE} ({paths}); check that its images are JPEG, PNG, BMP or GIF.") from error
        for line in task.problems.summary():
            say(f"data: {line}")
        checkpoint = manager.latest_checkpoint if is_chief else str(folder)
        if not is_chief:
            own_folder.rmtree()
    step = int(trainer.global_step.numpy())
    if start is not None and start >= steps:
        say(f"nothing to train: {checkpoint} stands at step {step} of {steps}; give a larger --steps to go on")
    elif run.should_stop():
        say(f"stopped at step {step} of {steps}, saved as {checkpoint}; run the same command to go on from there")
        raise KeyboardInterrupt
    metrics = evaluations.metrics if evaluations else {}
    return TrainingResult(
        trainer.model, checkpoint, step, run.losses, metrics, run.first_step_seconds, trainer.steps_per_second
    )


def make_trainer(
    task: DetectionTask, pipeline: Any, *, recompute: bool, run: Any, restore_from: str | None
) -> DetectionTrainer:
    """Model, optimizer and trainer of a run, in its strategy's scope.

    Args:
      run: has `on_step` and `should_stop`, see `DetectionTrainer`.
      restore_from: a checkpoint of the same model, or None; one of another is refused before anything is written.
    """
    model = task.build_model()
    _check_keypoints(pipeline, model)
    if recompute:
        model.recompute_gradients()
    if restore_from is not None:
        model.restore_checkpoint(restore_from, mode="full")
    optimizer = build_optimizer(pipeline.train_config.optimizer)
    if isinstance(optimizer, ExponentialMovingAverage):
        optimizer.shadow_copy(model)
    optimizer = with_loss_scale(optimizer, task.precision)
    return DetectionTrainer(task, model, optimizer, on_step=run.on_step, should_stop=run.should_stop)


class _Run:
    """What one run collects while its steps go by, and whether it was asked to stop."""

    def __init__(
        self,
        steps: int,
        strategy: tf.distribute.Strategy,
        on_progress: Callable[[Progress], None] | None,
        say: Callable[[str], None],
    ):
        self.steps = steps
        self.losses: list[tuple[int, float]] = []
        self.first_step_seconds: float | None = None
        self.started = time.monotonic()
        self.trainer: DetectionTrainer | None = None
        self.stop = threading.Event()
        self._on_progress, self.say = on_progress, say
        self._strategy, self._all_stop = strategy, False
        self._alone = num_workers(strategy) == 1

    def should_stop(self) -> bool:
        """Whether any worker was asked to; where there are several, all must ask together."""
        if self._alone:
            return self.stop.is_set()
        if not self._all_stop:
            self._all_stop = float(self._asked(tf.constant(float(self.stop.is_set())))) > 0
        return self._all_stop

    @tf.function
    def _asked(self, mine: tf.Tensor) -> tf.Tensor:
        return self._strategy.reduce("SUM", self._strategy.run(tf.identity, args=(mine,)), axis=None)

    def on_step(self, step: int, loss: float) -> None:
        if self.first_step_seconds is None:
            self.first_step_seconds = time.monotonic() - self.started
            self.say(f"step {step} of {self.steps} took {self.first_step_seconds:.1f} s, tracing included")
        self._show(step, loss)

    def on_loop(self, step: int, output: dict[str, float]) -> None:
        self.losses.append((step, output[TOTAL_LOSS]))
        if step == self.steps:
            self._show(step, output[TOTAL_LOSS])

    def _show(self, step: int, loss: float) -> None:
        pace = self.trainer.steps_per_second if self.trainer else None
        if self._on_progress:
            left = (self.steps - step) / pace if pace else None
            self._on_progress(Progress(step, self.steps, loss, pace, left))


class _Evaluations:
    """The evaluations of a run: what is said, which checkpoint is the best, and when it is enough."""

    def __init__(
        self,
        pipeline: Any,
        folder: Path | None,
        best: BestCheckpoint,
        early_stop: int | None,
        trainer: DetectionTrainer,
        manager: tf.train.CheckpointManager,
        run: _Run,
    ):
        self._best, self._early_stop = best, early_stop
        self._trainer, self._manager, self._run = trainer, manager, run
        # Of mixed precision its float32 twin is measured: the detector that the checkpoints are loaded as.
        self._twin = build(pipeline) if trainer.task.precision != "float32" else None
        self._evaluation = Evaluation(
            self._twin or trainer.model, pipeline, folder, run.should_stop
        )
        optimizer = without_loss_scale(trainer.optimizer)
        averaged = pipeline.eval_config.use_moving_averages and isinstance(optimizer, ExponentialMovingAverage)
        self._swap = optimizer.swap_weights if averaged else lambda: None
        self.metrics: dict[str, Any] = {}

    def catch_up(self, step: int) -> None:
        """The evaluation that was due when the run before was ended."""
        if self._best.evaluated_step != step:
            self.evaluate()

    def evaluate(self) -> None:
        step = int(self._trainer.global_step.numpy())
        self._run.say(f"step {step}: evaluating")
        self._swap()
        try:
            if self._twin:
                for key, variable in self._trainer.model.keyed_variables.items():
                    self._twin.keyed_variables[key].assign(variable)
            self.metrics = self._evaluation.run(step)
        except EvaluationStopped:
            return
        finally:
            self._swap()
        better = self._best.add(self._manager.latest_checkpoint, step, self.metrics)
        how = ", the best so far" if better else f" (best: {self._best.value:.3f} at step {self._best.step})"
        self._run.say(f"step {step}: {main_figures(self.metrics)}{how}")

    def enough(self) -> bool:
        """Whether the metric has not become better for so many evaluations that the run ends."""
        best = self._best
        if not self._early_stop or best.evaluations_since < self._early_stop:
            return False
        self._run.say(
            f"ended early: {best.metric} was not better than {best.value:.3f}, of step {best.step}, in "
            f"{best.evaluations_since} evaluations"
        )
        return True


@contextmanager
def _signals(run: _Run) -> Iterator[None]:
    """Turns the first SIGINT or SIGTERM into a stop after the step at hand; only possible on the main thread."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def ask(number: int, frame: FrameType | None) -> None:
        run.stop.set()
        for each, handler in before.items():
            signal.signal(each, handler)

    for number in before:
        signal.signal(number, ask)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _copy(pipeline: Any) -> Any:
    copied = type(pipeline)()
    copied.CopyFrom(pipeline)
    return copied


def _final_step(pipeline: Any, steps: int | None) -> int:
    """The step to end at; the pipeline that is written down says the same."""
    steps = pipeline.train_config.num_steps if steps is None else steps
    if steps < 1:
        raise UsageError("there is no number of steps to train for; set train_config.num_steps or give --steps.")
    pipeline.train_config.num_steps = steps
    return steps


def check_batch(pipeline: Any, strategy: tf.distribute.Strategy) -> None:
    """Raises `UsageError` for a batch that does not divide among the replicas."""
    batch, replicas = pipeline.train_config.batch_size, strategy.num_replicas_in_sync
    if batch < 1 or batch % replicas:
        raise UsageError(
            f"train_config.batch_size is {batch}, which does not divide among {replicas} replicas; give a multiple, "
            f"such as --set train_config.batch_size={max(batch // replicas, 1) * replicas}."
        )


def _check_keypoints(pipeline: Any, model: Any) -> None:
    """The readers must give every keypoint that the model learns."""
    wanted = sum(len(task.ids) for task in getattr(model, "keypoint_tasks", ()))
    readers = {"train_input_reader": pipeline.train_input_reader}
    readers |= {f"eval_input_reader[{index}]": reader for index, reader in enumerate(pipeline.eval_input_reader)}
    for name, reader in readers.items():
        if wanted and reader.num_keypoints != wanted:
            raise UsageError(
                f"{name}.num_keypoints is {reader.num_keypoints}, but the model's keypoint tasks have {wanted}; write "
                f"--set {name}.num_keypoints={wanted}, or take the tasks out."
            )


def _explained(error: NonFiniteError, pipeline: Any, seed: int, checkpoint: str | None) -> ZooError:
    """The error with the images of the batch, which are read again: the data are a function of seed and step."""
    from tfod_zoo.data.input_pipeline import build_dataset

    skip = (error.step - 1) * pipeline.train_config.batch_size
    features, _ = next(iter(build_dataset(pipeline, training=True, seed=seed, skip_examples=skip)))
    names = [source_id.decode(errors="replace") for source_id in features["source_id"].numpy() if source_id]
    shown = ", ".join(names[:_NAMED_IMAGES]) + (", ..." if len(names) > _NAMED_IMAGES else "")
    return ZooError(
        f"{error} (its images: {shown or 'without ids'}); training stopped and {checkpoint} is kept: lower the "
        "learning rate or raise the batch size, or look at these images' boxes."
    )


def _is_of_the_disk(error: tf.errors.ResourceExhaustedError) -> bool:
    """Whether what is exhausted is space for files, which TensorFlow reports with the same error as memory."""
    return any(text in str(error) for text in (os.strerror(errno.ENOSPC), os.strerror(errno.EDQUOT)))


def batch_too_large(pipeline: Any, strategy: tf.distribute.Strategy, step: int) -> DoesNotFitError:
    """The error for a batch that ran out of memory after `step` steps."""
    batch = pipeline.train_config.batch_size
    return DoesNotFitError(
        f"a batch of {batch} does not fit into the memory of {described(strategy)}; halve it and the learning rate "
        f"(--set train_config.batch_size={max(batch // 2, 1)}), make the image smaller, or add --recompute for an "
        "hourglass.",
        step,
    )


def _remarks(config: Any, steps: int) -> Iterator[str]:
    """What a user may not expect of a config."""
    end = schedule_end(config.optimizer)
    if end is not None and end < steps:
        yield f"the learning rate is 0 after step {end}, where the config's cosine ends; the rest will not learn"
    ignored = [name for name in _WITHOUT_EFFECT if config.HasField(name) and getattr(config, name)]
    if ignored:
        yield f"without effect in train_config: {', '.join(ignored)}"
