"""What the whole run needs: memory that does not grow with every network that a test builds."""

import gc
import sys

import pytest


@pytest.fixture(scope="module", autouse=True)
def forget_gradients():
    """TensorFlow registers every use of `tf.custom_gradient` in a graph for ever, and with it the graph and its
    variables: without this a run of all tests takes more than 24 GB."""
    yield
    if "tensorflow" not in sys.modules:
        return
    from tensorflow.python.framework import ops

    registered = ops.gradient_registry._registry
    for name in [name for name in registered if name.startswith("CustomGradient-")]:
        del registered[name]
    gc.collect()
