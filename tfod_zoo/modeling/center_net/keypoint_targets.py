"""Keypoints of the ground truth in output cells, and centres that are made of them (spec: CenterNet, 9.2 and 9.4)."""

from collections.abc import Sequence

import tensorflow as tf

from tfod_zoo.errors import ZooError
from tfod_zoo.modeling.center_net.keypoint_task import KeypointTask
from tfod_zoo.modeling.center_net.targets import class_heatmap, gaussian_sigma


def labelled_keypoints(
    groundtruth: dict[str, tf.Tensor], task: KeypointTask, height: int, width: int
) -> tuple[tf.Tensor, tf.Tensor]:
    """One task's keypoints on a map of height x width cells.

    Args:
      groundtruth: with `keypoints [B, M, K', 2]` (y, x) normalised to the padded input, NaN where not labelled.

    Returns:
      `[B, M, K, 2]` in cells, 0 where not labelled; and weights `[B, M, K]`: the instance's, 0 where the keypoint is
      not labelled or the instance is of another class.

    Raises:
      ZooError: the ground truth has no keypoints.
    """
    if "keypoints" not in groundtruth:
        raise ZooError(f'the keypoint task "{task.name}" needs ground truth with keypoints, and these data have none.')
    keypoints = tf.gather(groundtruth["keypoints"], task.ids, axis=2) * tf.constant([height, width], tf.float32)
    labelled = ~tf.reduce_any(tf.math.is_nan(keypoints), -1)
    instance = groundtruth["weights"] * tf.cast(groundtruth["classes"] == task.class_index, tf.float32)
    return tf.where(labelled[..., None], keypoints, 0.0), tf.cast(labelled, tf.float32) * instance[..., None]


def center_heatmap(
    groundtruth: dict[str, tf.Tensor],
    task: KeypointTask,
    center_weights: Sequence[float],
    height: int,
    width: int,
    num_classes: int,
    min_iou: float,
) -> tf.Tensor:
    """The centre heatmap of a model that has no boxes: centres are weighted means of keypoints.

    The mean distance of the keypoints from there is half the side of the box that sets the Gaussian's spread.

    Args:
      groundtruth: see `labelled_keypoints`.
      center_weights: `keypoint_weights_for_center`, one of the task's keypoints each.
      min_iou: see `targets.gaussian_sigma`.

    Returns:
      `[B, height, width, num_classes]` in 0..1; instances whose keypoints weigh nothing are not in it. No gradient.
    """
    keypoints, weights = labelled_keypoints(groundtruth, task, height, width)
    weights *= tf.constant(list(center_weights), tf.float32)
    total = tf.reduce_sum(weights, -1)
    shares = tf.math.divide_no_nan(weights, total[..., None])
    center = tf.reduce_sum(keypoints * shares[..., None], 2)
    side = 2 * tf.reduce_sum(tf.norm(keypoints - center[:, :, None], axis=-1) * shares, -1)
    y, x = tf.unstack(tf.floor(center), axis=-1)
    counted = tf.where(total > 0, groundtruth["weights"], 0.0)
    sigma = gaussian_sigma(side, side, min_iou)
    return tf.stop_gradient(class_heatmap(y, x, sigma, counted, groundtruth["classes"], height, width, num_classes))
