"""What a run would be, tried for a few steps without writing anything: shapes, memory, time a step."""

from __future__ import annotations

import resource
import time
from collections.abc import Callable, Iterator
from typing import Any

import tensorflow as tf
import tf_keras

from tfod_zoo.training.devices import described, device_kind
from tfod_zoo.training.precision import choose_precision
from tfod_zoo.training.progress import spoken_duration
from tfod_zoo.training.run import batch_too_large, check_batch, make_trainer
from tfod_zoo.training.task import TOTAL_LOSS, DetectionTask

_STEPS = 4  # timed; their median is not moved by one that others disturb
_GIB = 2**30


class _Quiet:
    """A run that shows nothing and never stops."""

    def on_step(self, step: int, loss: float) -> None:
        pass

    def should_stop(self) -> bool:
        return False


def dry_run(
    pipeline: Any,
    strategy: tf.distribute.Strategy,
    *,
    steps: int,
    precision: str | None = None,
    sync_batch_norm: bool = False,
    xla: bool = False,
    recompute: bool = False,
    say: Callable[[str], None] = print,
) -> None:
    """Builds everything, trains a few steps on the config's data from random weights, and says what that took.

    Args:
      steps: of the run that is being considered. The others are those of `tfod_zoo.training.run.train`.

    Raises:
      UsageError, ZooError: as the run itself would at its beginning.
      DoesNotFitError: the batch does not fit into the device's memory.
    """
    check_batch(pipeline, strategy)
    precision = choose_precision(precision, pipeline.train_config.use_bfloat16, device_kind(strategy), say)
    tf_keras.utils.set_random_seed(0)
    task = DetectionTask(pipeline, precision=precision, sync_batch_norm=sync_batch_norm, xla=xla, say=say)
    with strategy.scope():
        trainer = make_trainer(task, pipeline, recompute=recompute, run=_Quiet(), restore_from=None)
        for line in _sizes(trainer.model, pipeline, strategy, precision):
            say(line)
        iterator = iter(trainer.train_dataset)
        step_fn = tf.function(trainer.train_step, autograph=False)
        durations, losses = [], []
        try:
            for _ in range(1 + _STEPS):
                started = time.monotonic()
                loss, _ = step_fn(iterator)
                losses.append(float(loss[TOTAL_LOSS]))
                durations.append(time.monotonic() - started)
        except tf.errors.ResourceExhaustedError as error:
            raise batch_too_large(pipeline, strategy, 0) from error
    first, each = durations[0], sorted(durations[1:])[_STEPS // 2]
    say(f"first step {first:.1f} s with tracing, then {each:.2f} s a step; memory at its peak {_memory(strategy)}")
    say(f"losses {', '.join(f'{loss:.3g}' for loss in losses)}")
    say(f"{steps} steps would take about {spoken_duration(first + each * steps)}; nothing was written")


def _sizes(model: Any, pipeline: Any, strategy: tf.distribute.Strategy, precision: str) -> Iterator[str]:
    config = pipeline.train_config
    batch, replicas = config.batch_size, strategy.num_replicas_in_sync
    height, width = model.input_shape_hw
    learning = sum(variable.shape.num_elements() for variable in model.trainable_variables)
    fixed = sum(variable.shape.num_elements() for variable in model.variables) - learning
    kind = config.optimizer.WhichOneof("optimizer") or "none"
    schedule = getattr(config.optimizer, kind).learning_rate.WhichOneof("learning_rate") if kind != "none" else "none"
    share = f", {batch // replicas} on each" if replicas > 1 else ""
    yield f"images [{batch}, {height}, {width}, 3] {precision} on {described(strategy)}{share}"
    boxes, keypoints = pipeline.train_input_reader.max_number_of_boxes, pipeline.train_input_reader.num_keypoints
    yield f"ground truth: up to {boxes} boxes an image" + (f" with {keypoints} keypoints" if keypoints else "")
    yield f"{learning / 1e6:.2f} million parameters that learn, {fixed / 1e6:.2f} million others"
    steps = [step.WhichOneof("preprocessing_step") for step in config.data_augmentation_options]
    yield f"augmentation: {', '.join(step for step in steps if step) or 'none'}"
    yield f"{kind}, {schedule}" + (
        f", gradients clipped to {config.gradient_clipping_by_norm:g}" if config.gradient_clipping_by_norm else ""
    )


def _memory(strategy: tf.distribute.Strategy) -> str:
    host = f"{resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / _GIB:.1f} GiB of the host"  # Linux: KiB
    if device_kind(strategy) != "GPU":
        return host
    return f"{tf.config.experimental.get_memory_info('GPU:0')['peak'] / _GIB:.1f} GiB of a GPU, {host}"


