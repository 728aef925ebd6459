"""Batch-norm averages that are true at any length of training."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import tensorflow as tf
import tf_keras

# The ramp of tf.train.ExponentialMovingAverage(num_updates=...), which TFOD uses for its moving average of weights.
_RAMP_START, _RAMP_LENGTH = 1.0, 10.0


def ramped_momentum(configured: float, step: tf.Tensor) -> tf.Tensor:
    """The momentum in effect at `step` (updates done before this one): min(configured, (1 + step) / (10 + step))."""
    step = tf.cast(step, tf.float32)
    return tf.minimum(tf.constant(configured, tf.float32), (_RAMP_START + step) / (_RAMP_LENGTH + step))


class BatchNormRamp:
    """Lets a model's moving means and variances forget where they started as fast as training moves on.

    A layer whose momentum is 0.9997, as in the zoo's MobileNetV2 configs, keeps 0.9997^4800, a quarter, of its initial
    mean of 0 and variance of 1 after 4,800 steps. Training normalises by the batch and does not notice; evaluation
    normalises by the averages and finds next to nothing, though the loss fell. So the momentum in effect at step t is
    min(configured, (1 + t) / (10 + t)): the average always covers about the last tenth of the training behind it, the
    initial value weighs 0.1 after one step and under 1e-12 after a hundred, and from step 9 / (1 - configured) on
    (30,000 for 0.9997) the configured momentum rules, so that published recipes average what they always did.
    """

    def __init__(self, model: tf_keras.Model):
        self.model = model
        normalisations = (
            layer for layer in model.submodules if isinstance(layer, tf_keras.layers.BatchNormalization)
        )
        # Kept from before any step: under several replicas one trace can begin inside another's, where a layer's
        # momentum is already a tensor.
        self._configured = [(layer, float(layer.momentum)) for layer in normalisations]

    @contextmanager
    def at(self, step: tf.Tensor) -> Iterator[None]:
        """Inside, every batch-norm layer averages with its momentum for `step`; afterwards with its configured one.

        A traced train step keeps the tensor, and with it the ramp; anything traced outside sees the plain float.
        """
        values = {configured: ramped_momentum(configured, step) for _, configured in self._configured}
        try:
            for layer, configured in self._configured:
                layer.momentum = values[configured]
            yield
        finally:
            for layer, configured in self._configured:
                layer.momentum = configured
