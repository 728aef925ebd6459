"""Keypoint decoding of batches, tasks and options against the specification's steps A to F, one keypoint at a time."""

import dataclasses

import numpy as np
import pytest
import tensorflow as tf

from tfod_zoo.config import schema
from tfod_zoo.config.pipeline import merge_text
from tfod_zoo.errors import ZooError
from tfod_zoo.modeling.center_net import decoding
from tfod_zoo.modeling.center_net.keypoint_decoding import decode_keypoints
from tfod_zoo.modeling.center_net.keypoint_task import KeypointTask, keypoint_tasks
from tfod_zoo.modeling.center_net.targets import gaussian_sigma

SIDE, STRIDE, COUNT = 12, 4, 6
LABEL_MAP = """
item { id: 1 name: "cat" keypoints { id: 0 label: "nose" } keypoints { id: 3 label: "tail" } }
item { id: 2 name: "tree"
       keypoints { id: 1 label: "top" } keypoints { id: 2 label: "left" } keypoints { id: 4 label: "right" } }
item { id: 3 name: "stone" }
"""
LOSS = """
loss { localization_loss { l1_localization_loss {} }
       classification_loss { penalty_reduced_logistic_focal_loss { alpha: 2 beta: 4 } } }
"""


def tasks_of(tmp_path, options="", classes=3):
    """The tasks "cat" (2 keypoints) and "tree" (3), whose ids interleave."""
    (tmp_path / "map.pbtxt").write_text(LABEL_MAP)
    message = schema.message_class("CenterNet")()
    message.num_classes, message.keypoint_label_map_path = classes, str(tmp_path / "map.pbtxt")
    for name in ("cat", "tree"):
        merge_text(
            message.keypoint_estimation_task.add(),
            f'task_name: "{name}" keypoint_class_name: "{name}" num_candidates_per_keypoint: 9 {LOSS} {options}',
        )
    return keypoint_tasks(message)


def random_maps(tasks, batch, classes, seed):
    random = np.random.default_rng(seed)

    def normal(mean, spread, depth):
        return random.normal(mean, spread, [batch, SIDE, SIDE, depth]).astype(np.float32)

    maps = {"center": normal(-1, 2, classes), "scale": normal(6, 3, 2), "offset": normal(0.5, 0.2, 2)}
    for task in tasks:
        count, key = len(task.ids), f"{task.name}/keypoint/"
        maps[key + "heatmap"] = normal(-0.5, 1.5, count)
        maps[key + "regression"] = normal(0, 2, 2 * count)
        maps[key + "offset"] = normal(0.5, 0.3, 2 * count if task.config.per_keypoint_offset else 2)
    return maps


def decoded(maps, tasks, shapes, classes, boxes=True):
    maps = {key: tf.constant(value) for key, value in maps.items()}
    detections, cells = decoding.decode_centers(maps["center"], tf.constant(shapes), COUNT, maps["center"].shape[-1])
    if boxes:
        detections |= decoding.decode_boxes(maps["scale"], maps["offset"], cells, tf.constant(shapes), STRIDE)
    found = decode_keypoints(maps, detections, cells, tasks, tf.constant(shapes), classes, STRIDE)
    return (
        {key: value.numpy() for key, value in detections.items()},
        np.stack([cell.numpy() for cell in cells], -1),
        {key: value.numpy() for key, value in found.items()},
    )


def best_candidates(heatmap, offset, config):
    """The peaks of one keypoint: points and scores, best first."""
    probability = 1 / (1 + np.exp(-heatmap.astype(np.float64)))
    reach, peaks = config.peak_max_pool_kernel_size // 2, []
    for y in range(SIDE):
        for x in range(SIDE):
            around = probability[max(y - reach, 0) : y + reach + 1, max(x - reach, 0) : x + reach + 1]
            peaks.append(probability[y, x] if probability[y, x] >= around.max() - 1e-9 else 0.0)
    order = np.argsort(-np.array(peaks), kind="stable")[: config.num_candidates_per_keypoint]
    points = [np.array([i // SIDE, i % SIDE]) + offset[i // SIDE, i % SIDE] for i in order]
    return points, [peaks[i] for i in order]


def refined(regressed, points, scores, box, std, config):
    """Steps C to F of the specification for one keypoint of one detection."""
    valid = [score >= config.keypoint_candidate_score_threshold for score in scores]
    distance = [np.linalg.norm(regressed - p) if ok else 1e5 for p, ok in zip(points, valid, strict=True)]
    ranked = [-d for d in distance]
    if box is not None:
        size = box[2:] - box[:2]
    if config.candidate_ranking_mode == "score_distance_ratio":
        ranked = [s / (d + config.score_distance_offset) for s, d in zip(scores, distance, strict=True)]
    elif config.candidate_ranking_mode == "score_scaled_distance_ratio":
        by = max(size) * config.score_distance_multiplier
        ranked = [s / (d + by) for s, d in zip(scores, distance, strict=True)]
    elif config.candidate_ranking_mode == "gaussian_weighted":
        sigma = std * config.std_dev_multiplier * float(gaussian_sigma(*map(tf.constant, size.tolist()), 0.7))
        ranked = [s * np.exp(-(d**2) / (2 * sigma**2)) for s, d in zip(scores, distance, strict=True)]
    best = int(np.argmax(ranked))
    score = ranked[best] if config.candidate_ranking_mode == "gaussian_weighted" else scores[best]
    accepted = score >= config.keypoint_candidate_score_threshold
    if box is not None:
        middle, half = (box[:2] + box[2:]) / 2, size * config.box_scale / 2
        accepted &= bool(np.all(np.abs(points[best] - middle) <= half))
        accepted &= min(distance) <= config.candidate_search_scale * 2 * max(half)
    return (points[best], score) if accepted else (regressed, config.unmatched_keypoint_score)


def by_the_book(maps, detections, cells, tasks, shapes, classes):
    """Keypoints, their scores and the detections' scores, image by image."""
    batch, total = len(shapes), sum(len(task.ids) for task in tasks)
    keypoints, scores = np.zeros([batch, COUNT, total, 2]), np.zeros([batch, COUNT, total])
    rescored = detections["detection_scores"].astype(np.float64)
    everything = len(tasks) == 1 and classes == 1
    for b in range(batch):
        for task in tasks:
            key, config = f"{task.name}/keypoint/", task.config
            for j, id in enumerate(task.ids):
                shift = 2 * j if config.per_keypoint_offset else 0
                offset = maps[key + "offset"][b, ..., shift : shift + 2]
                candidates = best_candidates(maps[key + "heatmap"][b, ..., j], offset, config)
                for i in range(COUNT):
                    mine = (
                        i < detections["num_detections"][b]
                        and detections["detection_classes"][b, i] == task.class_index
                    )
                    if not (mine or everything):
                        continue
                    y, x = cells[b, i]
                    regressed = np.array([y, x]) + maps[key + "regression"][b, y, x, 2 * j : 2 * j + 2]
                    box = (
                        detections["detection_boxes_strided"][b, i] if "detection_boxes_strided" in detections else None
                    )
                    point, score = refined(regressed, *candidates, box, task.stds[j], config)
                    keypoints[b, i, id] = point * STRIDE / np.array(shapes[b][:2])
                    scores[b, i, id] = score
        if all(task.config.clip_out_of_frame_keypoints for task in tasks):
            scores[b][((keypoints[b] < 0) | (keypoints[b] > 1)).any(-1)] = 0
            keypoints[b] = np.clip(keypoints[b], 0, 1)
        for task in tasks:
            for i in range(COUNT):
                if task.config.rescore_instances and detections["detection_classes"][b, i] == task.class_index:
                    strong = [s for s in scores[b, i, list(task.ids)] if s > task.config.rescoring_threshold]
                    rescored[b, i] = detections["detection_scores"][b, i] * sum(strong) / max(len(strong), 1)
    return keypoints, scores, rescored


MODES = ["min_distance", "score_distance_ratio", "score_scaled_distance_ratio", "gaussian_weighted"]
OPTIONS = {
    "defaults": "",
    "own offsets": "per_keypoint_offset: true",
    "clipped": "clip_out_of_frame_keypoints: true",
    "rescored": "rescore_instances: true rescoring_threshold: 0.2 clip_out_of_frame_keypoints: true",
    "tests": "box_scale: 0.8 candidate_search_scale: 0.6 keypoint_candidate_score_threshold: 0.3 "
    "unmatched_keypoint_score: 0.05 peak_max_pool_kernel_size: 5 score_distance_offset: 0.2 "
    "score_distance_multiplier: 0.4 std_dev_multiplier: 2 keypoint_label_to_std { key: 'top' value: 0.5 }",
}


@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize(
    ("mode", "boxes"),
    [*((mode, True) for mode in MODES), *((mode, False) for mode in MODES[:2])],  # the others rank by the box
)
def test_two_tasks_in_a_batch(tmp_path, mode, boxes, options):
    tasks = tasks_of(tmp_path, f'candidate_ranking_mode: "{mode}" {OPTIONS[options]}')
    shapes = [[48, 48, 3], [40, 30, 3], [48, 20, 3]]
    maps = random_maps(tasks, batch=3, classes=3, seed=len(options))
    detections, cells, found = decoded(maps, tasks, shapes, classes=3, boxes=boxes)
    assert len(np.unique(detections["detection_classes"])) == 3
    keypoints, scores, rescored = by_the_book(maps, detections, cells, tasks, shapes, classes=3)
    np.testing.assert_allclose(found["detection_keypoints"], keypoints, atol=1e-4)
    np.testing.assert_allclose(found["detection_keypoint_scores"], scores, atol=1e-5)
    np.testing.assert_allclose(found["detection_scores"], rescored, atol=1e-5)
    accepted = scores[(scores > 0)] != tasks[0].config.unmatched_keypoint_score
    assert accepted.any() and (not boxes or not accepted.all())  # both kinds were compared


def test_one_task_of_one_class_decodes_every_detection(tmp_path):
    task = dataclasses.replace(tasks_of(tmp_path)[0], ids=(0, 1))
    maps = random_maps([task], batch=2, classes=1, seed=3)
    maps["center"][:] = -200.0
    maps["center"][:, 5, 5] = 2.0  # one peak an image: the other detections score 0
    shapes = [[48, 48, 3], [40, 30, 3]]
    detections, cells, found = decoded(maps, (task,), shapes, classes=1)
    assert detections["num_detections"].tolist() == [1, 1]
    keypoints, scores, _ = by_the_book(maps, detections, cells, (task,), shapes, classes=1)
    assert (scores > 0).all()
    np.testing.assert_allclose(found["detection_keypoints"], keypoints, atol=1e-4)
    np.testing.assert_allclose(found["detection_keypoint_scores"], scores, atol=1e-5)


def test_a_task_of_a_class_that_the_model_lacks_is_refused(tmp_path):
    with pytest.raises(ZooError, match='"tree" has id 2 in the label map, but num_classes is 1'):
        tasks_of(tmp_path, classes=1)
    assert [task.ids for task in tasks_of(tmp_path)] == [(0, 3), (1, 2, 4)]
    assert all(isinstance(task, KeypointTask) for task in tasks_of(tmp_path))
