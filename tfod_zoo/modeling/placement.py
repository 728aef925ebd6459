"""Where the operations that are being built will run, for the few that have a form of their own there."""

import tensorflow as tf
from tf_keras.src.utils.control_flow_util import GraphOrParentsInXlaContext


def compiled_by_xla() -> bool:
    """Whether XLA compiles what is being built, as it does for every TPU."""
    return GraphOrParentsInXlaContext(tf.compat.v1.get_default_graph())


def on_plain_cpu() -> bool:
    """Whether TensorFlow's own CPU kernels run what is being built."""
    return not compiled_by_xla() and not tf.config.get_visible_devices("GPU")
