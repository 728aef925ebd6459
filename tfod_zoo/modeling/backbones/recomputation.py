"""Gradient checkpointing: a block's inner values are computed again for its gradient instead of being kept.

Chen et al., "Training deep nets with sublinear memory cost", arXiv:1604.06174.
"""

from collections.abc import Callable

import tensorflow as tf
import tf_keras


def recomputed(
    layer: tf_keras.layers.Layer, function: Callable[[tf.Tensor], tf.Tensor], inputs: tf.Tensor
) -> tf.Tensor:
    """`function(inputs)` in training mode, keeping only `inputs` for the gradient.

    Unlike `tf.recompute_grad`, batch norms of `layer` move their averages once a step, not twice: values, gradients and
    averages equal those of the plain call.

    Args:
      layer: the built layer whose variables `function` uses.
      function: one float tensor to one float tensor; run twice a step.
      inputs: its argument.
    """

    @tf.custom_gradient
    def run(x):
        def gradient(upstream, variables=()):
            # A sum with a zero that comes from the upstream gradient: no compiler can merge the second run with the
            # first and so keep the first one's values, and it cannot start early.
            first = tf.reshape(upstream, [-1])[0]
            again = x + tf.cast(tf.where(tf.math.is_nan(first), first, tf.zeros_like(first)), x.dtype)
            averages = [(variable, tf.identity(variable)) for variable in layer.non_trainable_variables]
            with tf.GradientTape(watch_accessed_variables=False) as tape:
                tape.watch([again, *variables])
                outputs = function(again)
            for variable, value in averages:
                variable.assign(value)  # as the first run left them
            down, own = tape.gradient(outputs, (again, list(variables)), output_gradients=upstream)
            return (down, own) if variables else down

        return function(x), gradient

    return run(inputs)
