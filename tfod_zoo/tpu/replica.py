"""One replica of many, traced on a machine that has none of them."""

from __future__ import annotations

from typing import Any

import tensorflow as tf
from tensorflow.compiler.tf2xla.ops import gen_xla_ops
from tensorflow.python.distribute import distribute_lib, one_device_strategy


class OneReplicaOfMany(tf.distribute.Strategy):
    """What is run under it becomes the program of one TPU core among `replicas`, with the exchanges between them.

    As under TPUStrategy, variables are the core's own copies, `num_replicas_in_sync` is the number of cores, and sums
    over replicas (gradients, synchronised batch norm, normalisers) are all-reduces inside the program. It can be
    traced and lowered, never executed: there is nobody to exchange anything with.
    """

    def __init__(self, replicas: int):
        super().__init__(_Extended(self, replicas))


class _Extended(one_device_strategy.OneDeviceExtended):
    def __init__(self, strategy: tf.distribute.Strategy, replicas: int):
        super().__init__(strategy, "/CPU:0")
        self._replicas = replicas

    @property
    def _num_replicas_in_sync(self) -> int:
        return self._replicas

    def _call_for_each_replica(self, fn: Any, args: Any, kwargs: Any) -> Any:
        with distribute_lib.ReplicaContext(self._container_strategy(), gen_xla_ops.xla_replica_id()):
            return fn(*args, **kwargs)

    def _reduce_to(self, reduce_op: Any, value: Any, destinations: Any, options: Any) -> Any:
        del destinations, options
        # What TPUStrategy uses, CrossReplicaSum, TensorFlow lowers for a TPU only; both become an all-reduce.
        total = gen_xla_ops.xla_all_reduce(value, [list(range(self._replicas))], "Add", "CrossReplica")
        return total / self._replicas if reduce_op == tf.distribute.ReduceOp.MEAN else total
