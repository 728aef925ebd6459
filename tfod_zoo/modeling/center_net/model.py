"""CenterNet: objects as the peaks of a heatmap (Zhou et al., arXiv:1904.07850; spec: CenterNet)."""

import functools

import tensorflow as tf
import tf_keras

from tfod_zoo.errors import UsageError, ZooError
from tfod_zoo.modeling import checkpoint
from tfod_zoo.modeling.center_net import decoding, keypoint_targets, losses, targets
from tfod_zoo.modeling.center_net.config_check import check_config
from tfod_zoo.modeling.center_net.feature_extractors import (
    FEATURE_EXTRACTORS,
    OUTPUT_STRIDE,
    required_multiple,
    reverse_channels,
)
from tfod_zoo.modeling.center_net.heads import OnDemand, heatmap_filled_up, prediction_head, sees_one_patch
from tfod_zoo.modeling.center_net.keypoint_decoding import decode_keypoints
from tfod_zoo.modeling.center_net.keypoint_losses import keypoint_losses
from tfod_zoo.modeling.center_net.keypoint_task import KeypointTask, keypoint_tasks
from tfod_zoo.modeling.center_net.suppression import suppress
from tfod_zoo.modeling.detection_model import DetectionModel, Network, RunNetwork
from tfod_zoo.modeling.placement import on_plain_cpu

_CENTER = "object_center"
_HEATMAPS = (_CENTER, "/heatmap")  # how their keys end


class CenterNet(DetectionModel):
    """CenterNet with heads for boxes and keypoints, as the config has tasks for them.

    Args:
      pipeline: TrainEvalPipelineConfig with `model.center_net`.

    Raises:
      ZooError: the config asks for something that does not exist here, or for an input size that does not divide.
    """

    def __init__(self, pipeline, **kwargs):
        config = pipeline.model.center_net
        check_config(config)
        super().__init__(pipeline, config.image_resizer, **kwargs)
        height, width = self.input_shape_hw
        kind = config.feature_extractor.type
        multiple = required_multiple(kind)
        if height % multiple or width % multiple:
            raise ZooError(
                f"model.center_net.image_resizer gives {height}x{width}; {kind} needs multiples of {multiple}."
            )
        self.extractor = FEATURE_EXTRACTORS[kind](config.feature_extractor, height, width)
        self.keypoint_tasks = keypoint_tasks(config)
        self.predicts_boxes = config.HasField("object_detection_task")
        self.num_classes = config.num_classes
        self.max_detections = config.object_center_params.max_box_predictions
        cells = (height // OUTPUT_STRIDE) * (width // OUTPUT_STRIDE) * self.num_classes
        if self.max_detections > cells:
            raise ZooError(
                f"model.center_net.object_center_params.max_box_predictions is {self.max_detections}, more than the "
                f"{cells} cells of the output at {height}x{width}; lower it or enlarge the input."
            )
        features = self.extractor(tf_keras.Input((height, width, 3)))
        self.heads = {
            key: [
                prediction_head(
                    channels,
                    feature.shape[-1],
                    **_intermediate(key, params),
                    bias=bias,
                    separable=config.use_depthwise,
                    name=f"{key.replace('/', '_')}_{i}",
                )
                for i, feature in enumerate(features)
            ]
            for key, channels, bias, params in _head_table(config, self.keypoint_tasks)
        }
        self.built = True

    def normalize(self, canvas: tf.Tensor) -> tf.Tensor:
        """See `DetectionModel.normalize`; padding is normalised with the rest (spec, trap 2)."""
        config = self.pipeline.model.center_net.feature_extractor
        means, stds = list(config.channel_means), list(config.channel_stds)
        if config.bgr_ordering:  # of means and deviations, too
            means, stds = means[::-1], stds[::-1]
        if means:
            canvas -= tf.constant(means, tf.float32)
        if stds:
            canvas /= tf.constant(stds, tf.float32)
        return self.extractor.scale(reverse_channels(canvas) if config.bgr_ordering else canvas)

    def call(
        self,
        inputs: tf.Tensor,
        true_image_shapes: tf.Tensor | None = None,
        training: bool = False,
        groundtruth: dict[str, tf.Tensor] | None = None,
    ) -> dict:
        """Normalised images `[B, H, W, 3]` -> TFOD's prediction dict: per head a list of raw `[B, H/4, W/4, D]`.

        Two-stage detectors need shapes and ground truth; this one does not look at them.
        """
        features = self.extractor(inputs, training=training)
        outputs = {
            key: [head(feature) for head, feature in zip(heads, features, strict=True)]
            for key, heads in self.heads.items()
        }
        return {"preprocessed_inputs": inputs, **outputs}

    def recompute_gradients(self, recompute: bool = True) -> None:
        """Trades time for memory in training, before its first step: losses, gradients and batch-norm averages stay the
        same, while most activations are computed a second time instead of being kept.

        Raises:
          UsageError: the feature extractor is no hourglass.
        """
        self.extractor.recompute_gradients(recompute)

    def postprocess(self, predictions: dict, true_image_shapes: tf.Tensor) -> dict[str, tf.Tensor]:
        """See `decoding`, `keypoint_decoding.decode_keypoints` and `suppression`; only a head's last output counts."""
        return self._decode({key: predictions[key][-1] for key in self.heads}, true_image_shapes)

    def detections_of(self, inputs: tf.Tensor, true_image_shapes: tf.Tensor) -> dict[str, tf.Tensor]:
        """See `DetectionModel.detections_of`."""
        features = self.extractor(inputs, training=False)[-1]
        # GPUs and TPUs convolve a map sooner than they gather patches of it.
        whole = self._heads_seen_whole if on_plain_cpu() else self.heads
        maps = {key: self.heads[key][-1](features) for key in whole if key != _CENTER}
        maps[_CENTER] = heatmap_filled_up(self.heads[_CENTER][-1], features)
        return self._decode_from(features, maps, true_image_shapes)

    @functools.cached_property
    def _heads_seen_whole(self) -> list[str]:
        """All but the heatmaps are looked at in few cells."""
        return [
            key
            for key, (*_, head) in self.heads.items()
            if key.endswith(_HEATMAPS) or not sees_one_patch(head) or head.compute_dtype != "float32"
        ]

    def _decode_from(self, features: tf.Tensor, whole: dict, true_image_shapes: tf.Tensor) -> dict[str, tf.Tensor]:
        """Detections from the last features, and the output maps of some heads; the others compute what is needed."""
        demanded = {key: OnDemand(heads[-1], features) for key, heads in self.heads.items() if key not in whole}
        return self._decode({**whole, **demanded}, true_image_shapes)

    def _decode(self, last: dict[str, tf.Tensor | OnDemand], true_image_shapes: tf.Tensor) -> dict[str, tf.Tensor]:
        detections, cells = decoding.decode_centers(
            last[_CENTER], true_image_shapes, self.max_detections, self.num_classes
        )
        if self.predicts_boxes:
            detections |= decoding.decode_boxes(
                last["box/scale"], last["box/offset"], cells, true_image_shapes, OUTPUT_STRIDE
            )
        if self.keypoint_tasks:
            detections |= decode_keypoints(
                last, detections, cells, self.keypoint_tasks, true_image_shapes, self.num_classes, OUTPUT_STRIDE
            )
        config = self.pipeline.model.center_net
        return suppress(detections, config.post_processing) if config.HasField("post_processing") else detections

    @property
    def networks(self) -> dict[str, Network]:
        """One: pixels of the canvas to the last features, and to the outputs of the heads that are looked at whole."""

        def heads(canvas: tf.Tensor) -> list[tf.Tensor]:
            features = self.extractor(self.normalize(canvas), training=False)[-1]
            return [features, *(self.heads[key][-1](features) for key in self._heads_seen_whole)]

        return {"heads": Network(heads, (*self.input_shape_hw, 3))}

    @property
    def remaining_layers(self) -> list[tf_keras.layers.Layer]:
        """See `DetectionModel.remaining_layers`: the heads that are looked at in few cells."""
        return [heads[-1] for key, heads in self.heads.items() if key not in self._heads_seen_whole]

    def detect_through(self, run: RunNetwork, canvas: tf.Tensor, true_image_shapes: tf.Tensor) -> dict[str, tf.Tensor]:
        """See `DetectionModel.detect_through`."""
        features, *maps = run("heads", canvas)
        return self._decode_outputs(features, dict(zip(self._heads_seen_whole, maps, strict=True)), true_image_shapes)

    @tf.function(reduce_retracing=True, autograph=False)
    def _decode_outputs(self, features: tf.Tensor, whole: dict, true_image_shapes: tf.Tensor) -> dict[str, tf.Tensor]:
        return self._decode_from(features, whole, true_image_shapes)

    def compute_losses(
        self, predictions: dict, groundtruth: dict[str, tf.Tensor], true_image_shapes: tf.Tensor
    ) -> dict[str, tf.Tensor]:
        """Weighted losses of the centre, size and offset heads and of the keypoint tasks (spec, section 10).

        Args:
          groundtruth: with `use_labeled_classes` perhaps also `labeled_classes`, see `losses.labelled_classes`.
        """
        config = self.pipeline.model.center_net
        center, task = config.object_center_params, config.object_detection_task
        height, width = predictions[_CENTER][0].shape[1:3]
        wanted = targets.center_targets(groundtruth, height, width, self.num_classes, center.min_box_overlap_iou)
        if center.keypoint_weights_for_center:
            wanted["heatmap"] = keypoint_targets.center_heatmap(
                groundtruth,
                self.keypoint_tasks[0],
                center.keypoint_weights_for_center,
                height,
                width,
                self.num_classes,
                center.min_box_overlap_iou,
            )
        focal = center.classification_loss.penalty_reduced_logistic_focal_loss
        in_image = losses.pixel_weights(true_image_shapes, height, width, OUTPUT_STRIDE)
        weights = in_image * losses.labelled_classes(groundtruth) if center.use_labeled_classes else in_image
        computed = {
            "Loss/object_center": center.object_center_loss_weight
            * losses.center_loss(predictions[_CENTER], wanted, weights, focal.alpha, focal.beta)
        }
        if self.predicts_boxes:
            scale, offset = (
                losses.regression_loss(predictions[f"box/{head}"], wanted, target)
                for head, target in (("scale", "size"), ("offset", "offset"))
            )
            computed["Loss/box/scale"] = task.task_loss_weight * task.scale_loss_weight * scale
            computed["Loss/box/offset"] = task.task_loss_weight * task.offset_loss_weight * offset
        for keypoint_task in self.keypoint_tasks:
            computed |= keypoint_losses(predictions, groundtruth, in_image, keypoint_task)
        return computed

    def _restore_targets(self, mode: str) -> dict[str, tf.Variable]:
        if mode != "classification":
            return super()._restore_targets(mode)
        tree = self.extractor.classification_tree
        if tree is None:
            kind = self.pipeline.model.center_net.feature_extractor.type
            raise UsageError(f'there is no "classification" checkpoint of {kind}; use "detection".')
        return dict(checkpoint.keyed_variables(tree, "feature_extractor"))

    @functools.cached_property
    def tfod_tree(self):
        """See `DetectionModel.tfod_tree` (spec, section 14)."""
        return checkpoint.tree(_feature_extractor=self.extractor.tfod_tree, _prediction_head_dict=dict(self.heads))


def _head_table(config, tasks: tuple[KeypointTask, ...]) -> list[tuple[str, int, float, object]]:
    """(key, channels, initial bias, head params message or None) of each head, in TFOD's order."""

    def params(message, field):
        return getattr(message, field) if message.HasField(field) else None

    center, boxes = config.object_center_params, config.object_detection_task
    table = [
        (_CENTER, config.num_classes, center.heatmap_bias_init, params(center, "center_head_params")),
    ]
    if config.HasField("object_detection_task"):
        table += [
            ("box/scale", 2, 0.0, params(boxes, "scale_head_params")),
            ("box/offset", 2, 0.0, params(boxes, "offset_head_params")),
        ]
    for task in tasks:
        own, count = task.config, len(task.ids)
        offsets = 2 * count if own.per_keypoint_offset else 2
        table += [
            (f"{task.name}/keypoint/heatmap", count, own.heatmap_bias_init, params(own, "heatmap_head_params")),
            (f"{task.name}/keypoint/regression", 2 * count, 0.0, params(own, "regress_head_params")),
            (f"{task.name}/keypoint/offset", offsets, 0.0, params(own, "offset_head_params")),
        ]
    return table


def _intermediate(key: str, params) -> dict:
    """A head params message -> `filters` and `kernel_sizes` of `prediction_head`; absent means one 3x3 of 256.

    Raises:
      ZooError: the two lists differ in length, or have something under 1.
    """
    if params is None:
        return {}
    filters, sizes = list(params.num_filters), list(params.kernel_sizes)
    if len(filters) != len(sizes) or min([1, *filters, *sizes]) < 1:
        raise ZooError(
            f"model.center_net: num_filters {filters} and kernel_sizes {sizes} of the head {key} must be as long as "
            "each other and at least 1; give one of each per convolution."
        )
    return {"filters": filters, "kernel_sizes": sizes}
