"""Boxes follow the pixels: paint a box on the image, augment, find it again."""

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from tfod_zoo.config.schema import message_class
from tfod_zoo.data import augmentation
from tfod_zoo.data.errors import DataError

HEIGHT, WIDTH = 48, 64
SEEDS = st.tuples(st.integers(0, 2**31 - 1), st.integers(0, 2**31 - 1))
BOXES = st.tuples(
    st.integers(0, HEIGHT - 8), st.integers(0, WIDTH - 8), st.integers(6, HEIGHT), st.integers(6, WIDTH)
).map(lambda b: (b[0], b[1], min(b[0] + b[2], HEIGHT), min(b[1] + b[3], WIDTH)))
COLOUR = ("random_adjust_hue", "random_adjust_saturation", "random_adjust_contrast", "random_adjust_brightness")


def option(name, **fields):
    step = message_class("PreprocessingStep")()
    message = getattr(step, name)
    message.SetInParent()
    for key, value in fields.items():
        if isinstance(value, list):
            getattr(message, key).extend(value)
        else:
            setattr(message, key, value)
    return step


def painted(box):
    """A black image with a white box; ground truth that carries the box's corners as its area, to recognise rows."""
    image = np.zeros((HEIGHT, WIDTH, 3), np.float32)
    image[box[0] : box[2], box[1] : box[3]] = 255
    boxes = np.array([box], np.float32) / [HEIGHT, WIDTH, HEIGHT, WIDTH]
    return tf.constant(image), truth(boxes)


def truth(boxes):
    boxes = tf.reshape(tf.constant(boxes, tf.float32), [-1, 4])
    count = boxes.shape[0]
    return {
        "boxes": boxes,
        "classes": tf.range(count),
        "weights": tf.ones([count]),
        "is_crowd": tf.zeros([count], tf.bool),
        "area": tf.cast(tf.range(count), tf.float32),
    }


COMPILED: dict = {}


def run(options, image, groundtruth, seed):
    key = (*(one.SerializeToString() for one in options), *groundtruth)
    if key not in COMPILED:
        specs = {name: tf.TensorSpec([None, *value.shape[1:]], value.dtype) for name, value in groundtruth.items()}
        COMPILED[key] = tf.function(
            augmentation.augmenter(options),
            input_signature=[tf.TensorSpec([None, None, 3]), specs, tf.TensorSpec([2], tf.int32)],
        )
    return COMPILED[key](image, groundtruth, tf.constant(seed, tf.int32))


def tolerance(options):
    """In pixels. A square crop leaves out the image's last row and column, and another one if its side is odd; scaling
    moves an edge by up to two (TF1 sampling)."""
    if any(one.HasField("random_scale_crop_and_pad_to_square") for one in options):
        return 2.01
    return 1.01 if any(one.HasField("random_square_crop_by_scale") for one in options) else 1e-2


def white_box(image):
    rows, columns = np.nonzero(np.asarray(image)[..., 0] > 127)
    return np.array([rows.min(), columns.min(), rows.max() + 1, columns.max() + 1])


@pytest.mark.parametrize(
    "options",
    [
        [option("random_horizontal_flip", probability=0.5)],
        [option("random_crop_image", random_coef=0.25, min_aspect_ratio=0.5, max_aspect_ratio=1.7)],
        [option("random_crop_image", min_object_covered=0.3, min_area=0.2)],
        [option("random_absolute_pad_image", max_height_padding=20, max_width_padding=30, pad_color=[0.0] * 3)],
        [
            option("random_horizontal_flip"),
            option("random_crop_image", random_coef=0.25),
            option("random_absolute_pad_image", max_height_padding=9, max_width_padding=9, pad_color=[0.0] * 3),
        ],
        [option("random_square_crop_by_scale")],
        [option("random_square_crop_by_scale", scale_min=1.2, scale_max=1.2, num_scales=1, max_border=16)],
        [option("ssd_random_crop")],
        [option("random_pad_image", pad_color=[0.0] * 3)],
        [option("random_scale_crop_and_pad_to_square", output_size=64, scale_min=0.5, scale_max=1.5)],
    ],
    ids=[
        "flip", "crop", "partial crop", "pad", "all", "square", "square beyond the image", "ssd", "pad to a size",
        "scale, crop and pad",
    ],
)
@settings(max_examples=40, deadline=None)
@given(box=BOXES, seed=SEEDS)
def test_boxes_follow_the_pixels(options, box, seed):
    image, groundtruth = painted(box)
    image, groundtruth = run(options, image, groundtruth, seed)
    boxes = groundtruth["boxes"].numpy()
    assert {len(value) for value in groundtruth.values()} == {len(boxes)}
    if not len(boxes):
        return
    assert boxes.min() >= 0 and boxes.max() <= 1
    size = np.array([*image.shape[:2]] * 2)
    ymin, xmin, ymax, xmax = boxes[0] * size
    if min(ymax - ymin, xmax - xmin) >= tolerance(options):  # a thinner rest may have no white pixel
        np.testing.assert_allclose(boxes[0] * size, white_box(image), atol=tolerance(options))


@settings(max_examples=20, deadline=None)
@given(box=BOXES, seed=SEEDS)
def test_two_flips_are_none(box, seed):
    image, groundtruth = painted(box)
    twice = [option("random_horizontal_flip", probability=1.0)] * 2
    flipped, moved = run(twice, image, groundtruth, seed)
    np.testing.assert_array_equal(flipped, image)
    np.testing.assert_allclose(moved["boxes"], groundtruth["boxes"], atol=1e-6)


@pytest.mark.parametrize("name", [*COLOUR, "random_patch_gaussian"])
@settings(max_examples=10, deadline=None)
@given(seed=SEEDS, pixels=st.integers(0, 2**31))
def test_colour_stays_in_range_and_repeats(name, seed, pixels):
    image = tf.constant(np.random.default_rng(pixels).uniform(0, 255, (16, 20, 3)), tf.float32)
    first, groundtruth = run([option(name)], image, truth([[0.0, 0.0, 1.0, 1.0]]), seed)
    again, _ = run([option(name)], image, truth([[0.0, 0.0, 1.0, 1.0]]), seed)
    np.testing.assert_array_equal(first, again)
    assert first.shape == image.shape and groundtruth["boxes"].numpy().tolist() == [[0, 0, 1, 1]]
    assert first.numpy().min() >= 0 and first.numpy().max() <= 255.001


@pytest.mark.parametrize(
    ("name", "fields", "reference"),
    [
        ("random_adjust_hue", {"max_delta": 0.02}, lambda x, v: tf.image.adjust_hue(x, v)),
        ("random_adjust_saturation", {}, lambda x, v: tf.image.adjust_saturation(x, v)),
        ("random_adjust_contrast", {}, lambda x, v: tf.image.adjust_contrast(x, v)),
        ("random_adjust_brightness", {}, lambda x, v: tf.image.adjust_brightness(x, v)),
    ],
)
def test_colour_equals_the_step_by_step_form(name, fields, reference):
    """TFOD divides by 255, applies TensorFlow's operation, multiplies back and clips."""
    image = tf.constant(np.random.default_rng(1).uniform(0, 255, (16, 20, 3)), tf.float32)
    step, seed = option(name, **fields), tf.constant([3, 4])
    message = getattr(step, name)
    low = -message.max_delta if name.endswith(("hue", "brightness")) else message.min_delta
    value = augmentation._uniform(seed, 0, low, message.max_delta)
    result, _ = augmentation.STEPS[name](image, {}, message, seed)
    expected = tf.clip_by_value(reference(image / 255.0, value) * 255.0, 0.0, 255.0)
    np.testing.assert_allclose(result, expected, atol=2e-3)


def test_crop_keeps_about_a_quarter_whole_and_drops_rows_together():
    boxes = [[0.0, 0.0, 0.2, 0.2], [0.4, 0.4, 0.6, 0.6], [0.8, 0.8, 1.0, 1.0]]
    image = tf.zeros([HEIGHT, WIDTH, 3])
    whole = dropped = 0
    for number in range(200):
        cut, kept = run([option("random_crop_image", random_coef=0.25)], image, truth(boxes), (7, number))
        whole += cut.shape == image.shape
        dropped += len(kept["boxes"]) < 3
        assert kept["area"].numpy().tolist() == kept["classes"].numpy().tolist()
    assert 25 <= whole <= 90 and dropped > 20


def test_images_without_objects_pass():
    chain = [option(name) for name in augmentation.STEPS]
    image, kept = run(chain, tf.fill([HEIGHT, WIDTH, 3], 9.0), truth(np.zeros((0, 4))), (1, 2))
    assert image.shape[-1] == 3 and kept["boxes"].shape == (0, 4)


def test_pad_uses_the_mean_colour_when_none_is_set():
    options = [option("random_absolute_pad_image", max_height_padding=30, max_width_padding=30)]
    image, _ = run(options, tf.fill([8, 8, 3], 60.0), truth([[0.0, 0.0, 1.0, 1.0]]), (5, 6))
    assert max(image.shape) > 8 and np.allclose(image, 60)


def test_unsupported_step_is_refused_by_name():
    with pytest.raises(DataError, match=r"data_augmentation_options\[1\] is random_rgb_to_gray"):
        augmentation.augmenter([option("random_horizontal_flip"), option("random_rgb_to_gray")])


CORNERS = [1, 0, 3, 2]  # a mirrored box's upper left corner was its upper right one


@pytest.mark.parametrize(
    "options",
    [
        [option("random_horizontal_flip", keypoint_flip_permutation=CORNERS)],
        [option("random_crop_image", random_coef=0.25)],
        [option("random_absolute_pad_image", max_height_padding=20, max_width_padding=30, pad_color=[0.0] * 3)],
        [option("random_square_crop_by_scale")],
        [
            option("random_horizontal_flip", keypoint_flip_permutation=CORNERS),
            option("random_crop_image", random_coef=0.25),
            option("random_square_crop_by_scale", max_border=8),
        ],
    ],
    ids=["flip", "crop", "pad", "square", "all"],
)
@settings(max_examples=40, deadline=None)
@given(box=BOXES, seed=SEEDS)
def test_keypoints_stay_on_their_corners(options, box, seed):
    image, groundtruth = painted(box)
    ymin, xmin, ymax, xmax = tf.unstack(groundtruth["boxes"], axis=-1)
    corners = [(ymin, xmin), (ymin, xmax), (ymax, xmin), (ymax, xmax)]
    groundtruth["keypoints"] = tf.stack([tf.stack(corner, -1) for corner in corners], 1)
    image, moved = run(options, image, groundtruth, seed)
    points, boxes = moved["keypoints"].numpy(), moved["boxes"].numpy()
    assert points.shape == (len(boxes), 4, 2)
    if not len(boxes):
        return
    found = white_box(image)
    expected = np.array([[found[0], found[1]], [found[0], found[3]], [found[2], found[1]], [found[2], found[3]]])
    labelled = ~np.isnan(points[0]).any(axis=-1)
    np.testing.assert_array_equal(np.isnan(points[0]).all(axis=-1), ~labelled)  # both coordinates or none
    # A corner that was cut off is no longer labelled; those that are left are where the pixels are.
    np.testing.assert_allclose((points[0] * image.shape[:2])[labelled], expected[labelled], atol=tolerance(options))
    assert labelled.all() or (found[:2] == 0).any() or (found[2:] >= np.array(image.shape[:2]) - 1).any()


def test_flip_gives_every_keypoint_to_its_mirror_image():
    groundtruth = truth([[0.0, 0.0, 0.5, 0.5]])
    groundtruth["keypoints"] = tf.constant([[[0.1, 0.2], [0.3, 0.4], [float("nan")] * 2]])
    step = option("random_horizontal_flip", probability=1.0, keypoint_flip_permutation=[0, 2, 1])
    _, moved = run([step], tf.zeros([HEIGHT, WIDTH, 3]), groundtruth, (1, 2))
    np.testing.assert_allclose(moved["keypoints"], [[[0.1, 0.8], [np.nan] * 2, [0.3, 0.6]]], atol=1e-6)


@pytest.mark.parametrize(("side", "border"), [(60, 16), (100, 32), (128, 64), (200, 64), (256, 128), (480, 128)])
def test_square_crop_keeps_its_centre_from_the_edge(side, border):
    """With a scale of 1 and one row of objects, the first visible row tells where the centre was."""
    step = option("random_square_crop_by_scale", scale_min=1.0, scale_max=1.0, num_scales=1)
    boxes = [[0.0, 0.0, 1.0, 1.0]]
    centres = set()
    for number in range(60):
        image, kept = run([step], tf.ones([side, side, 3]), truth(boxes), (11, number))
        assert image.shape == (side, side, 3)
        ymin, _, ymax, _ = kept["boxes"].numpy()[0] * side
        # Black above means that the centre lies less than half a side from the top.
        centres.add(round(side / 2 - ymin if ymin > 0 else side / 2 + side - ymax))
    assert border - 1 <= min(centres) and max(centres) <= side - border + 1
    if border < side / 2:
        assert max(centres) - min(centres) > (side - 2 * border) / 2


@pytest.mark.parametrize(
    ("step", "message"),
    [
        (option("random_horizontal_flip"), r"keypoint_flip_permutation is \[\]; data with 3"),
        (option("random_horizontal_flip", keypoint_flip_permutation=[0, 1, 1]), "each of 0 to 2 once"),
        (option("random_square_crop_by_scale", num_scales=0), "num_scales"),
        (option("random_crop_image", min_area=0.0), "min_area"),
    ],
)
def test_values_that_cannot_be_are_refused_before_training(step, message):
    with pytest.raises(DataError, match=message):
        augmentation.augmenter([step], num_keypoints=3)
