"""Suppression against a plain greedy loop in numpy, box by box."""

import numpy as np
import pytest
import tensorflow as tf

from tfod_zoo.modeling.non_max_suppression import TILE, first_true, multiclass_non_max_suppression


def iou(a, b):
    sides = np.minimum(a[2:], b[2:]) - np.maximum(a[:2], b[:2])
    inner = max(sides[0], 0) * max(sides[1], 0)
    return inner / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - inner) if inner else 0.0


def greedy(boxes, scores, iou_threshold, score_threshold, per_class, total, window):
    """[(class, index, score, clipped box)] of one image, the best first."""
    found = []
    for c in range(scores.shape[1]):
        kept = []
        for i in np.argsort(-scores[:, c], kind="stable"):
            box = boxes[i, min(c, boxes.shape[1] - 1)]
            if scores[i, c] > score_threshold and all(iou(box, other) <= iou_threshold for _, other in kept):
                kept.append((i, box))
        found += [
            (c, i, scores[i, c], np.clip(box, window[[0, 1, 0, 1]], window[[2, 3, 2, 3]]))
            for i, box in kept[:per_class]
        ]
    found = [row for row in found if (row[3][2:] > row[3][:2]).all()]
    return sorted(found, key=lambda row: -row[2])[:total]


def random_boxes(rng, shape, size=100.0):
    corner = rng.uniform(-0.2, 0.9, [*shape, 2])
    return (np.concatenate([corner, corner + rng.uniform(0.01, 0.4, [*shape, 2])], -1) * size).astype(np.float32)


@pytest.mark.parametrize(
    ("count", "shared", "classes", "per_class", "total"),
    [
        (3 * TILE + 17, True, 1, 40, 40),  # several tiles, stopped early
        (TILE + 1, True, 1, 1000, 1000),  # everything is looked at, fewer are left than wanted
        (60, True, 5, 7, 20),
        (60, False, 5, 7, 20),
        (12, True, 3, 100, 300),
    ],
)
@pytest.mark.parametrize("compiled", [False, True])
def test_keeps_what_a_greedy_loop_keeps(count, shared, classes, per_class, total, compiled):
    rng = np.random.default_rng(count + classes)
    boxes = random_boxes(rng, (2, count, 1 if shared else classes))
    scores = rng.choice(np.linspace(0, 1, 40), (2, count, classes)).astype(np.float32)  # many equal ones
    windows = np.array([[0, 0, 100, 100], [10, 0, 60, 70]], np.float32)
    options = dict(iou_threshold=0.3, score_threshold=0.1, max_per_class=per_class, max_total=total)

    @tf.function(jit_compile=compiled)
    def run():
        features = {"row": tf.tile(tf.range(count, dtype=tf.float32)[None, :, None], [2, 1, 2])}
        return multiclass_non_max_suppression(
            tf.constant(boxes),
            tf.constant(scores),
            clip_window=tf.constant(windows),
            additional_fields=features,
            **options,
        )

    got = tf.nest.map_structure(np.array, run()._asdict())
    for image in range(2):
        wanted = greedy(boxes[image], scores[image], 0.3, 0.1, per_class, total, windows[image])
        n = len(wanted)
        assert got["count"][image] == n and n > 0
        assert got["boxes"][image].shape == (total, 4)
        assert [(c, i) for c, i, *_ in wanted] == list(
            zip(got["classes"][image, :n], got["index"][image, :n], strict=True)
        )
        np.testing.assert_array_equal(got["scores"][image, :n], [row[2] for row in wanted])
        np.testing.assert_array_equal(got["boxes"][image, :n], [row[3] for row in wanted])
        np.testing.assert_array_equal(got["fields"]["row"][image, :n, 1], got["index"][image, :n])
        for key in ("boxes", "scores", "classes", "index"):
            assert not got[key][image, n:].any()
        assert not got["fields"]["row"][image, n:].any()


def test_only_the_valid_boxes_compete_and_the_frame_changes():
    boxes = tf.constant([[[[0.0, 0, 10, 10]], [[0, 0, 10, 10]], [[50, 50, 90, 100]]]])
    scores = tf.constant([[[0.2, 0.0], [0.9, 0.9], [0.5, 0.1]]])
    kept = multiclass_non_max_suppression(
        boxes,
        scores,
        iou_threshold=0.5,
        max_per_class=5,
        max_total=4,
        clip_window=tf.constant([[0.0, 0, 100, 100]]),
        change_coordinate_frame=True,
        num_valid_boxes=tf.constant([1]),
    )
    assert kept.count.numpy() == [1]
    np.testing.assert_allclose(kept.boxes[0, 0], [0, 0, 0.1, 0.1], atol=1e-7)
    assert float(kept.scores[0, 0]) == pytest.approx(0.2)


def test_degenerate_boxes_come_last_where_they_are_kept():
    boxes = tf.constant([[[[200.0, 0, 210, 10]], [[0, 0, 10, 10]], [[0, 0, 10, 9]]]])
    scores = tf.constant([[[0.9], [0.5], [0.4]]])
    options = dict(iou_threshold=0.5, max_per_class=4, max_total=4, clip_window=tf.constant([0.0, 0, 100, 100]))
    kept = multiclass_non_max_suppression(boxes, scores, keep_degenerate=True, **options)
    assert kept.count.numpy() == [1]
    np.testing.assert_array_equal(kept.boxes[0], [[0, 0, 10, 10], [100, 0, 100, 10], [0] * 4, [0] * 4])
    np.testing.assert_allclose(kept.scores[0], [0.5, 0, 0, 0])
    dropped = multiclass_non_max_suppression(boxes, scores, **options)
    np.testing.assert_array_equal(dropped.boxes[0, 1:], np.zeros([3, 4]))


def test_first_true():
    mask = tf.constant([[False, True, False, True, True], [False] * 5])
    position, found = first_true(mask, 2)
    assert position.numpy().tolist() == [[1, 3], [0, 0]] and found.numpy().tolist() == [[True, True], [False, False]]
    position, found = first_true(mask, 7)
    assert position.numpy().tolist()[0] == [1, 3, 4, 0, 0, 0, 0] and found.numpy().sum() == 3
