"""Keypoint metrics of one class: the same numbers as pycocotools from COCO's own files, and what must not matter."""

import contextlib
import io
import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval, Params

from tfod_zoo.config.generate import generate_pipeline
from tfod_zoo.config.label_map import PERSON_KEYPOINTS_LABEL_MAP, LabelMap, LabelMapItem, read_label_map
from tfod_zoo.config.schema import message_class
from tfod_zoo.evaluation.annotations import EvaluationError
from tfod_zoo.evaluation.coco_keypoints import (
    KEYPOINT_METRICS,
    KeypointClass,
    KeypointCollector,
    keypoint_classes,
    keypoint_metric_name,
)

PERSON = KeypointClass(1, "person", tuple(range(17)), tuple(Params("keypoints").kpt_oks_sigmas.round(6).tolist()))
SIZE = np.array([480.0, 640.0])


def people(rng, count, *, side=(20, 300)):
    """`count` persons in an image of SIZE: boxes (y, x, y, x) and keypoints [17, 2] in pixels, NaN = not labelled."""
    sides = rng.uniform(*side, (count, 2))
    corners = rng.uniform(0, SIZE - sides)
    points = corners[:, None] + rng.uniform(0, 1, (count, 17, 2)) * sides[:, None]
    points[rng.random((count, 17)) < 0.3] = np.nan
    return np.concatenate([corners, corners + sides], 1), points


def image(rng, *, objects=3, jitter=6.0, surplus=4, class_=0):
    """Ground truth and detections of one image, as the collector takes them."""
    boxes, points = people(rng, objects)
    if objects > 1:
        points[0] = np.nan  # COCO has many persons without a labelled keypoint
    truth = {
        "boxes": boxes / np.tile(SIZE, 2), "keypoints": points / SIZE, "classes": np.full(objects, class_),
        "is_crowd": rng.random(objects) < 0.15, "area": np.where(rng.random(objects) < 0.5, 0.6, 0)
        * np.prod(boxes[:, 2:] - boxes[:, :2], 1),
    }
    found = np.where(np.isnan(points), rng.uniform(0, 400, points.shape), points) + rng.normal(0, jitter, points.shape)
    _, wrong = people(rng, surplus)
    found = np.concatenate([found, np.nan_to_num(wrong, nan=5.0)])
    count = len(found)
    return truth, {
        "detection_keypoints": found / SIZE, "detection_scores": rng.permutation(np.linspace(0.1, 0.9, count)),
        "detection_classes": np.full(count, class_),
    }


def measure(images, of=PERSON):
    collector = KeypointCollector(of)
    for index, (truth, detections) in enumerate(images):
        collector.add_image(index, truth, detections, scale_hw=SIZE, original_hw=SIZE)
    return collector.metrics(len(images))


def from_coco_files(images, of=PERSON):
    """The same through pycocotools alone: annotations and results as COCO's JSON has them."""
    truths, results = [], []
    for index, (truth, detections) in enumerate(images):
        mine = truth["classes"] == of.category_id - 1
        for box, points, area, crowd in zip(
            truth["boxes"][mine] * np.tile(SIZE, 2), truth["keypoints"][mine][:, list(of.ids)] * SIZE,
            truth["area"][mine], truth["is_crowd"][mine], strict=True,
        ):
            flat = [[0, 0, 0] if np.isnan(x) else [x, y, 2] for y, x in points]
            height, width = box[2:] - box[:2]
            truths.append({
                "id": len(truths) + 1, "image_id": index, "category_id": of.category_id, "iscrowd": int(crowd),
                "bbox": [box[1], box[0], width, height], "area": area or width * height,
                "keypoints": np.array(flat, float).ravel().tolist(), "num_keypoints": sum(v > 0 for _, _, v in flat),
            })
        for points, score, class_ in zip(
            detections["detection_keypoints"][:, list(of.ids)] * SIZE, detections["detection_scores"],
            detections["detection_classes"], strict=True,
        ):
            if class_ == of.category_id - 1:
                results.append({"image_id": index, "category_id": of.category_id, "score": float(score),
                                "keypoints": [float(v) for y, x in points for v in (x, y, 1)]})
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO()
        coco.dataset = json.loads(json.dumps({
            "images": [{"id": index} for index in range(len(images))], "annotations": truths,
            "categories": [{"id": of.category_id, "name": of.name}],
        }))
        coco.createIndex()
        evaluator = COCOeval(coco, coco.loadRes(json.loads(json.dumps(results))), "keypoints")
        evaluator.params.kpt_oks_sigmas = np.asarray(of.sigmas)
        evaluator.evaluate()
        evaluator.accumulate()
        evaluator.summarize()
    return evaluator.stats


@pytest.mark.parametrize("seed", range(6))
def test_equals_pycocotools_on_coco_files(seed):
    rng = np.random.default_rng(seed)
    images = [image(rng, objects=int(rng.integers(0, 6)), jitter=rng.uniform(1, 15)) for _ in range(12)]
    images.append(image(rng, objects=3, surplus=40))  # more than the 20 that are looked at
    ours, theirs = measure(images), from_coco_files(images)
    assert list(ours) == [f"Keypoints_{metric} ByCategory/person" for metric in KEYPOINT_METRICS]
    assert list(ours.values()) == pytest.approx(theirs.tolist(), abs=1e-12)
    assert 0 < theirs[0] < 1


def test_what_pycocotools_would_not_look_at_is_not_kept():
    collector = KeypointCollector(PERSON)
    truth, detections = image(np.random.default_rng(0), surplus=97)
    collector.add_image(0, truth, detections, scale_hw=SIZE, original_hw=SIZE)
    assert len(collector.found) == 20
    assert min(found["score"] for found in collector.found) > np.sort(detections["detection_scores"])[-21]


def test_each_class_has_its_own_keypoints_and_sigmas():
    rng = np.random.default_rng(3)
    head, feet = KeypointClass(1, "dog", (0, 1, 2), (0.03, 0.1, 0.05)), KeypointClass(2, "cat", (3, 5), (0.2, 0.02))
    images = []
    for _ in range(8):
        parts = [image(rng, class_=0, jitter=5.0), image(rng, class_=1, jitter=9.0)]
        images.append(tuple({key: np.concatenate([part[i][key] for part in parts]) for key in parts[0][i]}
                            for i in (0, 1)))
    for of in (head, feet):
        ours = measure(images, of)
        assert list(ours.values()) == pytest.approx(from_coco_files(images, of).tolist(), abs=1e-12)
        assert f"Keypoints_Precision/mAP ByCategory/{of.name}" in ours
    assert measure(images, head) != measure(images, feet)


def test_perfect_detections_reach_one_and_unlabelled_objects_cost_nothing():
    rng = np.random.default_rng(1)
    images = [image(rng, jitter=0.0, surplus=0) for _ in range(5)]
    for truth, _ in images:
        truth["is_crowd"][:] = False
    metrics = measure(images)
    assert metrics[keypoint_metric_name("Precision/mAP", "person")] == pytest.approx(1.0)
    assert metrics[keypoint_metric_name("Recall/AR@1", "person")] == pytest.approx(1.0)


def test_oks_by_hand():
    """One keypoint, sigma .1, area 10000: 10 px off is exp(-10^2 / (2 * 10000 * (2 * .1)^2)) = .8825 of OKS."""
    truth = {"boxes": np.array([[0.1, 0.1, 0.5, 0.5]]), "keypoints": np.array([[[240.0, 320.0]]]) / SIZE,
             "classes": np.array([0]), "is_crowd": np.array([False]), "area": np.array([10000.0])}
    detections = {"detection_keypoints": np.array([[[240.0, 330.0]]]) / SIZE, "detection_scores": np.array([0.9]),
                  "detection_classes": np.array([0])}
    metrics = measure([(truth, detections)], KeypointClass(1, "ball", (0,), (0.1,)))
    assert metrics["Keypoints_Precision/mAP ByCategory/ball"] == pytest.approx(0.8)  # right at .50 to .85: 8 of 10
    assert metrics["Keypoints_Precision/mAP (medium) ByCategory/ball"] == -1.0  # 10000 px^2 is large: above 96^2


def test_no_labelled_keypoint_no_metric():
    truth, detections = image(np.random.default_rng(2))
    truth["keypoints"][:] = np.nan
    assert measure([(truth, detections)]) == {}


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10**6), objects=st.integers(1, 5), jitter=st.floats(0, 40))
def test_order_of_detections_does_not_matter_and_a_late_false_alarm_never_helps(seed, objects, jitter):
    rng = np.random.default_rng(seed)
    images = [image(rng, objects=objects, jitter=jitter) for _ in range(3)]
    metrics = measure(images)
    if not metrics:
        return
    assert all(value == -1 or 0 <= value <= 1 for value in metrics.values())
    shuffled = []
    for truth, detections in images:
        order = rng.permutation(len(detections["detection_scores"]))
        shuffled.append((truth, {key: value[order] for key, value in detections.items()}))
    assert measure(shuffled) == pytest.approx(metrics, abs=1e-9)
    truth, detections = images[0]
    alarm = {"detection_keypoints": np.full((1, 17, 2), 3.0), "detection_scores": np.array([0.01]),
             "detection_classes": np.array([0])}
    with_alarm = {key: np.concatenate([value, alarm[key]]) for key, value in detections.items()}
    key = keypoint_metric_name("Precision/mAP", "person")
    assert measure([(truth, with_alarm), *images[1:]])[key] <= metrics[key] + 1e-12


def eval_config(*blocks):
    config = message_class("EvalConfig")()
    for label, sigmas in blocks:
        block = config.parameterized_metric.add().coco_keypoint_metrics
        block.class_label = label
        for name, sigma in sigmas.items():
            block.keypoint_label_to_sigmas[name] = sigma
    return config


SHAPES = LabelMap((LabelMapItem(1, "circle", keypoints=((1, "right"), (0, "top"))), LabelMapItem(2, "line")))


def test_published_config_has_cocos_sigmas():
    config = generate_pipeline("centernet_resnet50_v1_fpn_512x512_kpts_coco17_tpu-8").eval_config
    label_map = read_label_map(PERSON_KEYPOINTS_LABEL_MAP)
    assert keypoint_classes(config, label_map) == (PERSON,)
    assert keypoint_classes(eval_config(), label_map) == (PERSON,), "and they are the default for COCO's keypoints"


def test_sigmas_are_those_of_the_config_by_label_in_the_order_of_ids():
    (circle,) = keypoint_classes(eval_config(("circle", {"right": 0.2, "top": 0.1, "other": 3.0})), SHAPES)
    assert (circle.category_id, circle.ids, circle.sigmas) == (1, (0, 1), (0.1, 0.2))
    (circle,) = keypoint_classes(eval_config(), SHAPES)
    assert circle.sigmas == (0.05, 0.05)


@pytest.mark.parametrize(
    "blocks, sentence",
    [
        ([("triangle", {})], "no class of the label map"),
        ([("line", {})], "no keypoints in the label map"),
        ([("circle", {"top": 0.1})], "no number above 0 for right"),
        ([("circle", {"top": 0.1, "right": 0.0})], "no number above 0 for right"),
        ([("circle", {}), ("circle", {})], "named twice"),
    ],
)
def test_blocks_that_do_not_fit_get_a_sentence(blocks, sentence):
    with pytest.raises(EvaluationError, match=sentence):
        keypoint_classes(eval_config(*blocks), SHAPES)


@pytest.mark.parametrize("sizes, sentence", [((1, 2), "data have 1 keypoints"), ((2, 1), "model has 1 keypoints")])
def test_keypoints_without_a_place_get_a_sentence(sizes, sentence):
    (circle,) = keypoint_classes(eval_config(), SHAPES)
    with pytest.raises(EvaluationError, match=sentence):
        KeypointCollector(circle).check_sizes(*sizes)
    KeypointCollector(circle).check_sizes(2, 2)
