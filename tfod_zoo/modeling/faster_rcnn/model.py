"""Faster R-CNN: one network proposes boxes, a second names and refines them (arXiv:1506.01497; spec: Faster R-CNN)."""

import functools
from collections.abc import Sequence

import tensorflow as tf
import tf_keras

from tfod_zoo.errors import UsageError, ZooError
from tfod_zoo.modeling import checkpoint
from tfod_zoo.modeling.boxes import denormalize, normalize
from tfod_zoo.modeling.conv_style import conv_style
from tfod_zoo.modeling.detection_model import DetectionModel, Network, RunNetwork
from tfod_zoo.modeling.faster_rcnn import post_processing
from tfod_zoo.modeling.faster_rcnn.anchors import (
    anchor_levels,
    anchors_per_cell,
    clip_anchors,
    generate_anchors,
    inside_window,
)
from tfod_zoo.modeling.faster_rcnn.box_head import BoxHead
from tfod_zoo.modeling.faster_rcnn.config_check import check_config
from tfod_zoo.modeling.faster_rcnn.feature_extractors import build_feature_extractor
from tfod_zoo.modeling.faster_rcnn.losses import box_head_losses, rpn_losses
from tfod_zoo.modeling.faster_rcnn.proposals import Proposals, propose, sample_proposals
from tfod_zoo.modeling.faster_rcnn.region_proposal_network import RegionProposalNetwork
from tfod_zoo.modeling.faster_rcnn.roi_crop import CropShape, crop_and_pool, select_levels
from tfod_zoo.modeling.faster_rcnn.samplers import balanced_sample
from tfod_zoo.modeling.faster_rcnn.target_assigner import detection_targets, rpn_targets
from tfod_zoo.modeling.placement import compiled_by_xla

CHANNEL_MEANS = (123.68, 116.779, 103.939)  # of ImageNet, RGB; subtracted after padding (spec, section 2)
# Keeps the random choices of the two stages apart.
_FIRST_STAGE, _SECOND_STAGE = 1, 2


class FasterRCNN(DetectionModel):
    """Faster R-CNN with a ResNet, or a ResNet and a feature pyramid.

    Args:
      pipeline: TrainEvalPipelineConfig with `model.faster_rcnn`.
      training: builds the training form: batch norm follows the batch where the config says so, and the config's
        static paths are taken (spec, section 1.3).
      deterministic_sampling: chooses anchors and proposals to learn from in index order instead of at random.

    Raises:
      ZooError: the config asks for something that does not exist here.
    """

    def __init__(self, pipeline, training: bool = False, deterministic_sampling: bool = False, **kwargs):
        config = pipeline.model.faster_rcnn
        check_config(config, training)
        super().__init__(pipeline, config.image_resizer, **kwargs)
        self._config = config
        self._deterministic = deterministic_sampling
        self._static = config.use_static_shapes and (config.use_static_shapes_for_eval or training)
        self.num_classes = config.num_classes
        self.max_detections = config.second_stage_post_processing.batch_non_max_suppression.max_total_detections
        self.extractor = build_feature_extractor(config.feature_extractor, training)
        self._crop_shape = CropShape(
            config.initial_crop_size, config.maxpool_kernel_size, config.maxpool_stride, self.extractor.crop_step
        )
        self.rpn = RegionProposalNetwork(
            anchors_per_cell(config.first_stage_anchor_generator),
            len(self.extractor.levels),
            config.first_stage_box_predictor_depth,
            config.first_stage_box_predictor_kernel_size,
            config.first_stage_atrous_rate,
            conv_style(
                config.first_stage_box_predictor_conv_hyperparams,
                "model.faster_rcnn.first_stage_box_predictor_conv_hyperparams",
            ),
            name="rpn",
        )
        self.box_head = BoxHead(
            config.num_classes,
            config.second_stage_box_predictor.mask_rcnn_box_predictor.share_box_across_classes,
            name="box_head",
        )
        self._anchors = self._generate_anchors()
        self._create_variables()
        self.built = True

    def _generate_anchors(self):
        """`[A, 4]` float32, before clipping."""
        generator, levels = self._config.first_stage_anchor_generator, self.extractor.levels
        if (anchor_levels(generator) or [None]) != (list(levels) if len(levels) > 1 else [None]):
            raise ZooError(
                "model.faster_rcnn.first_stage_anchor_generator does not fit the feature extractor, whose maps have "
                f"the levels {list(levels)}; use a multiscale_anchor_generator of the same min_level and max_level for "
                "a feature pyramid, and a grid_anchor_generator without one."
            )
        return generate_anchors(generator, self.extractor.feature_sizes(*self.input_shape_hw))

    def _create_variables(self) -> None:
        maps = self.extractor(tf_keras.Input((*self.input_shape_hw, 3)))
        self.rpn(maps)
        cells = self._crop_shape.cells
        self.box_head(self.extractor.box_features(tf_keras.Input((cells, cells, maps[0].shape[-1]))))

    def normalize(self, canvas: tf.Tensor) -> tf.Tensor:
        """See `DetectionModel.normalize`; padding is normalised with the rest (spec, trap 1)."""
        return canvas - tf.constant(CHANNEL_MEANS)

    def call(
        self,
        inputs: tf.Tensor,
        true_image_shapes: tf.Tensor,
        training: bool = False,
        groundtruth: dict[str, tf.Tensor] | None = None,
        proposals: Proposals | None = None,
    ) -> dict:
        """Normalised images to TFOD's prediction dict.

        Args:
          inputs: `[B, H, W, 3]` float32. true_image_shapes: `[B, 3]` int32.
          training: lets batch norm follow the batch, where the model was built for that.
          groundtruth: see the design's ground truth. Where it is given, the second stage sees the
            `second_stage_batch_size` proposals that a training step learns from, instead of all. Beside the ground
            truth it may hold `sampling_seed` `[B, 2]` int32 (B static), of which an image's random choices are then a
            function.
          proposals: of another network, in place of this one's own.

        Raises:
          UsageError: `training` without `groundtruth`.
        """
        if training and groundtruth is None:
            raise UsageError("Faster R-CNN's second stage is trained on proposals near objects: give groundtruth, too.")
        maps = self.extractor(inputs, training=training)
        rpn_features, codes, logits = self.rpn(maps)
        # Boxes are reckoned in float32, whatever the network computes in.
        codes, logits = tf.cast(codes, tf.float32), tf.cast(logits, tf.float32)
        anchors, rows = self._anchors_for(learning=groundtruth is not None)
        if rows is not None:
            codes, logits = tf.gather(codes, rows, axis=1), tf.gather(logits, rows, axis=1)
        if proposals is None:
            proposals = self._propose(codes, logits, anchors, true_image_shapes)
        proposals = Proposals(*(tf.stop_gradient(value) for value in proposals))
        if groundtruth is not None:
            proposals = self._sampled(proposals, groundtruth)
        normalized, crops = self._crop(maps, proposals)
        box_features = self.extractor.box_features(crops, training=training)
        refined, class_logits = self.box_head(box_features)
        return {
            "rpn_box_predictor_features": rpn_features,
            "rpn_features_to_crop": maps,
            "feature_maps": maps,
            "image_shape": tf.shape(inputs),
            "rpn_box_encodings": codes,
            "rpn_objectness_predictions_with_background": logits,
            "anchors": tf.constant(anchors),
            "refined_box_encodings": refined,
            "class_predictions_with_background": class_logits,
            "proposal_boxes": denormalize(normalized, self.input_shape_hw),
            "proposal_boxes_normalized": normalized,
            "final_anchors": normalized,
            "box_classifier_features": box_features,
            "num_proposals": proposals.count,
        }

    def _propose(self, codes: tf.Tensor, logits: tf.Tensor, anchors, true_image_shapes: tf.Tensor) -> Proposals:
        config = self._config
        return propose(
            codes,
            logits,
            tf.constant(anchors),
            true_image_shapes,
            max_proposals=config.first_stage_max_proposals,
            iou_threshold=config.first_stage_nms_iou_threshold,
            score_threshold=config.first_stage_nms_score_threshold,
            static=self._static,
        )

    def _crop(self, maps: Sequence[tf.Tensor], proposals: Proposals) -> tuple[tf.Tensor, tf.Tensor]:
        """Proposals normalised to the padded input `[B, P, 4]`, and what they cut out of the maps `[B * P, ...]`."""
        height, width = self.input_shape_hw
        normalized = normalize(proposals.boxes, (height, width))
        levels = select_levels(normalized, height, width, len(maps)) if len(maps) > 1 else None
        exact_maps = [tf.cast(each, tf.float32) for each in maps]
        # XLA has only the matrix form; a CPU is faster with the other one, which a config for TPUs does not know.
        return normalized, crop_and_pool(exact_maps, normalized, levels, self._crop_shape, matrix=compiled_by_xla())

    @property
    def networks(self) -> dict[str, Network]:
        """Up to the proposals, and from what they cut out of the maps to the last two layers."""
        maps = self.extractor(tf_keras.Input((*self.input_shape_hw, 3)))
        cells = self._crop_shape.cells

        def first(canvas: tf.Tensor) -> list[tf.Tensor]:
            maps = self.extractor(self.normalize(canvas), training=False)
            _, codes, logits = self.rpn(maps)
            return [*maps, codes, logits]

        def second(crops: tf.Tensor) -> list[tf.Tensor]:
            # The two dense layers stay outside: cheap, and a logit in bfloat16 has two digits.
            return [tf.reduce_mean(self.extractor.box_features(crops, training=False), [1, 2])]

        return {
            "proposals": Network(first, (*self.input_shape_hw, 3)),
            "boxes": Network(
                second, (cells, cells, maps[0].shape[-1]), rows=self._config.first_stage_max_proposals
            ),
        }

    @property
    def remaining_layers(self) -> list[tf_keras.layers.Layer]:
        """See `DetectionModel.remaining_layers`."""
        return [self.box_head]

    def detect_through(self, run: RunNetwork, canvas: tf.Tensor, true_image_shapes: tf.Tensor) -> dict[str, tf.Tensor]:
        """See `DetectionModel.detect_through`."""
        *maps, codes, logits = run("proposals", canvas)
        proposals, crops = self._proposals_and_crops(maps, codes, logits, true_image_shapes)
        (mean,) = run("boxes", crops)
        return self._decode(mean, proposals, true_image_shapes)

    @tf.function(reduce_retracing=True, autograph=False)
    def _proposals_and_crops(self, maps, codes, logits, true_image_shapes) -> tuple[Proposals, tf.Tensor]:
        anchors, rows = self._anchors_for(learning=False)
        if rows is not None:
            codes, logits = tf.gather(codes, rows, axis=1), tf.gather(logits, rows, axis=1)
        proposals = self._propose(codes, logits, anchors, true_image_shapes)
        normalized, crops = self._crop(maps, proposals)
        return Proposals(denormalize(normalized, self.input_shape_hw), proposals.count), crops

    @tf.function(reduce_retracing=True, autograph=False)
    def _decode(self, mean, proposals: Proposals, true_image_shapes) -> dict[str, tf.Tensor]:
        refined, class_logits = self.box_head.of_mean(mean)
        predictions = {
            "proposal_boxes": proposals.boxes,
            "num_proposals": proposals.count,
            "refined_box_encodings": refined,
            "class_predictions_with_background": class_logits,
        }
        return self.postprocess(predictions, true_image_shapes)

    def _anchors_for(self, learning: bool):
        """The anchors, and which rows of the network's outputs they belong to (None: all); spec, section 4.1."""
        height, width = self.input_shape_hw
        clipped = clip_anchors(self._anchors, height, width)
        if learning and not self._config.clip_anchors_to_image:
            inside = inside_window(self._anchors, height, width)
            return self._anchors[inside], inside.nonzero()[0]
        # TFOD drops anchors without area outside its static path, but not their predictions, so that those behind them
        # go astray; here both go. It happens only where the pyramid pads the input.
        empty = (clipped[:, 2:] <= clipped[:, :2]).any(-1)
        if not learning and not self._static and empty.any():
            return clipped[~empty], (~empty).nonzero()[0]
        return clipped, None

    def _absolute_groundtruth(self, groundtruth: dict[str, tf.Tensor]) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        """Boxes `[B, M, 4]` in pixels, class vectors `[B, M, K + 1]` with background first, weights `[B, M]`."""
        boxes = denormalize(groundtruth["boxes"], self.input_shape_hw)
        return boxes, tf.one_hot(groundtruth["classes"] + 1, self.num_classes + 1), groundtruth["weights"]

    def _sampled(self, proposals: Proposals, groundtruth: dict[str, tf.Tensor]) -> Proposals:
        config = self._config
        return sample_proposals(
            proposals,
            *self._absolute_groundtruth(groundtruth),
            size=config.second_stage_batch_size,
            positive_fraction=config.second_stage_balance_fraction,
            deterministic=self._deterministic,
            static=self._static and config.use_static_balanced_label_sampler,
            matmul_gather=config.use_matmul_gather_in_matcher,
            seed=_seed(groundtruth, _SECOND_STAGE),
        )

    def postprocess(self, predictions: dict, true_image_shapes: tf.Tensor) -> dict[str, tf.Tensor]:
        """See `post_processing.detections`."""
        proposals, refined, logits = self._per_image(predictions)
        return post_processing.detections(
            refined, logits, proposals, true_image_shapes, self._config.second_stage_post_processing
        )

    def _per_image(self, predictions: dict) -> tuple[Proposals, tf.Tensor, tf.Tensor]:
        """Proposals, codes `[B, P, 1 or K, 4]` and logits `[B, P, K + 1]`."""
        proposals = Proposals(predictions["proposal_boxes"], predictions["num_proposals"])
        count = proposals.boxes.shape[1]
        refined, logits = predictions["refined_box_encodings"], predictions["class_predictions_with_background"]
        return (
            proposals,
            tf.reshape(refined, [-1, count, *refined.shape[1:]]),
            tf.reshape(logits, [-1, count, logits.shape[-1]]),
        )

    def compute_losses(
        self, predictions: dict, groundtruth: dict[str, tf.Tensor], true_image_shapes: tf.Tensor
    ) -> dict[str, tf.Tensor]:
        """Losses of both stages (spec, section 11); where the config regularises kernels, that sum, too."""
        config = self._config
        boxes, class_vectors, weights = self._absolute_groundtruth(groundtruth)
        first = rpn_targets(predictions["anchors"], boxes, weights, matmul_gather=config.use_matmul_gather_in_matcher)
        sampled = balanced_sample(
            first.class_weights > 0,
            first.class_targets > 0,
            config.first_stage_minibatch_size,
            config.first_stage_positive_balance_fraction,
            deterministic=self._deterministic,
            static=self._static and config.use_static_balanced_label_sampler,
            seed=_seed(groundtruth, _FIRST_STAGE),
        )
        losses = rpn_losses(
            predictions["rpn_box_encodings"],
            predictions["rpn_objectness_predictions_with_background"],
            first,
            sampled,
            localization_weight=config.first_stage_localization_loss_weight,
            objectness_weight=config.first_stage_objectness_loss_weight,
        )
        proposals, refined, logits = self._per_image(predictions)
        second = detection_targets(
            proposals.boxes, boxes, class_vectors, weights, matmul_gather=config.use_matmul_gather_in_matcher
        )
        losses |= box_head_losses(
            refined,
            logits,
            second,
            proposals.count,
            localization_weight=config.second_stage_localization_loss_weight,
            classification_weight=config.second_stage_classification_loss_weight,
        )
        if self.losses:
            losses["Loss/regularization_loss"] = tf.reduce_sum(tf.stack(self.losses))
        return losses

    @functools.cached_property
    def tfod_tree(self):
        """See `DetectionModel.tfod_tree` (spec, section 14.1)."""
        return checkpoint.tree(**self.extractor.tfod_trees(), **self.rpn.tfod_trees(), **self.box_head.tfod_trees())

    def _restore_targets(self, mode: str) -> dict[str, tf.Variable]:
        """Checkpoint key -> variable for a restore mode (spec, section 14.2)."""
        if mode == "detection":
            prefix = "model/_feature_extractor_for_"
            return {key: value for key, value in self.keyed_variables.items() if key.startswith(prefix)}
        if mode == "classification":
            body = checkpoint.numbered(self.extractor.classification_layers(), 0)
            return dict(checkpoint.keyed_variables(body, "feature_extractor"))
        return super()._restore_targets(mode)


def _seed(groundtruth: dict[str, tf.Tensor], stage: int) -> tf.Tensor | None:
    """The seeds of a stage's random choices, where the caller gives any."""
    seeds = groundtruth.get("sampling_seed")
    return None if seeds is None else seeds + tf.constant([stage, 0])
