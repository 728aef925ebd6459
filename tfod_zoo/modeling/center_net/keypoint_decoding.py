"""From CenterNet's keypoint maps to keypoints of detections (spec: CenterNet, section 7).

TFOD decodes an image at a time, and with several classes only batches of one; here a batch equals its images.
"""

import tensorflow as tf

from tfod_zoo.modeling.center_net.decoding import at_cells
from tfod_zoo.modeling.center_net.heads import OnDemand
from tfod_zoo.modeling.center_net.keypoint_task import KeypointTask
from tfod_zoo.modeling.center_net.peaks import heatmap_peaks
from tfod_zoo.modeling.center_net.targets import gaussian_sigma

INVALID_DISTANCE = 1e5  # in cells, to candidates whose score is under the threshold
GAUSSIAN_MIN_IOU = 0.7  # fixed for keypoints, whatever the task says for boxes


def keypoint_candidates(
    heatmap: tf.Tensor, offset: tf.Tensor | OnDemand, task: KeypointTask
) -> tuple[tf.Tensor, tf.Tensor]:
    """The best peaks of every keypoint's heatmap, whoever they belong to.

    Args:
      heatmap: `[B, H, W, K]` logits.
      offset: `[B, H, W, 2K]`, or `[B, H, W, 2]` shared by all keypoints.

    Returns:
      points `[B, K, M, 2]` (y, x) in cells and scores `[B, K, M]`, descending.
    """
    height, width, keypoints = heatmap.shape[1:]
    cells = height * width
    peaks = heatmap_peaks(tf.sigmoid(heatmap), task.config.peak_max_pool_kernel_size)
    count = min(task.config.num_candidates_per_keypoint, cells)
    scores, index = tf.math.top_k(tf.reshape(tf.transpose(peaks, [0, 3, 1, 2]), [-1, keypoints, cells]), count)
    y, x = index // width, index % width
    shift = at_cells(offset, *(tf.reshape(cell, [-1, keypoints * count]) for cell in (y, x)))
    if task.config.per_keypoint_offset:  # of those in a cell, every keypoint's own
        of_all = tf.transpose(tf.reshape(shift, [-1, keypoints, count, keypoints, 2]), [1, 0, 2, 3, 4])
        shift = tf.transpose(tf.gather(of_all, tf.range(keypoints), axis=3, batch_dims=1), [1, 0, 2, 3])
    shift = tf.reshape(shift, [-1, keypoints, count, 2])
    return tf.cast(tf.stack([y, x], -1), tf.float32) + shift, scores


def refine_keypoints(
    regressed: tf.Tensor, candidates: tf.Tensor, scores: tf.Tensor, boxes: tf.Tensor | None, task: KeypointTask
) -> tuple[tf.Tensor, tf.Tensor]:
    """Moves each regressed keypoint to the candidate that suits it, where one is near enough.

    Args:
      regressed: `[B, N, K, 2]` (y, x) in cells. candidates: `[B, K, M, 2]`, scores: `[B, K, M]`.
      boxes: `[B, N, 4]` in cells, clipped to the map; None for a model without boxes, where only a candidate's score
        is tested.

    Returns:
      points `[B, N, K, 2]` and scores `[B, N, K]`; where no candidate is accepted, the regressed point and
      `unmatched_keypoint_score`.
    """
    config = task.config
    valid = scores >= config.keypoint_candidate_score_threshold
    away_y, away_x = (regressed[..., None, axis] - candidates[:, None, ..., axis] for axis in (0, 1))
    distance = tf.sqrt(tf.square(away_y) + tf.square(away_x))  # [B, N, K, M]
    distance = tf.where(valid[:, None], distance, INVALID_DISTANCE)
    ranked = _ranked(scores[:, None], distance, boxes, task)
    best = tf.argmax(ranked, -1, output_type=tf.int32)  # [B, N, K]; ties to the lower index
    by_keypoint = tf.transpose(best, [0, 2, 1])  # [B, K, N]
    points = tf.transpose(tf.gather(candidates, by_keypoint, batch_dims=2), [0, 2, 1, 3])
    if config.candidate_ranking_mode == "gaussian_weighted":
        score = tf.reduce_max(ranked, -1)
    else:
        score = tf.transpose(tf.gather(scores, by_keypoint, batch_dims=2), [0, 2, 1])

    rejected = score < config.keypoint_candidate_score_threshold
    if boxes is not None:
        size = _size(boxes) * config.box_scale
        middle = (boxes[..., :2] + boxes[..., 2:]) / 2
        outside = tf.reduce_any(tf.abs(points - middle[:, :, None]) > size[:, :, None] / 2, -1)
        far = tf.reduce_min(distance, -1) > config.candidate_search_scale * tf.reduce_max(size, -1)[..., None]
        rejected |= outside | far
    return tf.where(rejected[..., None], regressed, points), tf.where(rejected, config.unmatched_keypoint_score, score)


def _size(boxes: tf.Tensor) -> tf.Tensor:
    """`[..., 4]` -> heights and widths, `[..., 2]`."""
    return tf.maximum(boxes[..., 2:] - boxes[..., :2], 0.0)


def _ranked(scores: tf.Tensor, distance: tf.Tensor, boxes: tf.Tensor | None, task: KeypointTask) -> tf.Tensor:
    """How well each candidate suits each regressed keypoint, the higher the better: `[B, N, K, M]`.

    Args:
      scores: `[B, 1, K, M]`. distance: `[B, N, K, M]` in cells. boxes: as in `refine_keypoints`; two modes need them.
    """
    config = task.config
    if config.candidate_ranking_mode == "min_distance":
        return -distance
    if config.candidate_ranking_mode == "score_distance_ratio":
        return scores / (distance + config.score_distance_offset)
    size = _size(boxes)
    if config.candidate_ranking_mode == "score_scaled_distance_ratio":
        side = tf.reduce_max(size, -1)[..., None, None]
        return scores / (distance + side * config.score_distance_multiplier)
    spread = tf.constant(task.stds)[:, None] * config.std_dev_multiplier
    spread *= gaussian_sigma(size[..., 0], size[..., 1], GAUSSIAN_MIN_IOU)[..., None, None]
    return scores * tf.exp(-tf.square(distance) / (2 * tf.square(spread)))


def decode_keypoints(
    predictions: dict[str, tf.Tensor | OnDemand],
    detections: dict[str, tf.Tensor],
    cells: tuple[tf.Tensor, tf.Tensor],
    tasks: tuple[KeypointTask, ...],
    true_image_shapes: tf.Tensor,
    num_classes: int,
    stride: int,
) -> dict[str, tf.Tensor]:
    """Keypoints of every detection.

    Args:
      predictions: the last output of each head; heatmaps as they are, others perhaps on demand.
      detections: of `decoding.decode_centers`, and of `decode_boxes` where the model has boxes.
      cells: y and x of the detections' centres, `[B, N]` int32.
      tasks: in the config's order.
      true_image_shapes: `[B, 3]` int32. num_classes: of the model. stride: input pixels per cell.

    Returns:
      `detection_keypoints [B, N, K, 2]` normalised to the true image (not clipped unless the tasks say so),
      `detection_keypoint_scores [B, N, K]`, and `detection_scores` where a task rescores. K counts the keypoints of all
      tasks; those of another class than the detection's are 0. For a model without boxes also `detection_boxes`, which
      enclose the keypoints.
    """
    boxes = detections.get("detection_boxes_strided")
    count = detections["detection_scores"].shape[1]
    points, scores, of_task = [], [], []
    ids: list[int] = []
    for task in tasks:
        key = f"{task.name}/keypoint/"
        centers = tf.cast(tf.stack(cells, -1), tf.float32)[:, :, None]
        moves = at_cells(predictions[key + "regression"], *cells)
        regressed = centers + tf.reshape(moves, [-1, count, len(task.ids), 2])
        candidates = keypoint_candidates(predictions[key + "heatmap"], predictions[key + "offset"], task)
        point, score = refine_keypoints(regressed, *candidates, boxes, task)
        # A model of one class and one task decodes every detection, whatever its score.
        mine = tf.ones_like(detections["detection_classes"], tf.bool)
        if len(tasks) > 1 or num_classes > 1:
            counted = tf.range(count) < detections["num_detections"][:, None]
            mine = counted & (detections["detection_classes"] == task.class_index)
        points.append(tf.where(mine[..., None, None], point, 0.0))
        scores.append(tf.where(mine[..., None], score, 0.0))
        of_task.append(mine)
        ids += task.ids
    order = [ids.index(id) for id in range(len(ids))]
    true_size = tf.cast(true_image_shapes[:, None, None, :2], tf.float32)
    keypoints = tf.gather(tf.concat(points, 2), order, axis=2) * (stride / true_size)
    keypoint_scores = tf.gather(tf.concat(scores, 2), order, axis=2)
    found = {"detection_keypoints": keypoints, "detection_keypoint_scores": keypoint_scores}
    if all(task.config.clip_out_of_frame_keypoints for task in tasks):
        inside = tf.reduce_all((keypoints >= 0) & (keypoints <= 1), -1)
        found["detection_keypoints"] = tf.clip_by_value(keypoints, 0.0, 1.0)
        found["detection_keypoint_scores"] = tf.where(inside, keypoint_scores, 0.0)
    if boxes is None:
        points_found = found["detection_keypoints"]
        enclosing = [tf.reduce_min(points_found, 2), tf.reduce_max(points_found, 2)]
        found["detection_boxes"] = tf.concat(enclosing, -1)
    rescored = detections["detection_scores"]
    for task, mine in zip(tasks, of_task, strict=True):
        if task.config.rescore_instances:
            own = tf.gather(found["detection_keypoint_scores"], task.ids, axis=2)
            strong = own > task.config.rescoring_threshold
            number = tf.maximum(tf.reduce_sum(tf.cast(strong, tf.float32), -1), 1.0)
            mean = tf.reduce_sum(tf.where(strong, own, 0.0), -1) / number
            rescored = tf.where(mine, detections["detection_scores"] * mean, rescored)
    return {**found, "detection_scores": rescored}
