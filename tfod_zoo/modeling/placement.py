"""Where the operations that are being built will run, for the few that have a form of their own there."""

import contextlib
from collections.abc import Iterator

import tensorflow as tf
from tf_keras.src.utils.control_flow_util import GraphOrParentsInXlaContext

_elsewhere = False


def compiled_by_xla() -> bool:
    """Whether XLA compiles what is being built, as it does for every TPU."""
    return GraphOrParentsInXlaContext(tf.compat.v1.get_default_graph())


def on_plain_cpu() -> bool:
    """Whether TensorFlow's own CPU kernels run what is being built."""
    return not _elsewhere and not compiled_by_xla() and not tf.config.get_visible_devices("GPU")


def in_another_runtime() -> bool:
    """Whether what is being built will be converted: other runtimes know convolutions better than their products."""
    return _elsewhere


@contextlib.contextmanager
def for_another_runtime() -> Iterator[None]:
    """What is traced within is for a converter, not for TensorFlow."""
    global _elsewhere
    before, _elsewhere = _elsewhere, True
    try:
        yield
    finally:
        _elsewhere = before
