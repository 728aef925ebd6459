"""Each step draws what it documents: range and distribution, over many seeds at once."""

import numpy as np
import pytest
import tensorflow as tf
from test_augmentation import option, truth

from tfod_zoo.data import augmentation

DRAWS = 400
# A uniform sample of 400 strays further than this from the uniform distribution once in a million (Kolmogorov); the
# seeds are fixed.
FARTHEST = 0.135


def draw(step, image, observe, boxes=((0.0, 0.0, 1.0, 1.0),), draws=DRAWS):
    """`observe(image, groundtruth)`, a float32 vector, for many seeds."""
    name = step.WhichOneof("preprocessing_step")

    @tf.function
    def all_of_them():
        def one(number):
            seed = tf.stack([number, 5])
            return observe(*augmentation.STEPS[name](tf.constant(image), truth(boxes), getattr(step, name), seed))

        return tf.map_fn(one, tf.range(draws), fn_output_signature=tf.float32)

    return all_of_them().numpy()


def assert_uniform(values, low, high):
    values = np.sort(np.ravel(values))
    assert low - 1e-5 <= values[0] and values[-1] <= high + 1e-5
    share = (values - low) / (high - low)
    assert np.abs(share - (np.arange(len(values)) + 0.5) / len(values)).max() < FARTHEST


def pixels(*colours):
    return np.array([colours], np.float32)


@pytest.mark.parametrize("probability", [0.5, 0.2])
def test_flips(probability):
    step = option("random_horizontal_flip", probability=probability)
    first = draw(step, pixels((0, 0, 0), (9, 9, 9)), lambda image, truth: image[0, 0, 0])
    assert np.mean(first == 9) == pytest.approx(probability, abs=0.12)


@pytest.mark.parametrize(
    ("step", "colours", "value_of", "low", "high"),
    [
        ("random_adjust_brightness", [(100, 100, 100)], lambda p: (p[0, 0, 0] - 100) / 255, -0.2, 0.2),
        ("random_adjust_contrast", [(100, 90, 80), (140, 90, 80)], lambda p: (p[0, 1, 0] - 120) / 20, 0.8, 1.25),
        ("random_adjust_saturation", [(200, 100, 100)], lambda p: (200 - p[0, 0, 1]) / 100, 0.8, 1.25),
        ("random_adjust_hue", [(255, 0, 0)], lambda p: (p[0, 0, 1] - p[0, 0, 2]) / 255 / 6, -0.02, 0.02),
    ],
)
def test_colours(step, colours, value_of, low, high):
    assert_uniform(draw(option(step), pixels(*colours), lambda image, truth: value_of(image)), low, high)


def canvas(image, truth):
    """Height, width, and where the image's box begins."""
    size = tf.cast(tf.shape(image)[:2], tf.float32)
    return tf.concat([size, truth["boxes"][0, :2] * size], axis=0)


def offsets_in_range(sizes, offsets, own):
    """Never flush with the far edge unless nothing is added."""
    return (offsets >= 0).all() and (offsets < np.maximum(sizes - own, 1)).all()


def test_absolute_padding():
    step = option("random_absolute_pad_image", max_height_padding=20, max_width_padding=12)
    height, width, top, left = np.rint(draw(step, np.ones([6, 9, 3], np.float32), canvas)).T
    assert set(height) == set(range(6, 26)) and set(width) == set(range(9, 21))  # the bound is exclusive
    assert_uniform((height - 6 + 0.5) / 20, 0, 1)
    assert offsets_in_range(height, top, 6) and offsets_in_range(width, left, 9)
    most = (height - 6) >= 10
    assert_uniform(((top + 0.5) / (height - 6))[most], 0, 1)
    step = option("random_absolute_pad_image")  # 0 means 1: nothing is added
    assert np.rint(draw(step, np.ones([6, 9, 3], np.float32), canvas, draws=5)).tolist() == [[6, 9, 0, 0]] * 5


def test_padding_to_a_size():
    step = option("random_pad_image", min_image_height=8, max_image_width=12)
    height, width, top, left = np.rint(draw(step, np.ones([6, 9, 3], np.float32), canvas)).T
    assert set(height) == set(range(8, 12)) and set(width) == set(range(9, 12))
    assert offsets_in_range(height, top, 6) and offsets_in_range(width, left, 9)


def test_square_crops_have_one_of_eight_scales():
    step = option("random_square_crop_by_scale")
    sides = draw(step, np.ones([30, 100, 3], np.float32), lambda image, truth: tf.cast(tf.shape(image)[0], tf.float32))
    found, counts = np.unique(sides, return_counts=True)
    scales = np.linspace(float(np.float32(0.6)), float(np.float32(1.3)), 8).astype(np.float32)
    assert found.tolist() == (scales * np.float32(100)).astype(int).tolist()
    assert counts.min() >= 17 and counts.max() <= 83  # five deviations around 50


def window(image, truth):
    """Height and width of the cut, the objects left, and the largest share of an object that is left."""
    size = tf.cast(tf.shape(image)[:2], tf.float32)
    sides = (truth["boxes"][:, 2:] - truth["boxes"][:, :2]) * size
    own = tf.gather([1200.0, 300.0], truth["classes"])  # pixels of the two boxes below
    share = tf.reduce_max(tf.concat([tf.reduce_prod(sides, axis=-1) / own, [0.0]], axis=0))
    least = tf.reduce_min(tf.concat([tf.reduce_prod(sides, axis=-1) / own, [1.0]], axis=0))
    return tf.stack([size[0], size[1], tf.cast(tf.shape(sides)[0], tf.float32), share, least])


TWO = ((0.1, 0.1, 0.6, 0.6), (0.65, 0.5, 0.9, 0.75))  # of 60x80: 30x40 and 15x20 pixels


def test_crops_keep_to_their_ranges():
    step = option("random_crop_image", min_aspect_ratio=0.5, max_aspect_ratio=1.7, random_coef=0.25)
    height, width, left, most, least = draw(step, np.ones([60, 80, 3], np.float32), window, TWO).T
    whole = (height == 60) & (width == 80)
    assert 0.13 <= whole.mean() <= 0.37 + 0.1  # kept as it is, and windows that are the whole image
    area, aspect = (height * width / 4800)[~whole], (width / height)[~whole]
    assert area.min() >= 0.1 - 0.02 and aspect.min() >= 0.5 - 0.05 and aspect.max() <= 1.7 + 0.05  # whole pixels
    assert aspect.min() < 0.8 and aspect.max() > 1.4 and area.min() < 0.4
    assert left.min() >= 1 and most.min() > 0.9  # min_object_covered is 1 for one of them, in whole pixels
    assert least.min() >= 0.3 - 1e-3 and least.min() < 0.9  # overlap_thresh is .3 for the others


def test_ssd_crops_draw_among_their_settings():
    step = option("ssd_random_crop")
    height, width, left, most, least = draw(step, np.ones([60, 80, 3], np.float32), window, TWO).T
    whole = (height == 60) & (width == 80)
    assert 0.05 <= whole.mean() <= 0.5
    assert ((height * width)[~whole] / 4800).min() >= 0.1 - 0.02
    assert (least < 0.3).any() and (least > 0.99).any()
    step = option("ssd_random_crop")
    ranges = dict(min_area=0.5, max_area=1, min_aspect_ratio=1, max_aspect_ratio=1)
    step.ssd_random_crop.operations.add(random_coef=1.0, **ranges)
    height, width, *_ = draw(step, np.ones([60, 80, 3], np.float32), window, TWO, draws=20).T
    assert set(height) == {60} and set(width) == {80}


def test_scaling_crops_have_one_size_and_every_scale():
    step = option("random_scale_crop_and_pad_to_square", output_size=64, scale_min=0.25, scale_max=2.0)

    def observe(image, truth):
        box = truth["boxes"][0]
        return tf.stack([*tf.unstack(tf.cast(tf.shape(image), tf.float32)), box[2], box[3], image[0, 0, 0]])

    height, width, depth, bottom, right, first = draw(step, np.full([30, 60, 3], 7, np.float32), observe).T
    assert set(height) == set(width) == {64.0} and set(depth) == {3.0} and np.abs(first - 7).max() < 1e-4
    assert (bottom <= 1).all() and (right <= 1).all() and (right[bottom * 64 >= 33] == 1).all()
    small = right[right < 1]  # the scale itself, where the whole image is on the square
    assert_uniform(small, 0.25, 1.0)
    assert np.mean(right < 1) == pytest.approx(0.75 / 1.75, abs=0.12)


def test_noise_is_in_a_square_of_a_random_side():
    step = option("random_patch_gaussian", min_patch_size=3, max_patch_size=9, min_gaussian_stddev=0.1)

    def observe(image, truth):
        changed = tf.reduce_any(image != 128.0, axis=-1)
        rows, columns = tf.reduce_any(changed, axis=1), tf.reduce_any(changed, axis=0)
        count = tf.stack([tf.math.count_nonzero(rows), tf.math.count_nonzero(columns)])
        first = tf.stack([tf.argmax(tf.cast(rows, tf.int64)), tf.argmax(tf.cast(columns, tf.int64))])
        spread = tf.math.reduce_std(tf.boolean_mask(image, changed))
        return tf.concat([tf.cast(tf.concat([count, first], 0), tf.float32), [spread]], axis=0)

    high, wide, top, left, spread = draw(step, np.full([40, 40, 3], 128, np.float32), observe).T
    inside = (top > 0) & (left > 0) & (top + high < 40) & (left + wide < 40)
    assert (high[inside] == wide[inside]).all() and set(high[inside]) == set(range(3, 9))
    assert inside.mean() < 1 and spread.min() < 40 and spread.max() > 60  # up to where clipping leaves it


def test_every_option_of_the_schema_is_honoured_or_refused_by_name():
    fields = option("random_horizontal_flip").DESCRIPTOR.oneofs_by_name["preprocessing_step"].fields
    for field in fields:
        step = option(field.name)
        if field.name in augmentation.STEPS:
            augmentation.augmenter([step])
            continue
        with pytest.raises(augmentation.DataError, match=rf"data_augmentation_options\[0\] is {field.name}, which"):
            augmentation.augmenter([step])


def test_recipes_of_the_zoo_run_and_keep_rows_together():
    from pathlib import Path

    import tfod_zoo

    configs = sorted((Path(tfod_zoo.__file__).parent.parent / "pipelines").glob("*.config"))
    seen = set()
    for config in configs:
        pipeline = tfod_zoo.read_pipeline(config)
        options = list(pipeline.train_config.data_augmentation_options)
        keypoints = pipeline.train_input_reader.num_keypoints
        recipe = (keypoints, *(one.SerializeToString() for one in options))
        if recipe in seen:
            continue
        seen.add(recipe)
        groundtruth = truth(TWO)
        if keypoints:
            groundtruth["keypoints"] = tf.fill([2, keypoints, 2], 0.5)
        augment = tf.function(augmentation.augmenter(options, keypoints))
        for number in range(4):
            image, kept = augment(tf.fill([60, 80, 3], 100.0), groundtruth, tf.constant([number, 1]))
            assert {value.shape[0] for value in kept.values()} == {kept["boxes"].shape[0]}
            assert image.numpy().min() >= 0 and image.numpy().max() <= 255.001
            assert kept["area"].numpy().tolist() == kept["classes"].numpy().tolist()
            if keypoints:
                points = kept["keypoints"].numpy()
                assert points.shape[1:] == (keypoints, 2)
                assert not ((points < 0) | (points > 1)).any()
    assert len(seen) > 3


@pytest.mark.parametrize(
    ("step", "message"),
    [
        (option("random_crop_image", min_aspect_ratio=2.0), "min_aspect_ratio"),
        (option("random_absolute_pad_image", pad_color=[1.0]), "pad_color needs three"),
        (option("random_pad_image", pad_color=[1.0, 2.0]), "random_pad_image.pad_color needs three"),
        (option("random_adjust_contrast", min_delta=2.0), "random_adjust_contrast: it needs"),
        (option("random_adjust_hue", max_delta=0.6), "max_delta is 0.6"),
        (option("random_adjust_brightness", max_delta=-0.1), "max_delta is -0.1"),
        (option("random_patch_gaussian", min_patch_size=9, max_patch_size=9), "min_patch_size < max"),
        (option("random_scale_crop_and_pad_to_square", scale_min=3.0), "scale_min <= scale_max"),
    ],
)
def test_values_that_cannot_be(step, message):
    with pytest.raises(augmentation.DataError, match=message):
        augmentation.augmenter([step])
