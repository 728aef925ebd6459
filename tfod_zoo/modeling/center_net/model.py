"""CenterNet: objects as the peaks of a heatmap (Zhou et al., arXiv:1904.07850; spec: CenterNet)."""

import functools

import tensorflow as tf
import tf_keras

from tfod_zoo.errors import ZooError
from tfod_zoo.modeling import checkpoint
from tfod_zoo.modeling.center_net import decoding, losses, targets
from tfod_zoo.modeling.center_net.feature_extractors import FEATURE_EXTRACTORS, OUTPUT_STRIDE
from tfod_zoo.modeling.center_net.heads import prediction_head
from tfod_zoo.modeling.center_net.keypoint_decoding import decode_keypoints
from tfod_zoo.modeling.center_net.keypoint_losses import keypoint_losses
from tfod_zoo.modeling.center_net.keypoint_task import KeypointTask, keypoint_tasks
from tfod_zoo.modeling.detection_model import DetectionModel

# Parts of the schema that no network here implements yet: refused by name rather than left out in silence.
_UNSUPPORTED_TASKS = (
    "mask_estimation_task",
    "densepose_estimation_task",
    "track_estimation_task",
    "temporal_offset_task",
    "deepmac_mask_estimation",
    "post_processing",
)


def _check(config) -> None:
    """Refuses a CenterNet config that this package cannot build as it is written.

    Raises:
      ZooError: one sentence with the field.
    """
    where = "model.center_net"
    kind = config.feature_extractor.type
    if kind not in FEATURE_EXTRACTORS:
        raise ZooError(
            f'{where}.feature_extractor.type "{kind}" has no network here; there are {", ".join(FEATURE_EXTRACTORS)}.'
        )
    present = {field.name for field, _ in config.ListFields()}
    for task in _UNSUPPORTED_TASKS:
        if task in present:
            raise ZooError(f"{where}.{task} is not supported yet; remove it to build the box detector alone.")
    if not config.HasField("object_detection_task"):
        raise ZooError(f"{where}.object_detection_task is missing; a CenterNet without it has nothing to predict.")
    if config.num_classes < 1:
        raise ZooError(f"{where}.num_classes is {config.num_classes}; set it to the number of classes, at least 1.")
    center = config.object_center_params
    if center.use_labeled_classes or len(center.keypoint_weights_for_center):
        raise ZooError(
            f"{where}.object_center_params: use_labeled_classes and keypoint_weights_for_center are not "
            "supported; remove them."
        )
    if center.classification_loss.WhichOneof("classification_loss") != "penalty_reduced_logistic_focal_loss":
        raise ZooError(
            f"{where}.object_center_params.classification_loss must be penalty_reduced_logistic_focal_loss, "
            "CenterNet's own."
        )
    if config.object_detection_task.localization_loss.WhichOneof("localization_loss") != "l1_localization_loss":
        raise ZooError(
            f"{where}.object_detection_task.localization_loss must be l1_localization_loss, CenterNet's own."
        )


class CenterNet(DetectionModel):
    """CenterNet with heads for boxes and, where the config has such tasks, keypoints.

    Args:
      pipeline: TrainEvalPipelineConfig with `model.center_net`.

    Raises:
      ZooError: the config asks for something that does not exist here, or for an input size that does not divide.
    """

    def __init__(self, pipeline, **kwargs):
        config = pipeline.model.center_net
        _check(config)
        super().__init__(pipeline, config.image_resizer, **kwargs)
        height, width = self.input_shape_hw
        kind = config.feature_extractor.type
        self.extractor = FEATURE_EXTRACTORS[kind](config.feature_extractor, height, width)
        if height % self.extractor.multiple or width % self.extractor.multiple:
            raise ZooError(
                f"model.center_net.image_resizer gives {height}x{width}; {kind} needs multiples of "
                f"{self.extractor.multiple}."
            )
        self.keypoint_tasks = keypoint_tasks(config)
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
                    **_intermediate(params),
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
        if config.bgr_ordering:
            canvas = tf.reverse(canvas, [-1])
        if config.channel_means:
            canvas -= tf.constant(list(config.channel_means), tf.float32)
        if config.channel_stds:
            canvas /= tf.constant(list(config.channel_stds), tf.float32)
        return self.extractor.scale(canvas)

    def call(self, inputs: tf.Tensor, true_image_shapes: tf.Tensor | None = None, training: bool = False) -> dict:
        """Normalised images `[B, H, W, 3]` -> TFOD's prediction dict: per head a list of raw `[B, H/4, W/4, D]`."""
        features = self.extractor(inputs, training=training)
        outputs = {
            key: [head(feature) for head, feature in zip(heads, features, strict=True)]
            for key, heads in self.heads.items()
        }
        return {"preprocessed_inputs": inputs, **outputs}

    def postprocess(self, predictions: dict, true_image_shapes: tf.Tensor) -> dict[str, tf.Tensor]:
        """See `decoding.decode_boxes` and `keypoint_decoding.decode_keypoints`; only a head's last output counts."""
        last = {key: predictions[key][-1] for key in self.heads}
        detections, cells = decoding.decode_boxes(
            last["object_center"],
            last["box/scale"],
            last["box/offset"],
            true_image_shapes,
            self.max_detections,
            OUTPUT_STRIDE,
        )
        if self.keypoint_tasks:
            detections |= decode_keypoints(
                last, detections, cells, self.keypoint_tasks, true_image_shapes, self.num_classes, OUTPUT_STRIDE
            )
        return detections

    def compute_losses(
        self, predictions: dict, groundtruth: dict[str, tf.Tensor], true_image_shapes: tf.Tensor
    ) -> dict[str, tf.Tensor]:
        """Weighted losses of the centre, size and offset heads and of the keypoint tasks (spec, section 10)."""
        config = self.pipeline.model.center_net
        center, task = config.object_center_params, config.object_detection_task
        height, width = predictions["object_center"][0].shape[1:3]
        wanted = targets.center_targets(groundtruth, height, width, self.num_classes, center.min_box_overlap_iou)
        focal = center.classification_loss.penalty_reduced_logistic_focal_loss
        weights = losses.pixel_weights(true_image_shapes, height, width, OUTPUT_STRIDE)
        computed = {
            "Loss/object_center": center.object_center_loss_weight
            * losses.center_loss(predictions["object_center"], wanted, weights, focal.alpha, focal.beta),
            "Loss/box/scale": task.scale_loss_weight
            * task.task_loss_weight
            * losses.regression_loss(predictions["box/scale"], wanted, "size"),
            "Loss/box/offset": task.offset_loss_weight
            * task.task_loss_weight
            * losses.regression_loss(predictions["box/offset"], wanted, "offset"),
        }
        for keypoint_task in self.keypoint_tasks:
            computed |= keypoint_losses(predictions, groundtruth, weights, keypoint_task)
        return computed

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
        ("object_center", config.num_classes, center.heatmap_bias_init, params(center, "center_head_params")),
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


def _intermediate(params) -> dict:
    """A head params message -> `filters` and `kernel_sizes` of `prediction_head`; absent means one 3x3 of 256.

    Raises:
      ZooError: the two lists differ in length.
    """
    if params is None:
        return {}
    if len(params.num_filters) != len(params.kernel_sizes):
        raise ZooError(
            f"a head's num_filters {list(params.num_filters)} and kernel_sizes {list(params.kernel_sizes)} differ in "
            "length; give one of each per convolution."
        )
    return {"filters": tuple(params.num_filters), "kernel_sizes": tuple(params.kernel_sizes)}
