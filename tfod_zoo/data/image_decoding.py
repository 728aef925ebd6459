"""Image bytes -> RGB pixels, and what to do when that fails."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import tensorflow as tf


def decode_rgb(encoded: tf.Tensor) -> tf.Tensor:
    """JPEG, PNG, BMP or GIF bytes -> uint8 `[h, w, 3]`.

    Greyscale and CMYK JPEGs become RGB, 16-bit PNGs lose their low byte, transparency is dropped, the first frame of an
    animation counts. As in TFOD the EXIF orientation is not looked at: the boxes of a record belong to the stored
    pixels, and the importers write those upright.

    Raises:
      tf.errors.InvalidArgumentError (at run time): not an image, or one that is cut off.
    """
    # Without expand_animations=False a GIF would have four dimensions and every other image no static rank.
    return tf.ensure_shape(tf.io.decode_image(encoded, channels=3, expand_animations=False), [None, None, 3])


def or_else(function: Callable[[Any], Any], value: Any, fallback: Any) -> Any:
    """`function(value)` inside a graph, or `fallback` (same structure and dtypes) if an operation in it fails.

    A graph has no try statement; a data set of one element that drops failures is one.
    """
    tried = tf.data.Dataset.from_tensors(value).map(function).ignore_errors()
    return tried.concatenate(tf.data.Dataset.from_tensors(fallback)).take(1).get_single_element()
