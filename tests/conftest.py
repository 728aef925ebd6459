"""What the whole run needs: the same random examples each time, and memory that does not grow with every network."""

import gc
import sys

import pytest
from hypothesis import settings

# A run that passes here passes elsewhere; `--hypothesis-profile default` looks for examples that nobody has seen.
settings.register_profile("same", derandomize=True)
settings.load_profile("same")


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
