"""What a global batch means where several replicas share it."""

import tensorflow as tf


def global_normalizer(count: tf.Tensor) -> tf.Tensor:
    """What a replica's summed loss is divided by, so that the mean over the replicas is the loss of the global batch.

    Args:
      count: float32 scalar, how many elements of this replica's share of the batch the loss is a sum over. No gradient
        flows through it.

    Returns:
      The count of all replicas together, at least 1, divided by their number; with one replica, max(count, 1).
    """
    context = tf.distribute.get_replica_context()
    replicas = tf.distribute.get_strategy().num_replicas_in_sync
    if context is None or replicas == 1:
        return tf.maximum(count, 1.0)
    return tf.maximum(context.all_reduce(tf.distribute.ReduceOp.SUM, tf.stop_gradient(count)), 1.0) / replicas
