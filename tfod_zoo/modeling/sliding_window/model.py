"""Detection by classification: a sliding window over an image pyramid, and a network that says what it shows.

No box is moved or proposed: what a region proposal network or centre points add is what this lacks. It is written as a
`model.faster_rcnn` of the feature extractor `sliding_window_resnet50`, whose first stage is the fixed grid of windows.
The config's

    first_stage_anchor_generator      the windows; see `pyramid.build_pyramid`
    initial_crop_size                 side in pixels of what the classifier sees of a window
    second_stage_batch_size           windows of an image that a training step learns from
    second_stage_balance_fraction     share of objects among them, at most
    second_stage_post_processing      scores and non-maximum suppression, class by class

mean here what they mean there; other fields of the two stages have no effect.
"""

import functools

import tensorflow as tf
import tf_keras

from tfod_zoo.errors import UsageError, ZooError
from tfod_zoo.modeling import checkpoint
from tfod_zoo.modeling.boxes import denormalize
from tfod_zoo.modeling.detection_model import DetectionModel, Network, RunNetwork
from tfod_zoo.modeling.faster_rcnn import post_processing
from tfod_zoo.modeling.faster_rcnn.losses import BOX_CLASSIFICATION
from tfod_zoo.modeling.faster_rcnn.matcher import IGNORED, gather_matched, match
from tfod_zoo.modeling.faster_rcnn.proposals import Proposals
from tfod_zoo.modeling.faster_rcnn.samplers import balanced_sample
from tfod_zoo.modeling.sliding_window.pyramid import build_pyramid
from tfod_zoo.zoo.registry import BASELINE

_SMALLEST_SIDE = 32  # of tf_keras.applications.ResNet50's input
# IoU from which a window shows an object, and under which background; in between it teaches nothing. R-CNN's
# (arXiv:1311.2524), as its windows are not moved to the object either when they are named.
_OBJECT, _BACKGROUND = 0.5, 0.3


class SlidingWindow(DetectionModel):
    """ResNet-50 on every window.

    Args:
      pipeline: TrainEvalPipelineConfig with `model.faster_rcnn` of the feature extractor `sliding_window_resnet50`.
      deterministic_sampling: chooses windows to learn from in their order instead of at random.

    Raises:
      ZooError: the config has no classes, no windows, or too small ones.
    """

    def __init__(self, pipeline, deterministic_sampling: bool = False, **kwargs):
        config = pipeline.model.faster_rcnn
        super().__init__(pipeline, config.image_resizer, **kwargs)
        if config.num_classes < 1:
            raise ZooError(f"model.faster_rcnn.num_classes is {config.num_classes}; set it to 1 or more.")
        side = config.initial_crop_size
        if side < _SMALLEST_SIDE:
            raise ZooError(
                f"model.faster_rcnn.initial_crop_size is {side}; {BASELINE} needs windows of {_SMALLEST_SIDE} or more."
            )
        self._config = config
        self._deterministic = deterministic_sampling
        self.num_classes = config.num_classes
        self.max_detections = config.second_stage_post_processing.batch_non_max_suppression.max_total_detections
        self._pyramid = build_pyramid(config.first_stage_anchor_generator, side, *self.input_shape_hw)
        self._boxes = self._pyramid.boxes(*self.input_shape_hw)
        self.backbone = tf_keras.applications.ResNet50(
            include_top=False, weights=None, input_shape=(side, side, 3), pooling="avg"
        )
        # Scores are reckoned in float32, whatever the network computes in.
        self.classifier = tf_keras.layers.Dense(self.num_classes + 1, dtype="float32", name="classifier")
        self.classifier.build(self.backbone.output_shape)
        self.built = True

    def normalize(self, canvas: tf.Tensor) -> tf.Tensor:
        """See `DetectionModel.normalize`: BGR without ImageNet's means, as ResNet V1 expects."""
        return tf_keras.applications.resnet.preprocess_input(canvas)

    def call(
        self,
        inputs: tf.Tensor,
        true_image_shapes: tf.Tensor | None = None,
        training: bool = False,
        groundtruth: dict[str, tf.Tensor] | None = None,
    ) -> dict:
        """Normalised images to logits of windows.

        Args:
          inputs: `[B, H, W, 3]` float32.
          groundtruth: where it is given, only the windows that a training step learns from are looked at, as many an
            image as `second_stage_batch_size` says. Beside the ground truth it may hold `sampling_seed` `[B, 2]` int32
            (B static), of which an image's random choices are then a function.

        Returns:
          `class_predictions_with_background` `[B, N, K + 1]`, and `proposal_boxes` `[B, N, 4]` in pixels of the canvas;
          with ground truth also `window_classes` `[B, N]`, 0 for background, and `window_weights` `[B, N]`.

        Raises:
          UsageError: `training` without `groundtruth`.
        """
        if training and groundtruth is None:
            raise UsageError("A sliding window is trained on windows near objects: give groundtruth, too.")
        boxes = tf.tile(self._boxes[None], [tf.shape(inputs)[0], 1, 1])
        if groundtruth is None:
            return {"class_predictions_with_background": self._every_window(inputs), "proposal_boxes": boxes}
        chosen, classes, weights = self._sampled(groundtruth)
        windows = tf.gather(self._pyramid.windows(inputs), chosen, batch_dims=1)
        return {
            "class_predictions_with_background": self._logits(windows, training),
            "proposal_boxes": tf.gather(boxes, chosen, batch_dims=1),
            "window_classes": classes,
            "window_weights": weights,
        }

    def _every_window(self, inputs: tf.Tensor) -> tf.Tensor:
        """Logits `[B, N, K + 1]`, an image at a time: its windows alone take hundreds of megabytes."""
        if inputs.shape[0] == 1:
            return self._logits(self._pyramid.windows(inputs), training=False)
        return tf.map_fn(
            lambda image: self._logits(self._pyramid.windows(image[None]), training=False)[0],
            inputs,
            fn_output_signature=tf.TensorSpec([self._pyramid.count, self.num_classes + 1], tf.float32),
            parallel_iterations=1,
        )

    def _logits(self, windows: tf.Tensor, training: bool) -> tf.Tensor:
        """`[B, N, side, side, 3]` -> `[B, N, K + 1]`."""
        count = windows.shape[1]
        features = self.backbone(tf.reshape(windows, [-1, *windows.shape[2:]]), training=training)
        return tf.reshape(self.classifier(features), [-1, count, self.num_classes + 1])

    @property
    def networks(self) -> dict[str, Network]:
        """From an image's windows to the means that the classifier takes, which stays outside: cheap, and a logit in
        bfloat16 has two digits."""
        side = self._pyramid.side

        def means(windows: tf.Tensor) -> list[tf.Tensor]:
            return [self.backbone(self.normalize(windows), training=False)]

        return {"windows": Network(means, (side, side, 3), rows=self._pyramid.count)}

    @property
    def remaining_layers(self) -> list[tf_keras.layers.Layer]:
        """See `DetectionModel.remaining_layers`."""
        return [self.classifier]

    def detect_through(self, run: RunNetwork, canvas: tf.Tensor, true_image_shapes: tf.Tensor) -> dict[str, tf.Tensor]:
        """See `DetectionModel.detect_through`; an image at a time, as `_every_window`."""
        logits = []
        for image in canvas:
            (means,) = run("windows", self._windows(image))
            logits.append(self.classifier(means))
        return self._decode(tf.stack(logits), true_image_shapes)

    @tf.function(reduce_retracing=True, autograph=False)
    def _windows(self, image: tf.Tensor) -> tf.Tensor:
        """`[H, W, 3]` -> `[N, side, side, 3]`."""
        return self._pyramid.windows(image[None])[0]

    @tf.function(reduce_retracing=True, autograph=False)
    def _decode(self, logits: tf.Tensor, true_image_shapes: tf.Tensor) -> dict[str, tf.Tensor]:
        boxes = tf.tile(self._boxes[None], [tf.shape(logits)[0], 1, 1])
        predictions = {"class_predictions_with_background": logits, "proposal_boxes": boxes}
        return self.postprocess(predictions, true_image_shapes)

    def _sampled(self, groundtruth: dict[str, tf.Tensor]) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        """Windows to learn from, what they show, and how much they count, each `[B, second_stage_batch_size]`.

        Every object has at least the window that covers it best. Places that are left empty count nothing.
        """
        matched = match(
            denormalize(groundtruth["boxes"], self.input_shape_hw),
            tf.constant(self._boxes),
            groundtruth["weights"],
            matched_threshold=_OBJECT,
            unmatched_threshold=_BACKGROUND,
            force_match_rows=True,
        )
        rows = tf.stack([tf.cast(groundtruth["classes"] + 1, tf.float32), groundtruth["weights"]], -1)
        values = gather_matched(rows, matched, matmul=False)
        classes = tf.where(matched >= 0, tf.cast(values[..., 0], tf.int32), 0)
        weights = tf.where(matched >= 0, values[..., 1], 1.0)
        size = min(self._config.second_stage_batch_size, self._pyramid.count)
        sampled = balanced_sample(
            (matched != IGNORED) & (weights > 0),
            matched >= 0,
            size,
            self._config.second_stage_balance_fraction,
            deterministic=self._deterministic,
            static=False,
            seed=groundtruth.get("sampling_seed"),
        )
        is_sampled, chosen = tf.math.top_k(tf.cast(sampled, tf.float32), size)
        return (
            chosen,
            tf.gather(classes, chosen, batch_dims=1),
            tf.gather(weights, chosen, batch_dims=1) * is_sampled,
        )

    def postprocess(self, predictions: dict, true_image_shapes: tf.Tensor) -> dict[str, tf.Tensor]:
        """See `faster_rcnn.post_processing.detections`; the windows are the boxes, clipped to the true image."""
        boxes = predictions["proposal_boxes"]
        count = tf.fill([tf.shape(boxes)[0]], boxes.shape[1])
        return post_processing.detections(
            tf.zeros_like(boxes)[:, :, None],
            predictions["class_predictions_with_background"],
            Proposals(boxes, count),
            true_image_shapes,
            self._config.second_stage_post_processing,
        )

    def compute_losses(
        self, predictions: dict, groundtruth: dict[str, tf.Tensor], true_image_shapes: tf.Tensor
    ) -> dict[str, tf.Tensor]:
        """Cross-entropy over the windows that were chosen with the ground truth, a mean per image and over images."""
        weights = predictions["window_weights"]
        entropy = tf.nn.sparse_softmax_cross_entropy_with_logits(
            predictions["window_classes"], predictions["class_predictions_with_background"]
        )
        places = tf.maximum(tf.reduce_sum(tf.cast(weights > 0, tf.float32), -1), 1.0)
        mean = tf.reduce_mean(tf.reduce_sum(weights * entropy, -1) / places)
        return {BOX_CLASSIFICATION: self._config.second_stage_classification_loss_weight * mean}

    @functools.cached_property
    def tfod_tree(self):
        """See `DetectionModel.tfod_tree`. The body is stored as CenterNet's ResNet-50 V1 is: "detection" takes it from
        the zoo's checkpoint of that."""
        return checkpoint.tree(
            _feature_extractor=checkpoint.tree(_base_model=self.backbone), _window_classifier=self.classifier
        )
