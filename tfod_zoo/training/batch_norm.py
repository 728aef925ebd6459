"""Batch norm in training: averages that are true at any length of it, and statistics of the global batch."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

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
        self._inside = 0

    @contextmanager
    def at(self, step: tf.Tensor) -> Iterator[None]:
        """Inside, every batch-norm layer averages with its momentum for `step`; afterwards with its configured one.

        A traced train step keeps the tensor, and with it the ramp; anything traced outside sees the plain float.
        """
        values = {configured: ramped_momentum(configured, step) for _, configured in self._configured}
        # Replicas are traced by turns: whoever leaves first must not take the momentum from those still inside.
        self._inside += 1
        try:
            for layer, configured in self._configured:
                layer.momentum = values[configured]
            yield
        finally:
            self._inside -= 1
            if not self._inside:
                for layer, configured in self._configured:
                    layer.momentum = configured


def synchronize_batch_norm(model: tf_keras.Model, every_layer: bool) -> None:
    """Lets batch norm in training see the global batch instead of each replica its share; before the first step.

    Two replicas then give what one gives to rounding, which tf_keras's synchronised layers alone miss by more, since
    they take a variance from a sum of squares. With one replica there is nothing to do.

    Args:
      every_layer: False for those layers that are made synchronised (an hourglass's), True for the others, too.
    """
    if tf.distribute.get_strategy().num_replicas_in_sync == 1:
        return
    for layer in model.submodules:
        if not isinstance(layer, tf_keras.layers.BatchNormalization) or not (every_layer or layer.synchronized):
            continue
        layer._calculate_mean_and_var = functools.partial(_global_moments, layer)
        if not layer.synchronized:
            layer.fused = False  # the fused kernel takes its own statistics
            layer._assign_moving_average = functools.partial(_average_unbiased, layer)


def _global_moments(
    layer: Any, inputs: tf.Tensor, axes: list[int], keep_dims: bool, mask: None = None
) -> tuple[tf.Tensor, tf.Tensor]:
    """Mean and variance of a float32 batch over all replicas, whose shares are of one size; see tf_keras's method."""
    mean, variance = tf.nn.moments(inputs, axes, keepdims=keep_dims)
    replicas = tf.distribute.get_strategy().num_replicas_in_sync
    layer.global_samples = tf.size(inputs) // tf.size(mean) * replicas
    context = tf.distribute.get_replica_context()
    if context is None:  # nothing is trained there
        return mean, variance
    # Every replica's row of a table, which is a sum where all other rows are zero: one exchange, for whose gradient
    # every strategy knows a way.
    row = tf.one_hot(context.replica_id_in_sync_group, replicas)
    moments = tf.stack([mean, variance])
    table = context.all_reduce(tf.distribute.ReduceOp.SUM, tf.tensordot(row, moments, axes=0))
    means, variances = table[:, 0], table[:, 1]
    mean = tf.reduce_mean(means, 0)
    return mean, tf.reduce_mean(variances + tf.math.squared_difference(means, mean), 0)


def _average_unbiased(layer: Any, variable: tf.Variable, value: tf.Tensor, momentum: Any, inputs_size: Any) -> Any:
    """tf_keras's method, with the variance that the fused kernel averages, n / (n - 1) times the batch's."""
    if variable is layer.moving_variance:
        samples = tf.cast(layer.global_samples, value.dtype)
        value *= samples / tf.maximum(samples - 1.0, 1.0)
    return type(layer)._assign_moving_average(layer, variable, value, momentum, inputs_size)
