"""The optimizer and the learning rate of a pipeline config, as tf_keras objects (pipeline spec §6)."""

from __future__ import annotations

import math
from typing import Any

import tensorflow as tf
import tf_keras

from tfod_zoo.errors import ZooError

# Adam's decay rates are Keras's defaults; TFOD's schema has no field for them.
_ADAM_BETA_1, _ADAM_BETA_2 = 0.9, 0.999
# TFOD never sets RMSprop's own averaging rate, so that it stays at Keras's default.
_RMSPROP_RHO = 0.9


class Constant(tf_keras.optimizers.schedules.LearningRateSchedule):
    """The same learning rate at every step."""

    def __init__(self, learning_rate: float):
        self.learning_rate = learning_rate

    def __call__(self, step: Any) -> tf.Tensor:
        return tf.constant(self.learning_rate, tf.float32)

    def get_config(self) -> dict[str, Any]:
        return {"learning_rate": self.learning_rate}


class CosineWithWarmup(tf_keras.optimizers.schedules.LearningRateSchedule):
    """A line from `warmup_rate` to `base`, `base` held for a while, then half a cosine down to 0 at `total_steps`.

    Raises:
        ZooError: the schedule ends before its warm-up does, or would warm up to a lower rate.
    """

    def __init__(self, base: float, total_steps: int, warmup_rate: float, warmup_steps: int, hold_steps: int = 0):
        if total_steps < warmup_steps:
            raise ZooError(
                f"cosine_decay_learning_rate: total_steps ({total_steps}) is below warmup_steps ({warmup_steps}); "
                "shorten the warm-up or train longer."
            )
        if warmup_steps and base < warmup_rate:
            raise ZooError(
                f"cosine_decay_learning_rate: learning_rate_base ({base:g}) is below warmup_learning_rate "
                f"({warmup_rate:g}); a warm-up must rise."
            )
        self.base, self.total_steps = base, total_steps
        self.warmup_rate, self.warmup_steps, self.hold_steps = warmup_rate, warmup_steps, hold_steps

    def __call__(self, step: Any) -> tf.Tensor:
        step = tf.cast(step, tf.float32)
        flat_until = float(self.warmup_steps + self.hold_steps)
        # A schedule that is all warm-up and hold has no cosine to speak of; 1 keeps the division defined.
        falling_steps = max(self.total_steps - flat_until, 1.0)
        rate = 0.5 * self.base * (1.0 + tf.cos(math.pi * (step - flat_until) / falling_steps))
        if self.hold_steps:
            rate = tf.where(step <= flat_until, self.base, rate)
        if self.warmup_steps:
            line = self.warmup_rate + (self.base - self.warmup_rate) / self.warmup_steps * step
            rate = tf.where(step < float(self.warmup_steps), line, rate)
        return tf.where(step > float(self.total_steps), 0.0, rate)

    def get_config(self) -> dict[str, Any]:
        return {
            "base": self.base,
            "total_steps": self.total_steps,
            "warmup_rate": self.warmup_rate,
            "warmup_steps": self.warmup_steps,
            "hold_steps": self.hold_steps,
        }


class ManualSteps(tf_keras.optimizers.schedules.LearningRateSchedule):
    """Rate `rates[i + 1]` from step `boundaries[i]` on; `rates[0]` before, or a line to `rates[1]` with `warmup`.

    Raises:
        ZooError: boundaries that do not rise, or a first one at step 0.
    """

    def __init__(self, boundaries: list[int], rates: list[float], warmup: bool = False):
        if any(later <= earlier for earlier, later in zip([0, *boundaries], boundaries, strict=False)):
            raise ZooError(
                f"manual_step_learning_rate: the steps of its schedule are {boundaries}; they must be over 0 and rise."
            )
        self.boundaries, self.rates, self.warmup = boundaries, rates, warmup

    def __call__(self, step: Any) -> tf.Tensor:
        step = tf.cast(step, tf.float32)
        passed = tf.reduce_sum(tf.cast(step >= tf.constant(self.boundaries, tf.float32), tf.int32))
        rate = tf.gather(tf.constant(self.rates, tf.float32), passed)
        if self.warmup and self.boundaries:
            slope = (self.rates[1] - self.rates[0]) / self.boundaries[0]
            rate = tf.where(step < float(self.boundaries[0]), self.rates[0] + slope * step, rate)
        return rate

    def get_config(self) -> dict[str, Any]:
        return {"boundaries": self.boundaries, "rates": self.rates, "warmup": self.warmup}


class ExponentialWithBurnin(tf_keras.optimizers.schedules.LearningRateSchedule):
    """`burnin_rate` (0: `initial`) for `burnin_steps`, then `initial` times `factor` every `decay_steps`, never under
    `minimum`; by whole steps of the staircase, or smoothly."""

    def __init__(
        self,
        initial: float,
        decay_steps: int,
        factor: float,
        staircase: bool = True,
        burnin_rate: float = 0.0,
        burnin_steps: int = 0,
        minimum: float = 0.0,
    ):
        if decay_steps <= 0:
            raise ZooError("exponential_decay_learning_rate: decay_steps is 0; give the steps between two decays.")
        self.initial, self.decay_steps, self.factor, self.staircase = initial, decay_steps, factor, staircase
        self.burnin_rate, self.burnin_steps, self.minimum = burnin_rate, burnin_steps, minimum

    def __call__(self, step: Any) -> tf.Tensor:
        step = tf.cast(step, tf.float32)
        decays = (step - float(self.burnin_steps)) / float(self.decay_steps)
        if self.staircase:
            decays = tf.floor(decays)
        rate = self.initial * tf.pow(tf.constant(self.factor, tf.float32), decays)
        rate = tf.where(step < float(self.burnin_steps), self.burnin_rate or self.initial, rate)
        return tf.maximum(rate, self.minimum)

    def get_config(self) -> dict[str, Any]:
        return {
            "initial": self.initial,
            "decay_steps": self.decay_steps,
            "factor": self.factor,
            "staircase": self.staircase,
            "burnin_rate": self.burnin_rate,
            "burnin_steps": self.burnin_steps,
            "minimum": self.minimum,
        }


def build_schedule(message: Any) -> tf_keras.optimizers.schedules.LearningRateSchedule:
    """The schedule of a `LearningRate` message: a function of the global step before its increment.

    Raises:
        ZooError: the message names no schedule, or one that cannot be.
    """
    kind = message.WhichOneof("learning_rate")
    if kind == "constant_learning_rate":
        return Constant(message.constant_learning_rate.learning_rate)
    if kind == "cosine_decay_learning_rate":
        cosine = message.cosine_decay_learning_rate
        return CosineWithWarmup(
            cosine.learning_rate_base,
            cosine.total_steps,
            cosine.warmup_learning_rate,
            cosine.warmup_steps,
            cosine.hold_base_rate_steps,
        )
    if kind == "manual_step_learning_rate":
        manual = message.manual_step_learning_rate
        return ManualSteps(
            [entry.step for entry in manual.schedule],
            [manual.initial_learning_rate, *(entry.learning_rate for entry in manual.schedule)],
            manual.warmup,
        )
    if kind == "exponential_decay_learning_rate":
        exponential = message.exponential_decay_learning_rate
        return ExponentialWithBurnin(
            exponential.initial_learning_rate,
            exponential.decay_steps,
            exponential.decay_factor,
            exponential.staircase,
            exponential.burnin_learning_rate,
            exponential.burnin_steps,
            exponential.min_learning_rate,
        )
    raise ZooError("train_config.optimizer has no learning_rate; add for example constant_learning_rate { }.")


def build_optimizer(message: Any) -> tf_keras.optimizers.legacy.Optimizer:
    """The optimizer of an `Optimizer` message, with its schedule and, when asked for, a moving average of the weights.

    The legacy classes are the ones whose checkpoints have TFOD's keys (`.OPTIMIZER_SLOT/optimizer/m`), and the only
    ones Model Garden's moving average wraps.

    `rms_prop_optimizer.decay` divides the learning rate by `1 + decay * step` instead of averaging the squares, which
    is what TFOD's TF2 loop does with it: a config that was tuned there trains the same here.

    Raises:
        ZooError: no optimizer is named, or its schedule cannot be.
    """
    kind = message.WhichOneof("optimizer")
    legacy = tf_keras.optimizers.legacy
    if kind is None:
        raise ZooError("train_config has no optimizer; add adam_optimizer, momentum_optimizer or rms_prop_optimizer.")
    settings = getattr(message, kind)
    schedule = build_schedule(settings.learning_rate)
    if kind == "momentum_optimizer":
        optimizer = legacy.SGD(schedule, momentum=settings.momentum_optimizer_value)
    elif kind == "adam_optimizer":
        optimizer = legacy.Adam(schedule, _ADAM_BETA_1, _ADAM_BETA_2, settings.epsilon)
    else:
        optimizer = legacy.RMSprop(
            schedule, _RMSPROP_RHO, settings.momentum_optimizer_value, settings.epsilon, decay=settings.decay
        )
    if not message.use_moving_average:
        return optimizer
    # Its decay at step t is min(decay, (1 + t) / (10 + t)) and its shadows start at zero, as in TFOD.
    from tfod_zoo.training.model_garden import ExponentialMovingAverage

    return ExponentialMovingAverage(optimizer, average_decay=message.moving_average_decay)


def schedule_end(message: Any) -> int | None:
    """The step after which a cosine schedule's rate is 0, so that going on would change nothing; None for others."""
    kind = message.WhichOneof("optimizer")
    rate = getattr(message, kind).learning_rate if kind else None
    if rate is None or rate.WhichOneof("learning_rate") != "cosine_decay_learning_rate":
        return None
    return int(rate.cosine_decay_learning_rate.total_steps)
