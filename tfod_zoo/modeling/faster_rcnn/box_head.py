"""The second stage's two outputs: a class and a refined box of every proposal (spec, section 12)."""

import tensorflow as tf
import tf_keras

from tfod_zoo.modeling import checkpoint


class BoxHead(tf_keras.layers.Layer):
    """Two dense layers on the mean over a crop's cells.

    They start as Keras has it: TFOD reads the config's `fc_hyperparams` and does not apply them (spec, trap 13).

    Args:
      num_classes: without background.
      shared: one box for all classes instead of one per class (`share_box_across_classes`).
    """

    def __init__(self, num_classes: int, shared: bool, **kwargs):
        super().__init__(**kwargs)
        self._boxes = 1 if shared else num_classes
        self.box = tf_keras.layers.Dense(4 * self._boxes, name="box")
        self.classes = tf_keras.layers.Dense(num_classes + 1, name="classes")

    def call(self, features: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """`[N, h, w, D]` -> codes `[N, 1 or num_classes, 4]`; logits `[N, num_classes + 1]`, background first."""
        return self.of_mean(tf.reduce_mean(features, [1, 2]))

    def of_mean(self, mean: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """`call` from a crop's mean over its cells `[N, D]` on."""
        return tf.reshape(self.box(mean), [-1, self._boxes, 4]), self.classes(mean)

    def tfod_trees(self) -> dict:
        """The head under TFOD's attribute names; in its lists of layers a flattening comes first."""
        return {
            "_mask_rcnn_box_predictor": checkpoint.tree(
                _box_prediction_head=checkpoint.tree(_box_encoder_layers=checkpoint.tree(**{"1": self.box})),
                _class_prediction_head=checkpoint.tree(_class_predictor_layers=checkpoint.tree(**{"1": self.classes})),
            )
        }
