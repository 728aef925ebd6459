"""The COCO evaluation around pycocotools: frames, padding, crowds, sizes and checks, on cases worked out by hand."""

import numpy as np
import pytest
import tensorflow as tf

from tfod_zoo.evaluation.coco import METRIC_NAMES, EvaluationError, evaluate, make_detect_step
from tfod_zoo.evaluation.progress import ImageProgress

MAP, AP50, AP75, SMALL, MEDIUM, LARGE, AR1, AR10, AR100, *_ = METRIC_NAMES
M, K = 6, 4  # padded ground-truth rows, detections an image


class LabelMap:
    """The part of a label map that evaluation uses."""

    def __init__(self, **names):
        self._categories = [{"id": id_, "name": name} for name, id_ in names.items()]
        self.max_id = max(names.values())

    def categories(self):
        return self._categories


class FixedDetector:
    """Finds what it was told for the image whose index is painted in its first pixel."""

    num_classes = 2

    def __init__(self, per_image):
        rows = [self._rows(found) for found in per_image]
        self._boxes, self._scores, self._classes, self._counts = (
            tf.constant(np.stack(part), dtype)
            for part, dtype in zip(
                zip(*rows, strict=True), (tf.float32, tf.float32, tf.int32, tf.int32), strict=True
            )
        )
        self.traces = 0

    @staticmethod
    def _rows(found):
        boxes, scores, classes = np.zeros((K, 4)), np.zeros(K), np.zeros(K)
        for i, (box, score, class_) in enumerate(found):
            boxes[i], scores[i], classes[i] = box, score, class_
        return boxes, scores, classes, np.asarray(len(found))

    def normalize(self, canvas):
        return canvas / 255.0

    def __call__(self, inputs, true_image_shapes, training=False):
        self.traces += 1
        assert inputs.shape.is_fully_defined()
        return {"index": tf.cast(tf.round(inputs[:, 0, 0, 0] * 255.0), tf.int32)}

    def postprocess(self, predictions, true_image_shapes):
        index = predictions["index"]
        return {
            "detection_boxes": tf.gather(self._boxes, index),
            "detection_scores": tf.gather(self._scores, index),
            "detection_classes": tf.gather(self._classes, index),
            "num_detections": tf.gather(self._counts, index),
        }


def dataset(images, batch_size=2, canvas=(64, 64)):
    """Batches of images, dicts of original (h, w), true (h, w) and truths (canvas box, class[, crowd[, area]])."""
    examples = []
    for index, image in enumerate(images):
        boxes, classes = np.zeros((M, 4), np.float32), np.zeros(M, np.int32)
        crowd, area = np.zeros(M, bool), np.zeros(M, np.float32)
        for row, (box, class_, *rest) in enumerate(image["truths"]):
            boxes[row], classes[row] = box, class_
            crowd[row] = rest[0] if rest else False
            area[row] = rest[1] if len(rest) > 1 else 0
        pixels = np.zeros((*canvas, 3), np.float32)
        pixels[0, 0] = index
        examples.append((
            {"image": pixels, "true_image_shape": np.array([*image.get("true", canvas), 3], np.int32),
             "original_shape": np.array(image.get("original", (100, 100)), np.int32), "source_id": b"same for all"},
            {"boxes": boxes, "classes": classes, "weights": np.ones(M, np.float32), "is_crowd": crowd,
             "num_boxes": np.int32(len(image["truths"])), "area": area},
        ))
    for start in range(0, len(examples), batch_size):
        yield tuple(
            {name: tf.constant(np.stack([example[part][name] for example in examples[start : start + batch_size]]))
             for name in examples[0][part]}
            for part in (0, 1)
        )


CATS_DOGS = LabelMap(cat=1, dog=2)
BOX, OTHER = (0.1, 0.2, 0.5, 0.9), (0.5, 0.0, 0.95, 0.4)


def test_perfect_detections_reach_one_and_unseen_sizes_are_minus_one():
    images = [{"truths": [(BOX, 0), (OTHER, 1)]}, {"truths": [(OTHER, 1)]}, {"truths": [(BOX, 0)]}]
    detector = FixedDetector([[(BOX, 0.9, 0), (OTHER, 0.8, 1)], [(OTHER, 0.7, 1)], [(BOX, 0.6, 0)]])
    progress = []
    metrics = evaluate(detector, dataset(images), CATS_DOGS, per_category=True, on_progress=progress.append)
    assert [metrics[name] for name in (MAP, AP50, AP75, AR100)] == pytest.approx([1.0] * 4)
    assert metrics[MEDIUM] == pytest.approx(1.0)  # boxes of 40x70 and 45x40 px: between 32^2 and 96^2
    assert metrics[SMALL] == metrics[LARGE] == -1.0
    assert metrics["per_category"] == pytest.approx({"cat": 1.0, "dog": 1.0})
    assert set(METRIC_NAMES) < set(metrics)
    assert progress == [2, 3]
    assert detector.traces == 1, "the smaller last batch must not be traced again"


def test_hand_computed_average_precision():
    """Two truths; ranked: hit, miss, hit. Precision is 1 up to recall 1/2 and 2/3 above.

    COCO's 101 recall points: 51 of them (0 to .50) at 1, 50 (.51 to 1) at 2/3.
    """
    images = [{"truths": [(BOX, 0)]}, {"truths": [(OTHER, 0)]}]
    detector = FixedDetector([[(BOX, 0.9, 0), ((0.6, 0.6, 0.9, 0.9), 0.8, 0)], [(OTHER, 0.7, 0)]])
    metrics = evaluate(detector, dataset(images), CATS_DOGS, per_category=True)
    assert metrics[MAP] == pytest.approx((51 + 50 * 2 / 3) / 101, abs=1e-6)
    assert metrics["per_category"] == {"cat": pytest.approx(metrics[MAP]), "dog": -1.0}


def test_overlap_counts_at_the_thresholds_it_reaches():
    """A detection of 3/4 of the truth's width has IoU .75: right at .50 to .75, wrong at .80 to .95."""
    images = [{"truths": [((0.0, 0.0, 0.5, 0.8), 0)]}]
    detector = FixedDetector([[((0.0, 0.0, 0.5, 0.62), 0.9, 0)]])  # .775, clear of a rounding at the threshold
    metrics = evaluate(detector, dataset(images), CATS_DOGS)
    assert (metrics[AP50], metrics[AP75]) == pytest.approx((1.0, 1.0))
    assert metrics[MAP] == pytest.approx(0.6)
    assert metrics[AR1] == pytest.approx(0.6)


def test_right_place_wrong_class_counts_for_nothing():
    metrics = evaluate(
        FixedDetector([[(BOX, 0.9, 1)]]), dataset([{"truths": [(BOX, 0)]}]), CATS_DOGS
    )
    assert metrics[MAP] == metrics[AR100] == 0.0


def test_a_crowd_swallows_detections_and_asks_for_none():
    crowd = (0.0, 0.0, 1.0, 0.5)
    images = [{"truths": [(crowd, 0, True), ((0.2, 0.6, 0.8, 0.95), 0)]}]
    inside = [((0.1, 0.1, 0.4, 0.4), 0.95, 0), ((0.5, 0.1, 0.9, 0.4), 0.9, 0)]
    metrics = evaluate(FixedDetector([[*inside, ((0.2, 0.6, 0.8, 0.95), 0.5, 0)]]), dataset(images), CATS_DOGS)
    assert metrics[MAP] == pytest.approx(1.0)  # without the crowd the two better-ranked ones would be misses
    as_object = [{"truths": [(crowd, 0), ((0.2, 0.6, 0.8, 0.95), 0)]}]
    metrics = evaluate(FixedDetector([[*inside, ((0.2, 0.6, 0.8, 0.95), 0.5, 0)]]), dataset(as_object), CATS_DOGS)
    assert metrics[MAP] < 0.3


def test_truth_is_read_in_the_frame_of_the_original_image():
    """A 480x640 image on a 64x64 canvas covers its upper 48 rows: canvas boxes and true-image boxes differ by 4/3."""
    on_image = (0.2, 0.1, 0.8, 0.5)
    on_canvas = (0.2 * 48 / 64, 0.1, 0.8 * 48 / 64, 0.5)
    images = [{"original": (480, 640), "true": (48, 64), "truths": [(on_canvas, 0)]}]
    metrics = evaluate(FixedDetector([[(on_image, 0.9, 0)]]), dataset(images), CATS_DOGS)
    assert metrics[MAP] == pytest.approx(1.0)
    assert metrics[LARGE] == pytest.approx(1.0) and metrics[MEDIUM] == -1.0  # 288 x 256 original pixels
    metrics = evaluate(FixedDetector([[(on_canvas, 0.9, 0)]]), dataset(images), CATS_DOGS)
    assert metrics[MAP] < 0.5


def test_size_is_the_annotations_own_area_where_it_is_known():
    """A box of 40x70 px is medium; an annotation of 500 px^2 in it (a thin mask) is small."""
    detector = FixedDetector([[(BOX, 0.9, 0)]])
    by_annotation = evaluate(detector, dataset([{"truths": [(BOX, 0, False, 500.0)]}]), CATS_DOGS)
    by_box = evaluate(detector, dataset([{"truths": [(BOX, 0)]}]), CATS_DOGS)
    assert (by_annotation[SMALL], by_annotation[MEDIUM]) == (pytest.approx(1.0), -1.0)
    assert (by_box[SMALL], by_box[MEDIUM]) == (-1.0, pytest.approx(1.0))
    assert (by_annotation[MAP], by_box[MAP]) == pytest.approx((1.0, 1.0))


def test_padding_is_not_counted_and_an_empty_image_costs_its_false_positives():
    """Padded truth rows are class 0 boxes of no size: counted, they would keep recall from 1."""
    images = [{"truths": [(BOX, 0)]}, {"truths": []}]
    metrics = evaluate(FixedDetector([[(BOX, 0.9, 0)], []]), dataset(images), CATS_DOGS)
    assert (metrics[MAP], metrics[AR100]) == pytest.approx((1.0, 1.0))
    metrics = evaluate(FixedDetector([[(BOX, 0.8, 0)], [(BOX, 0.9, 0)]]), dataset(images), CATS_DOGS)
    assert metrics[MAP] == pytest.approx(0.5)


def test_nothing_found_is_zero():
    metrics = evaluate(FixedDetector([[]]), dataset([{"truths": [(BOX, 0)]}]), CATS_DOGS)
    assert metrics[MAP] == 0.0


@pytest.mark.parametrize("limit, hits", [(1, 1.0), (3, 2 / 3)])
def test_limit_cuts_within_a_batch(limit, hits):
    images = [{"truths": [(BOX, 0)]} for _ in range(4)]
    detector = FixedDetector([[(BOX, 0.9, 0)], [(BOX, 0.9, 0)], [], []])
    metrics = evaluate(detector, dataset(images, batch_size=4), CATS_DOGS, limit=limit)
    assert metrics[AR100] == pytest.approx(hits)


def test_the_step_can_be_kept_between_evaluations(capfd):
    detector = FixedDetector([[(BOX, 0.9, 0)]])
    step = make_detect_step(detector)
    for _ in range(2):
        evaluate(detector, dataset([{"truths": [(BOX, 0)]}]), CATS_DOGS, detect_step=step)
    assert detector.traces == 1
    assert capfd.readouterr().out == "", "pycocotools must not print"


@pytest.mark.parametrize(
    "images, label_map, sentence",
    [
        ([], CATS_DOGS, "no images"),
        ([{"truths": []}], CATS_DOGS, "no ground-truth boxes"),
        ([{"truths": [(BOX, 1)]}], LabelMap(cat=1), "None of the 1 ground-truth boxes"),
        ([{"truths": [(BOX, 0)]}], LabelMap(cat=1, zebra=24), "the model has 2 classes"),
    ],
)
def test_data_that_cannot_be_evaluated_get_a_sentence(images, label_map, sentence):
    with pytest.raises(EvaluationError, match=sentence):
        evaluate(FixedDetector([[]]), dataset(images), label_map)


def test_a_label_map_of_other_data_is_refused_before_the_end():
    detector = FixedDetector([[]] * 100)
    images = [{"truths": [(BOX, 1)] * M} for _ in range(100)]
    seen = []
    with pytest.raises(EvaluationError, match="label map"):
        evaluate(detector, dataset(images), LabelMap(cat=1), on_progress=seen.append)
    assert seen[-1] < 50


def test_boxes_of_unknown_classes_are_reported_and_left_out(caplog):
    detector = FixedDetector([[(BOX, 0.9, 0), (OTHER, 0.9, 1)]])
    metrics = evaluate(detector, dataset([{"truths": [(BOX, 0), (OTHER, 1)]}]), LabelMap(cat=1))
    assert metrics[MAP] == pytest.approx(1.0)
    assert "1 ground-truth boxes" in caplog.text


def test_scores_that_are_no_numbers_get_a_sentence():
    with pytest.raises(EvaluationError, match="not finite"):
        evaluate(FixedDetector([[(BOX, float("nan"), 0)]]), dataset([{"truths": [(BOX, 0)]}]), CATS_DOGS)


def test_plain_progress_says_what_is_left():
    assert ImageProgress("eval", 100).line(25, 5.0) == "eval: 25 of 100 images, 5.0 images/s, about 15 s left"
    assert ImageProgress("eval").line(25, 5.0) == "eval: 25 images, 5.0 images/s"


def test_label_map_stand_in_has_the_real_ones_interface():
    from tfod_zoo.config.label_map import COCO_LABEL_MAP, read_label_map

    real = read_label_map(COCO_LABEL_MAP)
    assert real.max_id == 90 and {"id": 1, "name": "person"} in real.categories()
