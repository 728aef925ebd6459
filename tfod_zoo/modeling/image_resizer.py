"""Image resizing as pipeline.config's `image_resizer` asks for it: TF1 bilinear sampling, padding bottom and right.

Spec: CenterNet section 3, Faster R-CNN section 2.1. It serves the model's `preprocess` and the input pipeline alike, so
that a network is trained on exactly the pixels it later sees.
"""

from typing import Any

import numpy as np
import tensorflow as tf

from tfod_zoo.errors import ZooError

_SUPPORTED = "keep_aspect_ratio_resizer (with pad_to_max_dimension) and fixed_shape_resizer"


class ResizerError(ZooError):
    """An image_resizer that gives no fixed input size, or that is not supported."""


def canvas_size(resizer: Any) -> tuple[int, int]:
    """The (height, width) in pixels of what `resize_and_pad` returns.

    Args:
      resizer: ImageResizer message.

    Raises:
      ResizerError: the resizer is not supported, or has no fixed output size.
    """
    kind, options = _options(resizer)
    if kind == "fixed_shape_resizer":
        return options.height, options.width
    return options.max_dimension, options.max_dimension


def resize_and_pad(image: tf.Tensor, resizer: Any) -> tuple[tf.Tensor, tf.Tensor]:
    """Resizes an image, or a batch of images of one size, onto the canvas that the network takes.

    Args:
      image: `[h, w, 3]` or `[B, h, w, 3]` RGB in 0..255, any number type; h and w may be unknown until run time.
      resizer: ImageResizer message.

    Returns:
      canvas: float32 `[(B,) H, W, 3]` in 0..255 with static H, W, 3: the image at the top left, the rest
        `per_channel_pad_value` (default 0).
      true_shape: int32 `[3]`, (height, width, channels) of the resized image before padding.

    Raises:
      ResizerError: as `canvas_size`.
    """
    height, width = canvas_size(resizer)
    kind, options = _options(resizer)
    batched = image.shape.rank == 4
    images = image if batched else image[None]
    true_hw = (height, width) if kind == "fixed_shape_resizer" else _keep_aspect_size(images, options)
    canvas = _resize(images, true_hw)
    if kind == "keep_aspect_ratio_resizer":
        canvas = _pad(canvas, true_hw, (height, width), list(options.per_channel_pad_value))
    canvas = tf.ensure_shape(canvas, [images.shape[0], height, width, 3])
    true_shape = tf.convert_to_tensor([true_hw[0], true_hw[1], 3], tf.int32)
    return (canvas if batched else canvas[0]), true_shape


def _options(resizer: Any) -> tuple[str, Any]:
    kind = resizer.WhichOneof("image_resizer_oneof")
    if kind not in ("keep_aspect_ratio_resizer", "fixed_shape_resizer"):
        raise ResizerError(f"image_resizer: {kind or 'none set'} is not supported; use {_SUPPORTED}.")
    options = getattr(resizer, kind)
    method = options.DESCRIPTOR.fields_by_name["resize_method"].enum_type.values_by_number[options.resize_method].name
    if method != "BILINEAR":
        raise ResizerError(f"image_resizer.{kind}.resize_method {method} is not supported; use BILINEAR.")
    if options.convert_to_grayscale:
        raise ResizerError(f"image_resizer.{kind}.convert_to_grayscale is not supported: networks take RGB; remove it.")
    if kind == "fixed_shape_resizer":
        sizes = {"height": options.height, "width": options.width}
    else:
        sizes = {"min_dimension": options.min_dimension, "max_dimension": options.max_dimension}
        if not options.pad_to_max_dimension:
            raise ResizerError(
                f"image_resizer.{kind} without pad_to_max_dimension gives every image another input size; "
                "set pad_to_max_dimension: true."
            )
        if options.min_dimension > options.max_dimension:
            raise ResizerError(
                f"image_resizer.{kind}.min_dimension {options.min_dimension} is larger than max_dimension "
                f"{options.max_dimension}; make it at most that."
            )
        if len(options.per_channel_pad_value) not in (0, 3):
            raise ResizerError(f"image_resizer.{kind}.per_channel_pad_value needs three values (R, G, B), or none.")
    for field, value in sizes.items():
        if value < 1:
            raise ResizerError(f"image_resizer.{kind}.{field} is {value}; give a size in pixels, 1 or more.")
    return kind, options


def _keep_aspect_size(images: tf.Tensor, options: Any) -> tuple[Any, Any]:
    """(height, width) after resizing: Python integers where the input size is static (XLA needs that), else tensors."""
    low, high = options.min_dimension, options.max_dimension
    if None not in images.shape[1:3]:
        h, w = np.float32(images.shape[1]), np.float32(images.shape[2])
        box_h, box_w = (low, high) if h < w else (high, low)
        # float32 throughout, as TFOD computes it: in float64 a size ending in .5 may round the other way.
        scale = min(np.float32(box_h) / h, np.float32(box_w) / w)
        new_h, new_w = (max(int(np.round(scale * side)), 1) for side in (h, w))
        return min(new_h, high), min(new_w, high)
    size = tf.cast(tf.shape(images)[1:3], tf.float32)
    box = tf.where(size[0] < size[1], tf.constant([low, high], tf.float32), tf.constant([high, low], tf.float32))
    scale = tf.reduce_min(box / size)
    new = tf.clip_by_value(tf.cast(tf.round(scale * size), tf.int32), 1, high)  # tf.round: half to even
    return new[0], new[1]


def _resize(images: tf.Tensor, size: tuple[Any, Any]) -> tf.Tensor:
    """Legacy sampling: source = target * (in / out), clamped at the far edge, no half-pixel centres."""
    if isinstance(size[0], int) and tuple(images.shape[1:3]) == size:
        return tf.cast(images, tf.float32)
    # The op takes uint8 as well as float32 and always returns float32; a cast beforehand would cost a pass for nothing.
    if images.dtype not in (tf.uint8, tf.float32):
        images = tf.cast(images, tf.float32)
    return tf.raw_ops.ResizeBilinear(images=images, size=list(size), align_corners=False, half_pixel_centers=False)


def _pad(images: tf.Tensor, size: tuple[Any, Any], canvas: tuple[int, int], fill: list[float]) -> tf.Tensor:
    """Puts what is missing right and below beside the images: several times as fast as `tf.pad` of three channels."""
    for axis in (2, 1):
        missing = canvas[axis - 1] - size[axis - 1]
        if isinstance(missing, int) and missing == 0:
            continue
        shape = tf.unstack(tf.shape(images))
        shape[axis] = missing
        border = tf.broadcast_to(tf.constant(fill or [0.0] * 3, tf.float32), shape)
        images = tf.concat([images, border], axis)
    return images
