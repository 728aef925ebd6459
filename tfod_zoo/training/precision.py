"""Mixed precision: networks in 16 bits over float32 variables, losses and box arithmetic in float32."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import tensorflow as tf
import tf_keras

from tfod_zoo.errors import UsageError

PRECISIONS = ("float32", "bfloat16", "float16")
_FIRST_GPU_WITH_BFLOAT16 = 8  # major compute capability, of the A100's generation


def choose_precision(asked: str | None, use_bfloat16: bool, device: str, say: Callable[[str], None]) -> str:
    """The precision to train in.

    Args:
      asked: one of `PRECISIONS`; None for what the config says, where the device computes in it.
      use_bfloat16: the config's.
      device: "CPU", "GPU" or "TPU".
      say: takes a line where the config's word is not followed.

    Raises:
      UsageError: no such precision, or one that the device does not compute in.
    """
    if asked is not None and asked not in PRECISIONS:
        raise UsageError(f'there is no precision "{asked}"; give one of {", ".join(PRECISIONS)}.')
    if asked == "float16" and device != "GPU":
        raise UsageError(
            f"float16 is of GPUs and hundreds of times slower on this {device}; give --precision bfloat16 or float32."
        )
    if asked is not None:
        return asked
    if not use_bfloat16:
        return "float32"
    if device == "TPU" or (device == "GPU" and _gpu_has_bfloat16()):
        return "bfloat16"
    say(f"use_bfloat16 is for TPUs and GPUs that compute in it: float32 on this {device} (or --precision bfloat16)")
    return "float32"


def _gpu_has_bfloat16() -> bool:
    for gpu in tf.config.list_physical_devices("GPU"):
        major, _ = tf.config.experimental.get_device_details(gpu).get("compute_capability", (0, 0))
        if major < _FIRST_GPU_WITH_BFLOAT16:
            return False
    return True


@contextmanager
def policy(precision: str) -> Iterator[None]:
    """Inside, layers are made with the policy of a precision; afterwards with the one before."""
    before = tf_keras.mixed_precision.global_policy()
    tf_keras.mixed_precision.set_global_policy("float32" if precision == "float32" else f"mixed_{precision}")
    try:
        yield
    finally:
        tf_keras.mixed_precision.set_global_policy(before)


def with_loss_scale(optimizer: Any, precision: str) -> Any:
    """The optimizer, for float16 with a loss scale that adapts itself, so that small gradients do not become zero."""
    return tf_keras.mixed_precision.LossScaleOptimizer(optimizer) if precision == "float16" else optimizer


def without_loss_scale(optimizer: Any) -> Any:
    """The optimizer inside `with_loss_scale`."""
    return optimizer.inner_optimizer if scales_loss(optimizer) else optimizer


def scales_loss(optimizer: Any) -> bool:
    """Whether the optimizer takes a scaled loss's gradients."""
    return isinstance(optimizer, tf_keras.mixed_precision.LossScaleOptimizer)


def as_float32(tensors: Any) -> Any:
    """A structure of tensors with those of 16 bits cast to float32."""

    def cast(tensor: Any) -> Any:
        return tf.cast(tensor, tf.float32) if tensor.dtype in (tf.float16, tf.bfloat16) else tensor

    return tf.nest.map_structure(cast, tensors)
