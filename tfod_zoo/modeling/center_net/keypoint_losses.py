"""What CenterNet's keypoint maps should say, and what being wrong costs (spec: CenterNet, 9.4 and 10)."""

from collections.abc import Sequence

import numpy as np
import tensorflow as tf

from tfod_zoo.modeling.center_net.decoding import at_cells
from tfod_zoo.modeling.center_net.keypoint_decoding import GAUSSIAN_MIN_IOU
from tfod_zoo.modeling.center_net.keypoint_targets import labelled_keypoints
from tfod_zoo.modeling.center_net.keypoint_task import KeypointTask
from tfod_zoo.modeling.center_net.losses import penalty_reduced_focal
from tfod_zoo.modeling.center_net.targets import gaussian_sigma, gaussians
from tfod_zoo.modeling.replicas import global_normalizer

LABELLED_WEIGHT = 1e-3  # a keypoint that weighs less blacks out its instance's box for its type


def neighbours(radius: int) -> np.ndarray:
    """Integer offsets (dy, dx) within a Euclidean radius, `[N, 2]`, dy outer: 1 for radius 0, 29 for radius 3."""
    steps = range(-radius, radius + 1)
    return np.array([(dy, dx) for dy in steps for dx in steps if dy * dy + dx * dx <= radius * radius], np.int32)


def keypoint_losses(
    predictions: dict[str, Sequence[tf.Tensor]],
    groundtruth: dict[str, tf.Tensor],
    pixel_weights: tf.Tensor,
    task: KeypointTask,
) -> dict[str, tf.Tensor]:
    """Weighted losses of one task.

    Args:
      predictions: TFOD's prediction dict.
      groundtruth: with `keypoints [B, M, K, 2]` (y, x) normalised to the padded input, NaN where not labelled.
      pixel_weights: `[B, H, W, 1]`, 0 in the padding.

    Returns:
      `Loss/TASK/keypoint/{heatmap,offset,regression}`, scalars.

    Raises:
      ZooError: the ground truth has no keypoints.
    """
    config, key = task.config, f"{task.name}/keypoint/"
    height, width = predictions[key + "heatmap"][0].shape[1:3]
    keypoints, weights = labelled_keypoints(groundtruth, task, height, width)
    boxes = groundtruth["boxes"] * tf.constant([height, width] * 2, tf.float32)

    focal = config.loss.classification_loss.penalty_reduced_logistic_focal_loss
    heatmap = tf.stop_gradient(_heatmap_targets(keypoints, weights, boxes, task.stds, height, width))
    mask = tf.stop_gradient(_unmasked(weights, boxes, height, width)) * pixel_weights
    outputs = predictions[key + "heatmap"]
    total = tf.add_n([penalty_reduced_focal(logits, heatmap, mask, focal.alpha, focal.beta) for logits in outputs])
    # Counts are whole numbers per image and type, as TFOD casts them.
    count = global_normalizer(tf.reduce_sum(tf.floor(tf.reduce_sum(weights, 1))))
    losses = {"heatmap": config.keypoint_heatmap_loss_weight * total / (len(outputs) * count)}

    near = tf.constant(neighbours(config.offset_peak_radius), tf.float32)
    around_keypoint = tf.floor(keypoints)[:, :, :, None] + near  # [B, M, K, N, 2]
    middle = tf.floor(boxes[..., :2] + (boxes[..., 2:] - boxes[..., :2]) / 2)
    around_center = tf.broadcast_to(middle[:, :, None, None] + near, tf.shape(around_keypoint))
    for part, cells in (("offset", around_keypoint), ("regression", around_center)):
        weight = getattr(config, f"keypoint_{part}_loss_weight")
        shared = part == "offset" and not config.per_keypoint_offset
        losses[part] = weight * _vector_loss(predictions[key + part], keypoints, cells, weights, shared)
    return {f"Loss/{key}{part}": config.task_loss_weight * value for part, value in losses.items()}


def _heatmap_targets(
    keypoints: tf.Tensor, weights: tf.Tensor, boxes: tf.Tensor, stds: Sequence[float], height: int, width: int
) -> tf.Tensor:
    """`[B, height, width, K]` in 0..1: per keypoint the highest Gaussian of any instance."""
    size = boxes[..., 2:] - boxes[..., :2]
    sigma = gaussian_sigma(size[..., 0], size[..., 1], GAUSSIAN_MIN_IOU)
    maps = []
    for index, std in enumerate(stds):  # one keypoint at a time bounds the memory: [B, M, H, W] each
        y, x = tf.unstack(tf.floor(keypoints[:, :, index]), axis=-1)
        each = gaussians(y, x, std * sigma, height, width) * weights[:, :, index, None, None]
        maps.append(tf.reduce_max(each, 1))
    return tf.stack(maps, -1)


def _unmasked(weights: tf.Tensor, boxes: tf.Tensor, height: int, width: int) -> tf.Tensor:
    """`[B, height, width, K]`: 0 inside the boxes of instances without this keypoint, those of other classes too."""
    ymin, xmin, ymax, xmax = tf.unstack(boxes[..., None], axis=-2)
    rows, columns = tf.range(height, dtype=tf.float32), tf.range(width, dtype=tf.float32)
    in_rows = tf.cast((rows >= ymin) & (rows < ymax), tf.float32)  # [B, M, H]
    in_columns = tf.cast((columns >= xmin) & (columns < xmax), tf.float32)
    missing = tf.cast(weights < LABELLED_WEIGHT, tf.float32)
    covered = tf.einsum("bmk,bmh,bmw->bhwk", missing, in_rows, in_columns)
    return tf.cast(covered < 0.5, tf.float32)


def _vector_loss(
    outputs: Sequence[tf.Tensor], keypoints: tf.Tensor, cells: tf.Tensor, weights: tf.Tensor, shared: bool
) -> tf.Tensor:
    """L1 between predicted vectors at `cells [B, M, K, N, 2]` and the way from there to the keypoints; a scalar.

    Args:
      outputs: `[B, H, W, 2K]`, or `[B, H, W, 2]` when `shared` by all keypoints.
    """
    height, width = outputs[0].shape[1:3]
    y, x = tf.unstack(tf.cast(cells, tf.int32), axis=-1)
    inside = (y >= 0) & (y < height) & (x >= 0) & (x < width)
    weights = tf.stop_gradient(weights[..., None] * tf.cast(inside, tf.float32))  # [B, M, K, N]
    targets = tf.stop_gradient(keypoints[:, :, :, None] - cells)
    normalizer = len(outputs) * global_normalizer(tf.reduce_sum(weights))
    count = cells.shape[2]
    total = tf.constant(0.0)
    for output in outputs:
        for index in range(count):
            channels = output if shared else output[..., 2 * index : 2 * index + 2]
            flat = [tf.reshape(part[:, :, index], [tf.shape(part)[0], -1]) for part in (y, x)]
            got = tf.reshape(at_cells(channels, *flat), tf.shape(targets[:, :, index]))
            error = tf.reduce_sum(tf.abs(got - targets[:, :, index]), -1)
            total += tf.reduce_sum(error * weights[:, :, index])
    return total / normalizer
