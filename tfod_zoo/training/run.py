"""A training run from a pipeline config to a folder of checkpoints (pipeline spec §7)."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

import tensorflow as tf
import tf_keras

from tfod_zoo.config.pipeline import read_pipeline, write_pipeline
from tfod_zoo.data.input_pipeline import NOTHING_READABLE
from tfod_zoo.errors import UsageError, ZooError
from tfod_zoo.modeling.checkpoint import SUFFIX, read_shapes
from tfod_zoo.training.fine_tune import fine_tune_source
from tfod_zoo.training.model_garden import ExponentialMovingAverage, orbit
from tfod_zoo.training.optimizer import build_optimizer, schedule_end
from tfod_zoo.training.progress import Progress
from tfod_zoo.training.task import TOTAL_LOSS, DetectionTask
from tfod_zoo.training.trainer import DetectionTrainer, NonFiniteLossError, TrainingController

CHECKPOINT_EVERY = 1000  # TFOD's interval
KEPT_CHECKPOINTS = 5
# Steps between two points of the TensorBoard curves: ten seconds or so on the CPUs that quickstart runs on.
SUMMARY_EVERY = 20
_NAMED_IMAGES = 8  # of a batch, in an error

MAP = "DetectionBoxes_Precision/mAP"
_KEYPOINT_MAP = "Keypoints_Precision/mAP ByCategory/"  # and the class


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


def main_figures(metrics: dict[str, Any]) -> str:
    """The metrics that decide, for a line: box AP and, per class that has them, keypoint AP."""
    boxes = {"AP": MAP, "AP50": f"{MAP}@.50IOU"}
    figures = [f"{title} {metrics[key]:.3f}" for title, key in boxes.items() if key in metrics]
    for key, value in metrics.items():
        if key.startswith(_KEYPOINT_MAP):
            figures.append(f"keypoint AP {value:.3f} ({key.removeprefix(_KEYPOINT_MAP)})")
    return ", ".join(figures)


def default_strategy() -> tf.distribute.Strategy:
    """`MirroredStrategy` over several visible GPUs; otherwise the one device there is."""
    return tf.distribute.MirroredStrategy() if len(tf.config.list_physical_devices("GPU")) > 1 else (
        tf.distribute.get_strategy()
    )


def train(
    pipeline: Any,
    model_dir: str | os.PathLike[str],
    *,
    steps: int | None = None,
    seed: int | None = None,
    eval_every: int | None = None,
    checkpoint_every: int = CHECKPOINT_EVERY,
    xla: bool = False,
    recompute: bool = False,
    strategy: tf.distribute.Strategy | None = None,
    make_task: Callable[..., DetectionTask] = DetectionTask,
    say: Callable[[str], None] = print,
    on_progress: Callable[[Progress], None] | None = None,
) -> TrainingResult:
    """Trains the detector of `pipeline` and leaves everything in `model_dir`; goes on where an earlier run stopped.

    `model_dir` gets `pipeline.config`, the five newest checkpoints (`ckpt-STEP`: `model` with TFOD's keys, `optimizer`,
    `step`), and TensorBoard's curves under `train/` and `eval/`; `tfod_zoo.load(model_dir)` reads it. A run that goes
    on has the step, the optimizer's state and the place in the data of the run that stopped. The first SIGINT or
    SIGTERM ends the step at hand and saves; a second one stops at once.

    Args:
      pipeline: TrainEvalPipelineConfig message.
      model_dir: folder, made where it is missing.
      steps: global steps to end at; None for `train_config.num_steps`.
      seed: of weights, data order and augmentation; None for 0, or for the seed that `model_dir` was begun with.
      eval_every: steps between evaluations on the eval reader, and one at the end; None for no evaluation.
      checkpoint_every: steps between checkpoints; there is also one at the start and one at the end.
      xla: compile the train step.
      recompute: keep fewer activations and compute them again, for less memory and more time (hourglass networks).
      strategy: None for `default_strategy()`.
      make_task: takes the arguments of `DetectionTask`; another one trains another part of the network.
      say: takes lines for the user, one at a time.
      on_progress: takes the progress, about twice a second at most.

    Raises:
      UsageError: no number of steps, a batch that does not divide among the replicas, another seed than before, readers
        without the model's keypoints.
      ZooError: a checkpoint that does not fit, a loss that is not finite, a full disk.
      KeyboardInterrupt: SIGINT or SIGTERM, after saving.
    """
    pipeline = _copy(pipeline)
    strategy = strategy or default_strategy()
    folder = Path(model_dir)
    steps = _final_step(pipeline, steps)
    _check_batch(pipeline, strategy)
    for name, interval in (("eval_every", eval_every), ("checkpoint_every", checkpoint_every)):
        if interval is not None and interval < 1:
            raise UsageError(f"{name} is {interval}; give a number of steps of at least 1.")
    source = fine_tune_source(pipeline.train_config, folder)
    start = _step_to_go_on_from(folder, pipeline)
    seed = _seed_of_run(folder, seed, going_on=start is not None)
    if (end := schedule_end(pipeline.train_config.optimizer)) is not None and end < steps:
        say(f"note: the learning rate is 0 after step {end}, where the config's cosine ends; the rest will not learn")

    # Variables draw from the global generators, whatever ran in this process before.
    tf_keras.utils.set_random_seed(seed)
    task = make_task(pipeline, seed=seed, start_step=start or 0, fine_tune=source, xla=xla, say=say)
    run = _Run(steps, on_progress, say)
    with strategy.scope(), _signals(run):
        model = task.build_model()
        _check_keypoints(pipeline, model)
        if recompute:
            model.recompute_gradients()
        if start is not None:
            # Refuses a checkpoint of another model by name and shape before anything is written.
            model.restore_checkpoint(tf.train.latest_checkpoint(str(folder)), mode="full")
        optimizer = build_optimizer(pipeline.train_config.optimizer)
        trainer = DetectionTrainer(task, model, optimizer, on_step=run.on_step, should_stop=run.should_stop)
        run.trainer = trainer
        manager = tf.train.CheckpointManager(trainer.checkpoint, str(folder), max_to_keep=KEPT_CHECKPOINTS)
        controller = TrainingController(
            trainer,
            manager,
            checkpoint_every=checkpoint_every,
            summary_every=SUMMARY_EVERY,
            should_stop=run.should_stop,
            on_loop=run.on_loop,
        )
        _write_description(folder, pipeline, seed)
        checkpoint = controller.save_checkpoint()
        if start is not None:
            say(f"going on from {checkpoint}, step {start}")
        evaluation = _Evaluation(pipeline, folder, trainer, run) if eval_every else None
        metrics: dict[str, Any] = {}
        run.started = time.monotonic()
        try:
            while (done := int(trainer.global_step.numpy())) < steps and not run.should_stop():
                until = min(steps, done + eval_every - done % eval_every) if eval_every else steps
                controller.train(until, checkpoint_at_completion=True)
                if evaluation and not run.should_stop():
                    metrics = evaluation.run()
        except NonFiniteLossError as error:
            raise _explained(error, pipeline, seed, manager.latest_checkpoint) from error
        except tf.errors.InvalidArgumentError as error:
            if NOTHING_READABLE not in str(error):
                raise
            paths = ", ".join(pipeline.train_input_reader.tf_record_input_reader.input_path)
            raise ZooError(f"{NOTHING_READABLE} ({paths}); check that its images are JPEG, PNG, BMP or GIF.") from error
        for line in task.problems.summary():
            say(f"data: {line}")
        checkpoint = manager.latest_checkpoint
    step = int(trainer.global_step.numpy())
    if start is not None and start >= steps:
        say(f"nothing to train: {checkpoint} stands at step {step} of {steps}; give a larger --steps to go on")
    elif run.should_stop():
        say(f"stopped at step {step} of {steps}, saved as {checkpoint}; run the same command to go on from there")
        raise KeyboardInterrupt
    return TrainingResult(
        model, checkpoint, step, run.losses, metrics, run.first_step_seconds, trainer.steps_per_second
    )


class _Run:
    """What one run collects while its steps go by, and whether it was asked to stop."""

    def __init__(self, steps: int, on_progress: Callable[[Progress], None] | None, say: Callable[[str], None]):
        self.steps = steps
        self.losses: list[tuple[int, float]] = []
        self.first_step_seconds: float | None = None
        self.started = time.monotonic()
        self.trainer: DetectionTrainer | None = None
        self.stop = threading.Event()
        self._on_progress, self.say = on_progress, say

    def should_stop(self) -> bool:
        return self.stop.is_set()

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


class _EvaluationStopped(Exception):
    """An interrupt came during an evaluation; its checkpoint was written before it began."""


class _Evaluation:
    """Evaluates the model at hand and writes the metrics under `eval/`; traced once for the whole run."""

    def __init__(self, pipeline: Any, folder: Path, trainer: DetectionTrainer, run: _Run):
        from tfod_zoo.evaluation.coco import make_detect_step
        from tfod_zoo.evaluation.pipeline_data import eval_label_map, with_eval_data

        # Both refuse an eval reader without data or label map now, not after the first thousand steps.
        self._pipeline = with_eval_data(pipeline)
        self._label_map = eval_label_map(self._pipeline)
        self._trainer, self._run = trainer, run
        self._detect_step = make_detect_step(trainer.model)
        optimizer = trainer.optimizer
        averaged = pipeline.eval_config.use_moving_averages and isinstance(optimizer, ExponentialMovingAverage)
        self._swap = optimizer.swap_weights if averaged else lambda: None
        reader_name = self._pipeline.eval_input_reader[0].name
        self._summaries = orbit.utils.SummaryManager(
            str(folder / "eval" / reader_name), tf.summary.scalar, global_step=trainer.global_step
        )

    def run(self) -> dict[str, Any]:
        """Metrics of the model as it stands; empty when the run is asked to stop meanwhile."""
        from tfod_zoo.data.input_pipeline import build_dataset
        from tfod_zoo.evaluation.coco import evaluate
        from tfod_zoo.evaluation.pipeline_data import DEFAULT_BATCH_SIZE

        dataset = build_dataset(self._pipeline, training=False, batch_size=DEFAULT_BATCH_SIZE)
        step = int(self._trainer.global_step.numpy())
        self._run.say(f"step {step}: evaluating")
        self._swap()
        try:
            metrics = evaluate(
                self._trainer.model,
                dataset,
                self._label_map,
                detect_step=self._detect_step,
                on_progress=self._stop_if_asked,
            )
        except _EvaluationStopped:
            return {}
        finally:
            self._swap()
        self._summaries.write_summaries({key: value for key, value in metrics.items() if isinstance(value, float)})
        self._summaries.flush()
        self._run.say(f"step {step}: {main_figures(metrics)}")
        return metrics

    def _stop_if_asked(self, images_done: int) -> None:
        if self._run.should_stop():
            raise _EvaluationStopped


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


def _check_batch(pipeline: Any, strategy: tf.distribute.Strategy) -> None:
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


def _step_to_go_on_from(folder: Path, pipeline: Any) -> int | None:
    """The step of the folder's newest checkpoint; None where there is none.

    Raises:
      ZooError: it is no training checkpoint, or the folder belongs to another model.
    """
    newest = tf.train.latest_checkpoint(str(folder)) if folder.is_dir() else None
    if newest is None:
        return None
    config = folder / "pipeline.config"
    if config.is_file() and read_pipeline(config).model != pipeline.model:
        raise ZooError(
            f"{folder} holds the training of another model: its pipeline.config differs from yours in `model`; give "
            "another --model-dir, or the config that is in it."
        )
    key = f"step{SUFFIX}"
    if key not in read_shapes(newest):
        raise ZooError(
            f"{newest} is no training checkpoint (it has no step); give another --model-dir, and this one as "
            "train_config.fine_tune_checkpoint to start from it."
        )
    return int(tf.train.load_checkpoint(newest).get_tensor(key))


def _seed_of_run(folder: Path, seed: int | None, going_on: bool) -> int:
    """The seed given, or the one the run was begun with, which decides where its data go on."""
    notes = folder / "training.json"
    begun = json.loads(notes.read_text())["seed"] if going_on and notes.is_file() else None
    if begun is not None and seed is not None and seed != begun:
        raise UsageError(f"{folder} was begun with seed {begun}, not {seed}; leave --seed out to go on with it.")
    return next((each for each in (seed, begun) if each is not None), 0)


def _write_description(folder: Path, pipeline: Any, seed: int) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_pipeline(pipeline, folder / "pipeline.config")
        (folder / "training.json").write_text(json.dumps({"seed": seed}) + "\n")
    except OSError as error:
        raise ZooError(f"{folder} cannot be written to ({error.strerror}); give another --model-dir.") from error


def _explained(error: NonFiniteLossError, pipeline: Any, seed: int, checkpoint: str | None) -> ZooError:
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
