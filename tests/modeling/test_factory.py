"""From configs and folders to models: what builds, what is refused, what restores."""

import numpy as np
import pytest
import tensorflow as tf

import tfod_zoo
from tfod_zoo.errors import UsageError, ZooError
from tfod_zoo.modeling.center_net.feature_extractors import FEATURE_EXTRACTORS
from tfod_zoo.modeling.checkpoint import CheckpointError

NAME = "centernet_mobilenetv2fpn_512x512_coco17_od"


def small(kind="hourglass_10", side=64, classes=3):
    """A pipeline of a network that builds in a second."""
    pipeline = tfod_zoo.generate_pipeline(NAME)
    center_net = pipeline.model.center_net
    center_net.feature_extractor.type = kind
    center_net.num_classes = classes
    resizer = center_net.image_resizer.keep_aspect_ratio_resizer
    resizer.min_dimension = resizer.max_dimension = side
    return pipeline


@pytest.mark.parametrize("name", tfod_zoo.list_models("centernet_*"))
def test_the_extractor_of_every_center_net_exists(name):
    assert tfod_zoo.generate_pipeline(name).model.center_net.feature_extractor.type in FEATURE_EXTRACTORS


@pytest.mark.parametrize("kind", ["hourglass_10", "hourglass_20", "mobilenet_v2_fpn", "mobilenet_v2_fpn_sep_conv"])
def test_detect_gives_the_serving_signature(kind):
    model = tfod_zoo.build(small(kind))
    images = np.random.default_rng(0).integers(0, 256, [2, 48, 80, 3], dtype=np.uint8)
    detections = model.detect(images)
    assert {key: tuple(value.shape) for key, value in detections.items()} == {
        "detection_boxes": (2, 20, 4),
        "detection_boxes_strided": (2, 20, 4),
        "detection_scores": (2, 20),
        "detection_multiclass_scores": (2, 20, 3),
        "detection_classes": (2, 20),
        "num_detections": (2,),
    }
    assert all(value.dtype == tf.float32 for value in detections.values())
    assert set(np.unique(detections["detection_classes"])) <= {1.0, 2.0, 3.0}
    one = model.detect(images[1:])
    np.testing.assert_allclose(one["detection_scores"][0], detections["detection_scores"][1], atol=1e-5)


def test_detect_compiles_with_xla():
    """Boxes and keypoints, with suppression."""
    pipeline = small("hourglass_10")
    center_net = pipeline.model.center_net
    person = tfod_zoo.generate_pipeline("centernet_resnet50_v2_512x512_kpts_coco17_tpu-8").model.center_net
    center_net.keypoint_estimation_task.add().CopyFrom(person.keypoint_estimation_task[0])
    center_net.post_processing.batch_non_max_suppression.iou_threshold = 0.5
    model = tfod_zoo.build(pipeline)
    model.heads["box/scale"][0].layers[-1].bias.assign([4.0, 4.0])  # boxes with an area
    images = tf.constant(np.random.default_rng(0).integers(0, 256, [1, 48, 80, 3], dtype=np.uint8))
    compiled = tf.function(model.detect.python_function, jit_compile=True)
    got, expected = compiled(images), model.detect(images)
    assert float(expected["num_detections"][0]) > 0 and "detection_keypoints" in got
    for key in ("detection_scores", "detection_keypoint_scores"):
        np.testing.assert_allclose(got[key], expected[key], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("interpolation", ["nearest", "bilinear"])
def test_train_step_compiles_with_xla(interpolation):
    """Forward, losses and gradients, for the pyramids whose resizes XLA could not compile."""
    pipeline = small("mobilenet_v2_fpn_sep_conv")
    pipeline.model.center_net.feature_extractor.upsampling_interpolation = interpolation
    model = tfod_zoo.build(pipeline)
    groundtruth = {
        "boxes": tf.constant([[[0.1, 0.1, 0.5, 0.6], [0, 0, 0, 0]]]),
        "classes": tf.constant([[1, 0]]),
        "weights": tf.constant([[1.0, 0.0]]),
    }
    shapes = tf.constant([[64, 64, 3]])

    def step(canvas):
        with tf.GradientTape() as tape:
            predictions = model(model.normalize(canvas), shapes, training=False)
            total = tf.add_n(list(model.compute_losses(predictions, groundtruth, shapes).values()))
        return total, tape.gradient(total, model.trainable_variables)

    canvas = tf.random.stateless_uniform([1, 64, 64, 3], [1, 2], 0, 255)
    total, gradients = tf.function(step, jit_compile=True)(canvas)
    expected, _ = tf.function(step)(canvas)
    assert float(total) == pytest.approx(float(expected), rel=1e-4)
    assert all(gradient is not None for gradient in gradients)


@pytest.mark.parametrize(
    ("change", "part"),
    [
        ({"feature_extractor.type": "resnet_v9"}, "resnet_v9"),
        ({"num_classes": 0}, "num_classes"),
        ({"image_resizer.keep_aspect_ratio_resizer.max_dimension": 100}, "multiples of 8"),
        ({"object_center_params.max_box_predictions": 10**6}, "max_box_predictions"),
    ],
)
def test_a_config_that_cannot_be_built_is_refused(change, part):
    pipeline = small()
    for path, value in change.items():
        *parents, last = path.split(".")
        message = pipeline.model.center_net
        for parent in parents:
            message = getattr(message, parent)
        setattr(message, last, value)
        if last == "max_dimension":
            message.min_dimension = value
    with pytest.raises(ZooError) as caught:
        tfod_zoo.build(pipeline)
    assert part in str(caught.value)


def test_images_of_another_kind_are_refused():
    model = tfod_zoo.build(small())
    with pytest.raises(UsageError, match="float64"):
        model.preprocess(np.zeros([1, 8, 8, 3], np.float64))


def test_restore_modes(tmp_path):
    source, prefix = tfod_zoo.build(small()), str(tmp_path / "ckpt-0")
    for variable in source.variables:
        variable.assign(tf.random.stateless_uniform(variable.shape, [len(variable.shape), 7]))
    source.save_checkpoint(prefix)

    full = tfod_zoo.build(small())
    report = full.restore_checkpoint(prefix)
    assert len(report.restored) == len(source.variables) and not report.missing
    assert report.unused == ("save_counter/.ATTRIBUTES/VARIABLE_VALUE",)
    for one, other in zip(source.variables, full.variables, strict=True):
        np.testing.assert_array_equal(one, other)

    other_classes = tfod_zoo.build(small(classes=5))
    before = [variable.numpy() for variable in other_classes.variables]
    with pytest.raises(CheckpointError, match="object_center.*has shape"):
        other_classes.restore_checkpoint(prefix)
    for variable, value in zip(other_classes.variables, before, strict=True):
        np.testing.assert_array_equal(variable, value)  # nothing was changed
    report = other_classes.restore_checkpoint(prefix, mode="detection")
    assert all("_prediction_head_dict" in key for key in report.missing)
    assert report.summary().startswith(f"restored {len(report.restored)} of {len(before)} variables")

    with pytest.raises(CheckpointError, match="another model"):
        tfod_zoo.build(small("hourglass_20")).restore_checkpoint(prefix)
    with pytest.raises(UsageError, match='use "detection"'):
        full.restore_checkpoint(prefix, mode="fine_tune")


def test_a_checkpoint_that_is_damaged_or_missing_is_named(tmp_path):
    model, prefix = tfod_zoo.build(small()), tmp_path / "ckpt-0"
    with pytest.raises(CheckpointError, match="does not exist"):
        model.restore_checkpoint(prefix)
    model.save_checkpoint(prefix)
    index = tmp_path / "ckpt-0.index"
    index.write_bytes(index.read_bytes()[:100])
    with pytest.raises(CheckpointError, match="cannot be read"):
        model.restore_checkpoint(prefix)


def test_load(tmp_path):
    source = tfod_zoo.build(small())
    folder = tmp_path / "model"
    source.save_checkpoint(folder / "ckpt-0")
    with pytest.raises(UsageError, match="no pipeline.config"):
        tfod_zoo.load(folder)
    tfod_zoo.write_pipeline(source.pipeline, folder / "pipeline.config")
    loaded = tfod_zoo.load(folder)
    np.testing.assert_array_equal(loaded.variables[0], source.variables[0])
    with pytest.raises(UsageError, match=NAME):
        tfod_zoo.load(NAME[:-1])


def test_padding_does_not_change_the_targets():
    """Rows of weight 0 are as good as no rows."""
    model = tfod_zoo.build(small())
    images = tf.random.stateless_uniform([1, 64, 64, 3], [3, 4], 0, 255)
    inputs, shapes = model.preprocess(images)
    predictions = model(inputs, shapes)
    boxes, classes = [[0.1, 0.2, 0.6, 0.7]], [2]
    losses = []
    for padding in (0, 5):
        groundtruth = {
            "boxes": tf.constant([boxes + [[0.0] * 4] * padding]),
            "classes": tf.constant([classes + [0] * padding]),
            "weights": tf.constant([[1.0] + [0.0] * padding]),
        }
        losses.append([float(value) for value in model.compute_losses(predictions, groundtruth, shapes).values()])
    assert losses[0] == pytest.approx(losses[1], rel=1e-6)
