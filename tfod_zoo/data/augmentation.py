"""Training augmentation: the steps of the published recipes (pipeline spec, section 5; CenterNet spec, section 12).

A step is a pure function `(image, groundtruth, options, seed) -> (image, groundtruth)`:
  image: `[h, w, 3]` RGB in 0..255, uint8 or float32 (geometric steps keep the type, the others return float32);
  groundtruth: dict of `[N, ...]` tensors, `boxes` normalised yxyx, perhaps `keypoints` `[N, K, 2]` normalised (y, x),
    NaN where not labelled; a step that removes an object removes its whole row (TFOD leaves some fields behind);
  options: the step's own message, with TFOD's field names;
  seed: int32 `[2]`; the same seed gives the same result.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from tfod_zoo.data.errors import DataError

Tensors = dict[str, tf.Tensor]
Step = Callable[[tf.Tensor, Tensors, Any, tf.Tensor], tuple[tf.Tensor, Tensors]]

_CROP_ATTEMPTS = 100  # CenterNet spec, section 12


def _uniform(seed: tf.Tensor, stream: int, low: Any = 0.0, high: Any = 1.0, dtype: tf.DType = tf.float32) -> tf.Tensor:
    """A scalar in [low, high); `stream` keeps the draws of one step apart."""
    # fold_in rather than seed + stream: neighbouring examples must not share draws.
    return tf.random.stateless_uniform([], tf.random.fold_in(seed, stream), low, high, dtype)


def random_horizontal_flip(image: tf.Tensor, groundtruth: Tensors, options: Any, seed: tf.Tensor):
    """Mirrors image, boxes and keypoints with `probability`; keypoint k becomes `keypoint_flip_permutation[k]`'s mirror
    image."""
    flip = _uniform(seed, 0) < options.probability

    def mirrored() -> Tensors:
        ymin, xmin, ymax, xmax = tf.unstack(groundtruth["boxes"], axis=-1)
        truth = {**groundtruth, "boxes": tf.stack([ymin, 1.0 - xmax, ymax, 1.0 - xmin], axis=-1)}
        if "keypoints" in groundtruth:
            points = groundtruth["keypoints"] * [1.0, -1.0] + [0.0, 1.0]
            truth["keypoints"] = tf.gather(points, list(options.keypoint_flip_permutation), axis=1)
        return truth

    image = tf.cond(flip, lambda: tf.reverse(image, [1]), lambda: image)  # 20 times as fast as [:, ::-1]
    return image, tf.cond(flip, mirrored, lambda: dict(groundtruth))


def random_crop_image(image: tf.Tensor, groundtruth: Tensors, options: Any, seed: tf.Tensor):
    """Cuts out a window that holds at least one object, except with probability `random_coef`.

    Objects outside the window, or with less than `overlap_thresh` of their area inside, are removed; the others are
    clipped to the window if `clip_boxes`.
    """
    height, width = tf.shape(image)[0], tf.shape(image)[1]

    def crop() -> tuple[tf.Tensor, Tensors]:
        begin, size, _ = tf.image.stateless_sample_distorted_bounding_box(
            tf.shape(image),
            tf.clip_by_value(groundtruth["boxes"], 0.0, 1.0)[None],
            tf.random.fold_in(seed, 1),
            min_object_covered=options.min_object_covered,
            aspect_ratio_range=(options.min_aspect_ratio, options.max_aspect_ratio),
            area_range=(options.min_area, options.max_area),
            max_attempts=_CROP_ATTEMPTS,
            use_image_if_no_bounding_boxes=True,
        )
        # The op says "to the end" as -1 in the channel; spell the window out in pixels.
        top, left, high, wide = begin[0], begin[1], size[0], size[1]
        window = tf.stack([top, left, top + high, left + wide]) / tf.stack([height, width, height, width])
        kept = _inside_window(groundtruth, tf.cast(window, tf.float32), options.overlap_thresh, options.clip_boxes)
        return image[top : top + high, left : left + wide], kept

    cut, kept = tf.cond(_uniform(seed, 0) < options.random_coef, lambda: (image, dict(groundtruth)), crop)
    return tf.ensure_shape(cut, [None, None, 3]), kept


def ssd_random_crop(image: tf.Tensor, groundtruth: Tensors, options: Any, seed: tf.Tensor):
    """`random_crop_image` with one of several settings, each equally likely: `operations`, or SSD's seven."""
    operations = _ssd_operations(options)

    def crop(operation: Any) -> tuple[tf.Tensor, Tensors]:
        cut, kept = random_crop_image(image, groundtruth, operation, tf.random.fold_in(seed, 1))
        return cut, kept

    chosen = _uniform(seed, 0, 0, len(operations), tf.int32)
    return tf.switch_case(chosen, [functools.partial(crop, operation) for operation in operations])


def _ssd_operations(options: Any) -> list[Any]:
    """The configured settings; without any, TFOD's defaults."""
    if options.operations:
        return list(options.operations)
    defaults = []
    for least in (0.0, 0.1, 0.3, 0.5, 0.7, 0.9, 1.0):  # pipeline spec, 5.1
        filled = type(options)().operations.add(
            min_object_covered=least, overlap_thresh=least, min_aspect_ratio=0.5, max_aspect_ratio=2.0, min_area=0.1,
            max_area=1.0, random_coef=0.15, clip_boxes=True,
        )
        defaults.append(filled)
    return defaults


def _inside_window(groundtruth: Tensors, window: tf.Tensor, overlap: float, clip: bool) -> Tensors:
    boxes = groundtruth["boxes"]
    inside = tf.concat([tf.maximum(boxes[:, :2], window[:2]), tf.minimum(boxes[:, 2:], window[2:])], axis=-1)
    sides = tf.maximum(inside[:, 2:] - inside[:, :2], 0.0)
    area = tf.reduce_prod(boxes[:, 2:] - boxes[:, :2], axis=-1)
    covered = tf.math.divide_no_nan(tf.reduce_prod(sides, axis=-1), area)
    keep = tf.reduce_all(sides > 0, axis=-1) & (covered >= overlap)
    kept = {key: tf.boolean_mask(value, keep) for key, value in groundtruth.items()}
    origin, extent = tf.tile(window[:2], [2]), tf.tile(window[2:] - window[:2], [2])
    moved = (kept["boxes"] - origin) / extent
    kept["boxes"] = tf.clip_by_value(moved, 0.0, 1.0) if clip else moved
    if "keypoints" in kept:
        points = (kept["keypoints"] - window[:2]) / (window[2:] - window[:2])
        away = tf.reduce_any((points < 0.0) | (points > 1.0), axis=-1, keepdims=True)
        kept["keypoints"] = tf.where(away, float("nan"), points) if clip else points
    return kept


def random_square_crop_by_scale(image: tf.Tensor, groundtruth: Tensors, options: Any, seed: tf.Tensor):
    """Cuts out a square of a random scale of the longer side around a random centre, black where it leaves the image.

    The scale is one of `num_scales` from `scale_min` to `scale_max`; the centre keeps a distance from the image's edge
    of `max_border` pixels, halved until it is less than half of the side.
    """
    shape = tf.shape(image)[:2]
    scales = np.linspace(options.scale_min, options.scale_max, options.num_scales).astype(np.float32)
    scale = tf.gather(scales, _uniform(seed, 0, 0, len(scales), tf.int32))
    side = tf.cast(scale * tf.cast(tf.reduce_max(shape), tf.float32), tf.int32)
    half = side // 2
    doublings = tf.math.log(2.0 * options.max_border / tf.cast(shape, tf.float32)) / math.log(2.0)
    halvings = tf.math.ceil(doublings - 1e-5)  # whole numbers come out of the logarithms a little off
    border = options.max_border // tf.cast(tf.clip_by_value(2.0**halvings, 1.0, max(options.max_border, 1)), tf.int32)
    draws = tf.random.stateless_uniform([2], tf.random.fold_in(seed, 1))
    # The draw may round up to the end of its range.
    centre = tf.minimum(border + tf.cast(draws * tf.cast(shape - 2 * border + 1, tf.float32), tf.int32), shape - border)
    start = tf.maximum(centre - half, 0)
    end = tf.minimum(centre + half, shape - 1)  # the last row and column are never taken: so the recipe was trained
    offset = tf.maximum(half - centre, 0)
    cut = image[start[0] : end[0], start[1] : end[1]]
    rest = side - offset - (end - start)
    square = tf.pad(cut, [[offset[0], rest[0]], [offset[1], rest[1]], [0, 0]])
    corners = tf.concat([centre - half, centre - half + side], axis=0)
    window = tf.cast(corners, tf.float32) / tf.cast(tf.tile(shape, [2]), tf.float32)
    return tf.ensure_shape(square, [None, None, 3]), _inside_window(groundtruth, window, overlap=0.0, clip=True)


def random_scale_crop_and_pad_to_square(image: tf.Tensor, groundtruth: Tensors, options: Any, seed: tf.Tensor):
    """Scales the longer side to a random multiple, scale_min to scale_max, of `output_size`, cuts out what fits a
    square of that size at random, and pads the rest below and to the right with black."""
    side = options.output_size
    shape = tf.shape(image)[:2]
    scale = _uniform(seed, 0, options.scale_min, options.scale_max) * side
    scaled = tf.cast(scale * tf.cast(shape, tf.float32) / tf.cast(tf.reduce_max(shape), tf.float32), tf.int32)
    scaled = tf.maximum(scaled, 1)
    beyond = tf.cast(tf.maximum(scaled - side, 0), tf.float32)
    start = tf.cast(beyond * tf.random.stateless_uniform([2], tf.random.fold_in(seed, 1)), tf.int32)
    pixels = tf.compat.v1.image.resize_bilinear(tf.cast(image, tf.float32)[None], scaled)[0]  # TF1 sampling
    cut = pixels[start[0] : start[0] + side, start[1] : start[1] + side]
    missing = side - tf.shape(cut)[:2]
    square = tf.pad(cut, [[0, missing[0]], [0, missing[1]], [0, 0]])
    corners = tf.concat([start, start + side], axis=0)
    window = tf.cast(corners, tf.float32) / tf.cast(tf.tile(scaled, [2]), tf.float32)
    return tf.ensure_shape(square, [side, side, 3]), _inside_window(groundtruth, window, overlap=0.0, clip=True)


def random_absolute_pad_image(image: tf.Tensor, groundtruth: Tensors, options: Any, seed: tf.Tensor):
    """Places the image at random on a canvas up to `max_height_padding` and `max_width_padding` pixels (exclusive)
    larger, filled with `pad_color` (unset: the image's mean colour)."""
    extra_y = _uniform(seed, 0, 0, max(options.max_height_padding, 1), tf.int32)
    extra_x = _uniform(seed, 1, 0, max(options.max_width_padding, 1), tf.int32)
    return _pad(image, groundtruth, extra_y, extra_x, list(options.pad_color), seed)


def random_pad_image(image: tf.Tensor, groundtruth: Tensors, options: Any, seed: tf.Tensor):
    """Places the image at random on a canvas of a random size, filled with `pad_color` (unset: the mean colour).

    Each side is in [min_image_*, max_image_*), at least the image's own (the default minimum); the default maximum is
    twice that.
    """
    extras = []
    for axis, (least, most) in enumerate(
        ((options.min_image_height, options.max_image_height), (options.min_image_width, options.max_image_width))
    ):
        own = tf.shape(image)[axis]
        low = tf.maximum(own, least)
        high = tf.maximum(most if most else 2 * own, low + 1)
        extras.append(_uniform(seed, axis, low, high, tf.int32) - own)
    extra_y, extra_x = extras
    return _pad(image, groundtruth, extra_y, extra_x, list(options.pad_color), seed)


def _pad(
    image: tf.Tensor, groundtruth: Tensors, extra_y: tf.Tensor, extra_x: tf.Tensor, pad_color: list, seed: tf.Tensor
) -> tuple[tf.Tensor, Tensors]:
    """Places the image at random on a canvas that is so many pixels larger. Draws 2 and 3 are the offset's."""
    height, width = tf.shape(image)[0], tf.shape(image)[1]
    # The offset's bound is exclusive: the image touches the far edge only when nothing is added.
    top = _uniform(seed, 2, 0, tf.maximum(extra_y, 1), tf.int32)
    left = _uniform(seed, 3, 0, tf.maximum(extra_x, 1), tf.int32)
    paddings = [[top, extra_y - top], [left, extra_x - left], [0, 0]]
    pixels = tf.cast(image, tf.float32)
    if pad_color and not any(pad_color):
        pixels = tf.pad(pixels, paddings)
    else:
        color = tf.constant(pad_color, tf.float32) if pad_color else tf.reduce_mean(pixels, axis=[0, 1])
        pixels = tf.pad(pixels - color, paddings) + color
    old = tf.cast(tf.stack([height, width] * 2), tf.float32)
    new = tf.cast(tf.stack([height + extra_y, width + extra_x] * 2), tf.float32)
    offset = tf.cast(tf.stack([top, left] * 2), tf.float32)
    truth = {**groundtruth, "boxes": (groundtruth["boxes"] * old + offset) / new}
    if "keypoints" in groundtruth:
        truth["keypoints"] = (groundtruth["keypoints"] * old[:2] + offset[:2]) / new[:2]
    return tf.ensure_shape(pixels, [None, None, 3]), truth


# The colour steps work on 0..255 directly: hue and saturation do not depend on the scale and stay within it, so that
# TFOD's division by 255, product and clip are four passes over the pixels that change nothing.


def random_adjust_hue(image: tf.Tensor, groundtruth: Tensors, options: Any, seed: tf.Tensor):
    """Turns the hue by up to `max_delta` of a full circle either way."""
    delta = _uniform(seed, 0, -options.max_delta, options.max_delta)
    return tf.raw_ops.AdjustHue(images=tf.cast(image, tf.float32), delta=delta), groundtruth


def random_adjust_saturation(image: tf.Tensor, groundtruth: Tensors, options: Any, seed: tf.Tensor):
    """Multiplies the saturation by a factor in [min_delta, max_delta)."""
    factor = _uniform(seed, 0, options.min_delta, options.max_delta)
    # What HSV amounts to: value and hue stay, so each channel's distance from the largest one is scaled, up to where
    # the smallest reaches 0. On channel planes this takes less than half the time of TensorFlow's operation.
    planes = tf.transpose(tf.reshape(tf.cast(image, tf.float32), [-1, 3]))
    value = tf.reduce_max(planes, axis=0)
    chroma = value - tf.reduce_min(planes, axis=0)
    scale = tf.minimum(factor, value / tf.maximum(chroma, 1e-6))
    planes = tf.maximum(planes * scale + value * (1.0 - scale), 0.0)  # rounding may leave -1e-5
    return tf.reshape(tf.transpose(planes), tf.shape(image)), groundtruth


def random_adjust_contrast(image: tf.Tensor, groundtruth: Tensors, options: Any, seed: tf.Tensor):
    """Scales each channel's distance from its mean over the image by a factor in [min_delta, max_delta)."""
    factor = _uniform(seed, 0, options.min_delta, options.max_delta)
    pixels = tf.raw_ops.AdjustContrastv2(images=tf.cast(image, tf.float32), contrast_factor=factor)
    return tf.clip_by_value(pixels, 0.0, 255.0), groundtruth


def random_adjust_brightness(image: tf.Tensor, groundtruth: Tensors, options: Any, seed: tf.Tensor):
    """Adds up to `max_delta` of the full range to all channels, either way."""
    delta = 255.0 * _uniform(seed, 0, -options.max_delta, options.max_delta)
    return tf.clip_by_value(tf.cast(image, tf.float32) + delta, 0.0, 255.0), groundtruth


def random_patch_gaussian(image: tf.Tensor, groundtruth: Tensors, options: Any, seed: tf.Tensor):
    """Adds Gaussian noise to a square patch, except with probability `random_coef`; part of the patch may lie outside.

    The deviation is uniform in [min_gaussian_stddev, max_gaussian_stddev) of the full range, the side uniform in
    [min_patch_size, max_patch_size) pixels.
    """
    height, width = tf.shape(image)[0], tf.shape(image)[1]
    pixels = tf.cast(image, tf.float32)

    def noisy() -> tf.Tensor:
        side = _uniform(seed, 1, options.min_patch_size, options.max_patch_size, tf.int32)
        deviation = 255.0 * _uniform(seed, 2, options.min_gaussian_stddev, options.max_gaussian_stddev)
        top = _uniform(seed, 3, 0, height, tf.int32) - side // 2
        left = _uniform(seed, 4, 0, width, tf.int32) - side // 2
        y0, x0 = tf.maximum(top, 0), tf.maximum(left, 0)
        y1, x1 = tf.minimum(top + side, height), tf.minimum(left + side, width)
        noise = tf.random.stateless_normal([y1 - y0, x1 - x0, 3], tf.random.fold_in(seed, 5)) * deviation
        noise = tf.pad(noise, [[y0, height - y1], [x0, width - x1], [0, 0]])
        return tf.clip_by_value(pixels + noise, 0.0, 255.0)

    return tf.cond(_uniform(seed, 0) < options.random_coef, lambda: pixels, noisy), groundtruth


STEPS: dict[str, Step] = {
    step.__name__: step
    for step in (
        random_horizontal_flip,
        random_crop_image,
        ssd_random_crop,
        random_square_crop_by_scale,
        random_scale_crop_and_pad_to_square,
        random_absolute_pad_image,
        random_pad_image,
        random_adjust_hue,
        random_adjust_saturation,
        random_adjust_contrast,
        random_adjust_brightness,
        random_patch_gaussian,
    )
}


def augmenter(
    options: Sequence[Any], num_keypoints: int = 0
) -> Callable[[tf.Tensor, Tensors, tf.Tensor], tuple[tf.Tensor, Tensors]]:
    """The chain of `train_config.data_augmentation_options`, in their order.

    Args:
      options: PreprocessingStep messages.
      num_keypoints: of an object, if the ground truth has any.

    Returns:
      `(image, groundtruth, seed) -> (image, groundtruth)` as the module describes.

    Raises:
      DataError: a step that is not supported, by its name (skipping it would train another recipe than the config's),
        or has values that cannot be.
    """
    chain: list[tuple[Step, Any]] = []
    for index, option in enumerate(options):
        name = option.WhichOneof("preprocessing_step")
        if name not in STEPS:
            raise DataError(
                f"train_config.data_augmentation_options[{index}] is {name or 'empty'}, which is not supported; "
                f"remove it, or use {', '.join(STEPS)}."
            )
        chain.append((STEPS[name], getattr(option, name)))
        _check_step(chain[-1], num_keypoints)

    def augment(image: tf.Tensor, groundtruth: Tensors, seed: tf.Tensor) -> tuple[tf.Tensor, Tensors]:
        for index, (step, message) in enumerate(chain):
            image, groundtruth = step(image, groundtruth, message, tf.random.fold_in(seed, index))
        return image, groundtruth

    return augment


def _check_step(chosen: tuple[Step, Any], num_keypoints: int) -> None:
    """Raises `DataError` for values that cannot be, by the names of step and fields."""
    step, message = chosen
    crops: dict[Step, Callable[[], list[Any]]] = {
        random_crop_image: lambda: [message],
        ssd_random_crop: lambda: _ssd_operations(message),
    }
    for crop in crops.get(step, lambda: [])():
        if not 0 < crop.min_area <= crop.max_area <= 1:
            raise DataError(f"{step.__name__}: min_area and max_area need 0 < min_area <= max_area <= 1.")
        if not 0 < crop.min_aspect_ratio <= crop.max_aspect_ratio:
            raise DataError(f"{step.__name__}: it needs 0 < min_aspect_ratio <= max_aspect_ratio.")
    if step is random_square_crop_by_scale and not (
        message.num_scales >= 1 and 0 < message.scale_min <= message.scale_max and message.max_border >= 0
    ):
        raise DataError("random_square_crop_by_scale: it needs num_scales of 1 or more and 0 < scale_min <= scale_max.")
    if step is random_scale_crop_and_pad_to_square and not (
        message.output_size >= 1 and 0 < message.scale_min <= message.scale_max
    ):
        raise DataError(
            "random_scale_crop_and_pad_to_square: it needs output_size of 1 or more and 0 < scale_min <= scale_max."
        )
    if step in (random_absolute_pad_image, random_pad_image) and len(message.pad_color) not in (0, 3):
        raise DataError(f"{step.__name__}.pad_color needs three values (R, G, B), or none (the mean).")
    if step in (random_adjust_contrast, random_adjust_saturation) and not 0 <= message.min_delta <= message.max_delta:
        raise DataError(f"{step.__name__}: it needs 0 <= min_delta <= max_delta.")
    if step is random_adjust_hue and not 0 <= message.max_delta <= 0.5:
        raise DataError(f"random_adjust_hue.max_delta is {message.max_delta:g}; give 0 to 0.5, of a full circle.")
    if step is random_adjust_brightness and not 0 <= message.max_delta <= 1:
        raise DataError(f"random_adjust_brightness.max_delta is {message.max_delta:g}; give 0 to 1, of the full range.")
    if step is random_patch_gaussian and not (
        1 <= message.min_patch_size < message.max_patch_size
        and 0 <= message.min_gaussian_stddev <= message.max_gaussian_stddev
    ):
        raise DataError(
            "random_patch_gaussian: it needs 1 <= min_patch_size < max_patch_size and 0 <= min_gaussian_stddev <= "
            "max_gaussian_stddev."
        )
    if step is random_horizontal_flip and num_keypoints:
        permutation = list(message.keypoint_flip_permutation)
        if sorted(permutation) != list(range(num_keypoints)):
            raise DataError(
                f"random_horizontal_flip.keypoint_flip_permutation is {permutation}; data with {num_keypoints} "
                f"keypoints need each of 0 to {num_keypoints - 1} once: for keypoint k its mirror image's id."
            )
