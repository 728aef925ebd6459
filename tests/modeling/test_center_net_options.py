"""Options of the CenterNet message beyond those that the zoo's configs use, one by one."""

import numpy as np
import pytest
import tensorflow as tf
import tf_keras

import tfod_zoo
from tfod_zoo.config.pipeline import merge_text
from tfod_zoo.errors import ZooError
from tfod_zoo.modeling.center_net import keypoint_targets
from tfod_zoo.modeling.center_net.keypoint_decoding import keypoint_candidates, refine_keypoints
from tfod_zoo.modeling.center_net.keypoint_task import keypoint_tasks

KPTS = "centernet_resnet50_v2_512x512_kpts_coco17_tpu-8"
NAN = float("nan")


def pipeline_of(text="", boxes=True, classes=2, kind="hourglass_10", size=(64, 64)):
    """A small model with person keypoints; `text` is merged into its center_net."""
    pipeline = tfod_zoo.generate_pipeline(KPTS)
    center_net = pipeline.model.center_net
    center_net.feature_extractor.type, center_net.num_classes = kind, classes
    if not boxes:
        center_net.ClearField("object_detection_task")
    merge_text(center_net, text)
    center_net.image_resizer.fixed_shape_resizer.height, center_net.image_resizer.fixed_shape_resizer.width = size
    return pipeline


def random_groundtruth(batch, classes, seed=0, objects=3):
    random = np.random.default_rng(seed)
    low, side = random.uniform(0, 0.5, [batch, objects, 2]), random.uniform(0.1, 0.4, [batch, objects, 2])
    keypoints = random.uniform(0, 1, [batch, objects, 17, 2])
    keypoints[random.uniform(size=[batch, objects, 17]) < 0.3] = NAN
    return {
        "boxes": tf.constant(np.concatenate([low, low + side], -1), tf.float32),
        "classes": tf.constant(random.integers(0, classes, [batch, objects]), tf.int32),
        "weights": tf.ones([batch, objects]),
        "keypoints": tf.constant(keypoints, tf.float32),
    }


def all_losses(model, groundtruth, batch=2):
    height, width = model.input_shape_hw
    images = tf.random.stateless_uniform([batch, height, width, 3], [3, 4], 0, 255)
    inputs, shapes = model.preprocess(images)
    return {k: float(v) for k, v in model.compute_losses(model(inputs, shapes), groundtruth, shapes).items()}


class TestWithoutBoxes:
    """A model of keypoints alone."""

    def test_heads_losses_and_detections(self):
        tf_keras.utils.set_random_seed(0)  # weights with which persons are among the detections
        model = tfod_zoo.build(pipeline_of(boxes=False))
        assert list(model.heads) == [
            "object_center",
            *(f"human_pose/keypoint/{k}" for k in ("heatmap", "regression", "offset")),
        ]
        assert set(all_losses(model, random_groundtruth(2, 2))) == {
            "Loss/object_center",
            *(f"Loss/human_pose/keypoint/{k}" for k in ("heatmap", "regression", "offset")),
        }
        detections = model.detect(np.random.default_rng(0).integers(0, 256, [2, 50, 70, 3], dtype=np.uint8))
        assert set(detections) == {
            *("detection_boxes", "detection_scores", "detection_multiclass_scores", "detection_classes"),
            *("num_detections", "detection_keypoints", "detection_keypoint_scores"),
        }
        keypoints = detections["detection_keypoints"].numpy()
        expected = np.concatenate([keypoints.min(2), keypoints.max(2)], -1)
        np.testing.assert_array_equal(detections["detection_boxes"], expected)
        assert (detections["detection_boxes"].numpy() != 0).any()

    def test_only_the_score_decides_on_a_candidate(self):
        task = keypoint_tasks(pipeline_of().model.center_net)[0]
        regressed = tf.constant([[[(2.0, 2), (6, 6), (1, 9)]]])
        candidates = tf.constant([[[(2.5, 2), (4, 4)], [(6, 9), (6, 6.2)], [(1, 9.5), (1.2, 9)]]])
        scores = tf.constant([[[0.9, 0.2], [0.8, 0.05], [0.3, 0.2]]])
        points, kept = refine_keypoints(regressed, candidates, scores, None, task)
        np.testing.assert_allclose(points[0, 0], [(2.5, 2), (6, 9), (1.2, 9)], atol=1e-6)  # spec, section 20
        np.testing.assert_allclose(kept[0, 0], [0.9, 0.8, 0.2], atol=1e-6)

    @pytest.mark.parametrize("mode", ["score_scaled_distance_ratio", "gaussian_weighted"])
    def test_ranking_by_the_box_is_refused(self, mode):
        pipeline = pipeline_of(boxes=False)
        pipeline.model.center_net.keypoint_estimation_task[0].candidate_ranking_mode = mode
        with pytest.raises(ZooError, match=f"candidate_ranking_mode {mode} needs boxes"):
            tfod_zoo.build(pipeline)


class TestCentersFromKeypoints:
    WEIGHTS = (
        "object_center_params { " + "keypoint_weights_for_center: 1 " * 3 + "keypoint_weights_for_center: 0 " * 14 + "}"
    )

    def test_center_is_the_weighted_mean_and_its_spread_that_of_the_distances(self):
        task = keypoint_tasks(pipeline_of(self.WEIGHTS, boxes=False).model.center_net)[0]
        keypoints = np.full([1, 3, 17, 2], NAN, np.float32)
        # (8, 8), (8, 24) and a third that is not labelled: centre (8, 16), 8 away from each. The rest has no weight.
        keypoints[0, 0, :2] = [(8 / 32, 8 / 32), (8 / 32, 24 / 32)]
        keypoints[0, 0, 3:] = 0.9
        keypoints[0, 1, 3:] = 0.5  # nothing that counts is labelled
        keypoints[0, 2] = 0.5  # not a person
        groundtruth = {
            "classes": tf.constant([[0, 0, 1]]),
            "weights": tf.ones([1, 3]),
            "keypoints": tf.constant(keypoints),
        }
        heatmap = keypoint_targets.center_heatmap(groundtruth, task, [1.0] * 3 + [0.0] * 14, 32, 32, 2, 0.7).numpy()[0]
        assert not heatmap[..., 1].any()
        # A box of 16 cells a side has a spread of 9/6 cells: floor of its radius 4.37 twice, plus one, over six.
        rows, columns = np.mgrid[:32, :32]
        expected = np.exp(-((rows - 8) ** 2 + (columns - 16) ** 2) / (2 * 1.5**2))
        np.testing.assert_allclose(heatmap[..., 0], expected, atol=1e-5)

    def test_it_takes_part_in_the_loss(self):
        groundtruth = random_groundtruth(2, 1)
        by_keypoints = tfod_zoo.build(pipeline_of(self.WEIGHTS, boxes=False, classes=1))
        by_boxes = tfod_zoo.build(pipeline_of(boxes=False, classes=1))
        for one, other in zip(by_keypoints.variables, by_boxes.variables, strict=True):
            other.assign(one)
        ours, theirs = all_losses(by_keypoints, groundtruth), all_losses(by_boxes, groundtruth)
        assert ours.pop("Loss/object_center") != pytest.approx(theirs.pop("Loss/object_center"), rel=1e-3)
        assert ours == pytest.approx(theirs)

    @pytest.mark.parametrize(
        ("boxes", "text", "part"),
        [
            (True, WEIGHTS, "no object_detection_task"),
            (False, "object_center_params { keypoint_weights_for_center: 1 }", "1 weights for 17 keypoints"),
            (False, "object_center_params { keypoint_weights_for_center: -1 }", "negative"),
        ],
    )
    def test_what_does_not_fit_is_refused(self, boxes, text, part):
        with pytest.raises(ZooError, match=part):
            tfod_zoo.build(pipeline_of(text, boxes=boxes))


class TestLabelledClasses:
    def test_classes_nobody_looked_for_cost_nothing(self):
        model = tfod_zoo.build(pipeline_of("object_center_params { use_labeled_classes: true }"))
        groundtruth = random_groundtruth(2, 1)
        everything = all_losses(model, groundtruth)["Loss/object_center"]
        first = all_losses(model, {**groundtruth, "labeled_classes": tf.constant([[1.0, 0], [1, 0]])})
        second = all_losses(model, {**groundtruth, "labeled_classes": tf.constant([[0.0, 1], [0, 1]])})
        none = all_losses(model, {**groundtruth, "labeled_classes": tf.zeros([2, 2])})
        assert first["Loss/object_center"] + second["Loss/object_center"] == pytest.approx(everything, rel=1e-4)
        assert 0 < second["Loss/object_center"] < everything
        assert none["Loss/object_center"] == pytest.approx(everything)  # none listed: all were looked for
        for key in set(first) - {"Loss/object_center"}:
            assert first[key] == pytest.approx(second[key])

    def test_without_the_option_they_are_not_read(self):
        model = tfod_zoo.build(pipeline_of())
        groundtruth = random_groundtruth(2, 1)
        listed = {**groundtruth, "labeled_classes": tf.constant([[1.0, 0], [1, 0]])}
        assert all_losses(model, listed) == pytest.approx(all_losses(model, groundtruth))


def test_sparse_heatmaps_are_the_same_numbers():
    groundtruth = random_groundtruth(2, 2)
    dense, sparse = (tfod_zoo.build(pipeline_of(f"compute_heatmap_sparse: {value}")) for value in ("false", "true"))
    for one, other in zip(dense.variables, sparse.variables, strict=True):
        other.assign(one)
    assert all_losses(dense, groundtruth) == pytest.approx(all_losses(sparse, groundtruth))


@pytest.mark.parametrize(
    ("kernel", "survivors"), [(0, [0.9, 0.8, 0.7]), (1, [0.9, 0.8, 0.7]), (3, [0.9, 0.7]), (5, [0.9])]
)
def test_peak_max_pool_kernel_size(kernel, survivors):
    """0.8 is one cell from 0.9, and 0.7 two cells from 0.8."""
    pipeline = pipeline_of()
    pipeline.model.center_net.keypoint_estimation_task[0].peak_max_pool_kernel_size = kernel
    task = keypoint_tasks(pipeline.model.center_net)[0]
    logits = np.full([1, 8, 8, 17], -20, np.float32)
    for x, probability in ((2, 0.9), (3, 0.8), (5, 0.7)):
        logits[0, 4, x, 5] = np.log(probability / (1 - probability))
    _, scores = keypoint_candidates(tf.constant(logits), tf.zeros([1, 8, 8, 34]), task)
    found = scores.numpy()[0, 5]
    np.testing.assert_allclose(found[found > 0.1], survivors, atol=1e-5)


@pytest.mark.parametrize(("batch", "size", "classes"), [(1, (64, 96), 5), (3, (40, 72), 1), (2, (64, 64), 90)])
def test_head_options_sizes_and_class_counts(batch, size, classes):
    pipeline = pipeline_of(
        """
        use_depthwise: true
        object_center_params { max_box_predictions: 7 center_head_params { num_filters: [16, 8] kernel_sizes: [5, 3] } }
        object_detection_task { scale_head_params {} offset_head_params { num_filters: 4 kernel_sizes: 1 } }
        """,
        classes=classes,
        size=size,
    )
    merge_text(
        pipeline.model.center_net.keypoint_estimation_task[0],
        "per_keypoint_offset: false regress_head_params { num_filters: 12 kernel_sizes: 3 }",
    )
    model = tfod_zoo.build(pipeline)
    shapes = {key.split("/", 2)[2]: tuple(value.shape) for key, value in model.keyed_variables.items()}
    center, end = "object_center/0/layer_with_weights-", "/.ATTRIBUTES/VARIABLE_VALUE"
    assert shapes[f"{center}0/depthwise_kernel{end}"] == (5, 5, 64, 1)
    assert shapes[f"{center}1/pointwise_kernel{end}"] == (1, 1, 16, 8)
    assert shapes[f"{center}2/kernel{end}"] == (1, 1, 8, classes)
    assert shapes[f"box.Sscale/0/layer_with_weights-0/kernel{end}"] == (1, 1, 64, 2)
    assert shapes[f"human_pose.Skeypoint.Soffset/0/layer_with_weights-1/kernel{end}"] == (1, 1, 256, 2)
    images = np.random.default_rng(0).integers(0, 256, [batch, 30, 50, 3], dtype=np.uint8)
    detections = model.detect(images)
    assert detections["detection_keypoints"].shape == (batch, 7, 17, 2)
    assert detections["detection_multiclass_scores"].shape == (batch, 7, classes)
    alone = model.detect(images[-1:])
    np.testing.assert_allclose(alone["detection_boxes"][0], detections["detection_boxes"][-1], atol=1e-4)
    assert all(np.isfinite(value) for value in all_losses(model, random_groundtruth(batch, classes), batch).values())


def test_losses_of_a_batch_are_those_of_its_images_by_their_objects():
    """Sums over a batch are divided by its objects: equal counts make the batch the mean of its images."""
    model = tfod_zoo.build(pipeline_of(boxes=True, classes=1))
    groundtruth = random_groundtruth(3, 1)
    # Every keypoint labelled and far from the border: the keypoint losses' weight sums are equal too.
    groundtruth["keypoints"] = tf.random.stateless_uniform([3, 3, 17, 2], [1, 2], 0.3, 0.6)
    groundtruth["boxes"] = tf.tile(tf.constant([[[0.3, 0.3, 0.6, 0.6]]]), [3, 3, 1])
    images = tf.random.stateless_uniform([3, 64, 64, 3], [3, 4], 0, 255)
    inputs, shapes = model.preprocess(images)
    together = model.compute_losses(model(inputs, shapes), groundtruth, shapes)
    single = [
        model.compute_losses(
            model(inputs[i : i + 1], shapes[i : i + 1]),
            {k: v[i : i + 1] for k, v in groundtruth.items()},
            shapes[i : i + 1],
        )
        for i in range(3)
    ]
    for key, value in together.items():
        assert float(value) == pytest.approx(np.mean([float(one[key]) for one in single]), rel=1e-4)


NMS = "post_processing { batch_non_max_suppression { max_detections_per_class: 4 max_total_detections: 6 %s } }"


def greedy(boxes, scores, valid, iou_threshold, score_threshold, per_class, total):
    """Suppression as a person would do it: (score, class, index) of the survivors, best first."""

    def area(box):
        return max(box[2] - box[0], 0) * max(box[3] - box[1], 0)

    def iou(one, other):
        both = area([*np.maximum(one[:2], other[:2]), *np.minimum(one[2:], other[2:])])
        return both / (area(one) + area(other) - both) if both > 0 else 0.0

    survivors = []
    for c in range(scores.shape[1]):
        kept = []
        for i in sorted(range(valid), key=lambda i: (-scores[i, c], i)):
            free = all(iou(boxes[i], boxes[j]) <= iou_threshold for j in kept)
            if scores[i, c] > score_threshold and free and len(kept) < per_class:
                kept.append(i)
        survivors += [(-scores[i, c], c, i) for i in kept if area(boxes[i]) > 0]
    return [(-score, c, i) for score, c, i in sorted(survivors)[:total]]


def test_suppression_of_boxes():
    pipeline = pipeline_of(NMS % "iou_threshold: 0.3 score_threshold: 0.05", classes=3)
    model = tfod_zoo.build(pipeline)
    random = np.random.default_rng(2)
    predictions = {
        "object_center": [tf.constant(random.normal(-1, 2, [2, 16, 16, 3]), tf.float32)],
        "box/scale": [tf.constant(random.uniform(2, 9, [2, 16, 16, 2]), tf.float32)],
        "box/offset": [tf.constant(random.uniform(0, 1, [2, 16, 16, 2]), tf.float32)],
        "human_pose/keypoint/heatmap": [tf.constant(random.normal(0, 2, [2, 16, 16, 17]), tf.float32)],
        "human_pose/keypoint/regression": [tf.constant(random.normal(0, 2, [2, 16, 16, 34]), tf.float32)],
        "human_pose/keypoint/offset": [tf.constant(random.uniform(0, 1, [2, 16, 16, 34]), tf.float32)],
    }
    shapes = tf.constant([[64, 64, 3], [50, 60, 3]])
    got = {key: value.numpy() for key, value in model.postprocess(predictions, shapes).items()}
    model.pipeline.model.center_net.ClearField("post_processing")
    before = {key: value.numpy() for key, value in model.postprocess(predictions, shapes).items()}
    assert set(got) == set(before)
    for image in range(2):
        expected = greedy(
            before["detection_boxes"][image],
            before["detection_multiclass_scores"][image],
            before["num_detections"][image],
            iou_threshold=0.3,
            score_threshold=0.05,
            per_class=4,
            total=6,
        )
        count = got["num_detections"][image]
        assert 1 <= count == len(expected)
        for row, (score, c, source) in enumerate(expected):
            assert got["detection_scores"][image, row] == pytest.approx(score, rel=1e-6)
            assert got["detection_classes"][image, row] == c
            for key in set(got) - {"detection_scores", "detection_classes", "num_detections"}:
                np.testing.assert_array_equal(got[key][image, row], before[key][image, source])
        for key in set(got) - {"num_detections"}:
            assert got[key].shape[1] == 6 and not got[key][image, count:].any()


@pytest.mark.parametrize(
    ("options", "part"),
    [
        ("use_class_agnostic_nms: true", "use_class_agnostic_nms is not supported"),
        ("use_combined_nms: true", "use_combined_nms"),
        ("soft_nms_sigma: 0.5", "soft_nms_sigma"),
        ("iou_threshold: 1.5", "iou_threshold is 1.5"),
    ],
)
def test_suppression_that_cannot_be_done_is_refused(options, part):
    with pytest.raises(ZooError, match=part):
        tfod_zoo.build(pipeline_of(NMS % options))
    with pytest.raises(ZooError, match="max_total_detections 2"):
        text = "post_processing { batch_non_max_suppression { max_detections_per_class: 4 max_total_detections: 2 } }"
        tfod_zoo.build(pipeline_of(text))


UNSUPPORTED = [
    "mask_estimation_task",
    "densepose_estimation_task",
    "track_estimation_task",
    "temporal_offset_task",
    "deepmac_mask_estimation",
]


@pytest.mark.parametrize(
    ("text", "part"),
    [
        *((f"{task} {{}}", f"model.center_net.{task} is not supported") for task in UNSUPPORTED),
        ('feature_extractor { upsampling_interpolation: "cubic" }', "upsampling_interpolation"),
        ("feature_extractor { depth_multiplier: 0 }", "depth_multiplier"),
        ("feature_extractor { channel_stds: [1, 0, 1] }", "channel_stds"),
        ("feature_extractor { channel_means: [1, 2] }", "channel_means"),
        ("object_center_params { max_box_predictions: 0 }", "max_box_predictions"),
        ("object_center_params { center_head_params { num_filters: 8 } }", "object_center must be"),
        (
            "object_detection_task { localization_loss { weighted_smooth_l1 {} } }",
            "object_detection_task.localization_loss",
        ),
        (
            "object_center_params { classification_loss { weighted_softmax {} } }",
            "object_center_params.classification_loss",
        ),
    ],
)
def test_what_cannot_be_built_is_refused_by_name(text, part):
    with pytest.raises(ZooError, match=part):
        tfod_zoo.build(pipeline_of(text))


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("num_candidates_per_keypoint: 0", "num_candidates_per_keypoint is 0"),
        ("peak_max_pool_kernel_size: -1", "peak_max_pool_kernel_size is -1"),
        ("offset_peak_radius: -2", "offset_peak_radius is -2"),
        ('keypoint_class_name: "/m/01g317"', None),
    ],
)
def test_fields_of_a_keypoint_task(text, part):
    pipeline = pipeline_of()
    merge_text(pipeline.model.center_net.keypoint_estimation_task[0], text)
    if part is None:
        assert tfod_zoo.build(pipeline).keypoint_tasks[0].class_index == 0
    else:
        with pytest.raises(ZooError, match=part):
            tfod_zoo.build(pipeline)


def test_a_model_with_neither_task_is_refused():
    pipeline = pipeline_of(boxes=False)
    pipeline.model.center_net.ClearField("keypoint_estimation_task")
    with pytest.raises(ZooError, match="neither object_detection_task nor keypoint_estimation_task"):
        tfod_zoo.build(pipeline)
