"""Detection as a Model Garden task: the model, its data and one train step (pipeline spec §7)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import tensorflow as tf
import tf_keras

from tfod_zoo.data.errors import DataProblems
from tfod_zoo.modeling.factory import build
from tfod_zoo.training import precision as mixed
from tfod_zoo.training import trainable
from tfod_zoo.training.batch_norm import BatchNormRamp, synchronize_batch_norm
from tfod_zoo.training.fine_tune import FineTune
from tfod_zoo.training.model_garden import base_task

TOTAL_LOSS = "Loss/total_loss"
# What a train step reads; the rest (ids, original sizes) are strings and facts that no accelerator could use.
_STEP_FEATURES = ("image", "true_image_shape")

Tensors = dict[str, tf.Tensor]


class DetectionTask(base_task.Task):
    """Trains the detector of a pipeline config.

    Args:
      pipeline: TrainEvalPipelineConfig message; it is also the task's `task_config`.
      seed: of the data's order and augmentation.
      start_step: global step at which the data begin, for a run that goes on.
      fine_tune: the checkpoint that a new run starts from.
      precision: what the network computes in: float32, bfloat16 or float16; its variables are float32 always.
      sync_batch_norm: batch norm sees the global batch, not each replica its share.
      xla: compile the forward and the backward pass with XLA. The update stays outside: adding gradients up over
        replicas cannot be compiled, and it is elementwise anyway.
      say: takes one line for the user.

    Attributes:
      precision: as given.
      problems: what was wrong with single training records so far.
    """

    loss = TOTAL_LOSS

    def __init__(
        self,
        pipeline: Any,
        *,
        seed: int = 0,
        start_step: int = 0,
        fine_tune: FineTune | None = None,
        precision: str = "float32",
        sync_batch_norm: bool = False,
        xla: bool = False,
        say: Callable[[str], None] = print,
    ):
        super().__init__(params=pipeline)
        self._seed, self._start_step = seed, start_step
        self._fine_tune, self._say = fine_tune, say
        self.precision, self._sync_batch_norm = precision, sync_batch_norm
        self._ramp: BatchNormRamp | None = None
        self._learning: list[tf.Variable] = []
        self.problems = DataProblems()
        compute = self._losses_and_gradients
        self._gradients = tf.function(compute, jit_compile=True, autograph=False) if xla else compute

    def build_model(self) -> tf_keras.Model:
        """The detector with random weights; its variables belong to the strategy in scope."""
        with mixed.policy(self.precision):
            model = build(self.task_config, training=True)
        synchronize_batch_norm(model, every_layer=self._sync_batch_norm)
        trainable.apply_freezing(model, self.task_config.train_config)
        return model

    def initialize(self, model: tf_keras.Model) -> None:
        """Restores `train_config.fine_tune_checkpoint`, if any, and says what was and was not restored."""
        if self._fine_tune is None:
            self._say("starting from random weights")
            return
        report = model.restore_checkpoint(self._fine_tune.checkpoint, mode=self._fine_tune.mode)
        self._say(report.summary())

    def build_inputs(
        self, params: Any = None, input_context: tf.distribute.InputContext | None = None
    ) -> tf.data.Dataset:
        """Endless batches of (features, groundtruth) for a host, from where `start_step` left off.

        Args:
          params: a pipeline to read the data of, instead of the task's own.
          input_context: which host this is, and how many replicas share a global batch.
        """
        from tfod_zoo.data.input_pipeline import build_dataset

        pipeline = params if params is not None else self.task_config
        dataset = build_dataset(
            pipeline,
            training=True,
            seed=self._seed,
            skip_examples=self._start_step * pipeline.train_config.batch_size,
            input_context=input_context,
            problems=self.problems,
        )
        return dataset.map(lambda features, truth: ({key: features[key] for key in _STEP_FEATURES}, truth))

    def train_step(
        self,
        inputs: tuple[Tensors, Tensors],
        model: tf_keras.Model,
        optimizer: tf_keras.optimizers.legacy.Optimizer,
        metrics: Any = None,
    ) -> Tensors:
        """One update from one replica's share of a batch.

        Returns:
          The losses under TFOD's keys and their sum as `Loss/total_loss`, each divided by the number of replicas, so
          that adding them up over the replicas gives the mean.
        """
        del metrics
        if self._ramp is None or self._ramp.model is not model:
            self._ramp = BatchNormRamp(model)
            self._learning = trainable.apply_freezing(model, self.task_config.train_config)
        features, groundtruth = inputs
        features = {key: features[key] for key in _STEP_FEATURES}
        groundtruth = {**groundtruth, "sampling_seed": self._sampling_seeds(features["image"], optimizer.iterations)}
        losses, gradients = self._gradients(features, groundtruth, model, optimizer)
        # A variable that no loss depends on (the last batch norm of a ResNet V2 trunk) has no gradient.
        pairs = [
            (gradient, variable)
            for gradient, variable in zip(gradients, self._learning, strict=True)
            if gradient is not None
        ]
        optimizer.apply_gradients(self._clipped(self._slowed_biases(pairs, model)))
        return losses

    def _sampling_seeds(self, images: tf.Tensor, step: tf.Tensor) -> tf.Tensor:
        """`[B, 2]` int32: a seed for every image of the run, whichever replica gets it and wherever the run resumed."""
        replicas = tf.distribute.get_strategy().num_replicas_in_sync
        context = tf.distribute.get_replica_context()
        # Several workers' batches come without a static size; they are always whole ones.
        share = images.shape[0] or self.task_config.train_config.batch_size // replicas
        first = (tf.cast(step, tf.int32) * replicas + context.replica_id_in_sync_group) * share
        return tf.stack([tf.fill([share], self._seed % 2**31), first + tf.range(share)], -1)

    def _slowed_biases(self, pairs: list[Any], model: tf_keras.Model) -> list[Any]:
        """Pairs of gradient and variable with `bias_grad_multiplier` applied, which TFOD reads for TF1 only."""
        factor = self.task_config.train_config.bias_grad_multiplier
        if factor <= 0:
            return pairs
        biases = trainable.biases(model)
        return [
            (gradient * factor if id(variable) in biases else gradient, variable) for gradient, variable in pairs
        ]

    def _clipped(self, pairs: list[Any]) -> list[Any]:
        """Pairs of gradient and variable after `gradient_clipping_by_norm`, which limits the global batch's gradient.

        TFOD limits each replica's share before they are added up (spec §7.3), so that more replicas clip less; with
        one replica both are the same.
        """
        limit = self.task_config.train_config.gradient_clipping_by_norm
        if limit <= 0:
            return pairs
        gradients = [gradient for gradient, _ in pairs]
        replicas = tf.distribute.get_strategy().num_replicas_in_sync
        if replicas > 1:
            # The optimizer adds up what the replicas give it: here each gives the same, a part of the clipped whole.
            gradients = tf.distribute.get_replica_context().all_reduce(tf.distribute.ReduceOp.MEAN, gradients)
        clipped, _ = tf.clip_by_global_norm(gradients, limit / replicas)
        return [(gradient, variable) for gradient, (_, variable) in zip(clipped, pairs, strict=True)]

    def compute_losses(
        self, model: tf_keras.Model, inputs: tf.Tensor, true_image_shapes: tf.Tensor, groundtruth: Tensors
    ) -> Tensors:
        """The losses that training minimises the sum of, under TFOD's keys, from normalised inputs `[B, H, W, 3]`."""
        predictions = mixed.as_float32(model(inputs, true_image_shapes, training=True, groundtruth=groundtruth))
        return model.compute_losses(predictions, groundtruth, true_image_shapes)

    def _losses_and_gradients(
        self, features: Tensors, groundtruth: Tensors, model: Any, optimizer: Any
    ) -> tuple[Tensors, list[tf.Tensor | None]]:
        replicas = tf.distribute.get_strategy().num_replicas_in_sync
        assert self._ramp is not None
        with tf.GradientTape() as tape, self._ramp.at(optimizer.iterations):
            inputs = model.normalize(features["image"])
            losses = self.compute_losses(model, inputs, features["true_image_shape"], groundtruth)
            losses = {key: value / replicas for key, value in losses.items()}
            # Not tf.add_n, which begins with whichever term's buffer is free: another order, another rounding.
            total = tf.reduce_sum(tf.stack(list(losses.values())))
            scaled = optimizer.get_scaled_loss(total) if mixed.scales_loss(optimizer) else total
        gradients = tape.gradient(scaled, self._learning)
        if mixed.scales_loss(optimizer):
            gradients = optimizer.get_unscaled_gradients(gradients)
        return {**losses, TOTAL_LOSS: total}, gradients
