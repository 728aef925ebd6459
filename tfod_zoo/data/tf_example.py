"""tf.Example records as TFOD defines them: decoding and encoding (pipeline spec, section 3).

Decoding differs from TFOD where that is a defect: an empty class text is unknown (TFOD gives it the id of an arbitrary
item), and every field of an object goes when the object goes (TFOD leaves its weight behind).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import tensorflow as tf

Tensors = dict[str, tf.Tensor]

_BOX = [f"image/object/bbox/{side}" for side in ("ymin", "xmin", "ymax", "xmax")]
_TEXT, _LABEL = "image/object/class/text", "image/object/class/label"
_WEIGHT, _CROWD, _AREA = "image/object/weight", "image/object/is_crowd", "image/object/area"
_KEYPOINT_Y, _KEYPOINT_X = "image/object/keypoint/y", "image/object/keypoint/x"
_VISIBILITY = "image/object/keypoint/visibility"

_FEATURES = {
    "image/encoded": tf.io.FixedLenFeature([], tf.string, ""),
    "image/source_id": tf.io.FixedLenFeature([], tf.string, ""),
    "image/filename": tf.io.FixedLenFeature([], tf.string, ""),
    **{key: tf.io.RaggedFeature(tf.float32) for key in (*_BOX, _WEIGHT, _AREA)},
    **{key: tf.io.RaggedFeature(tf.int64) for key in (_LABEL, _CROWD)},
    _TEXT: tf.io.RaggedFeature(tf.string),
}
_KEYPOINT_FEATURES = {
    **{key: tf.io.RaggedFeature(tf.float32) for key in (_KEYPOINT_Y, _KEYPOINT_X)},
    _VISIBILITY: tf.io.RaggedFeature(tf.int64),
}
UNKNOWN = -1  # class id of an object whose class the label map does not have


class ClassTable:
    """Class texts -> label-map ids inside a graph.

    Args:
      label_map: LabelMap, or None for records that are read by their integer labels only.
    """

    def __init__(self, label_map: Any | None):
        self._table = None
        if label_map is None:
            return
        ids: dict[str, int] = {}
        for item in label_map.items:
            for text in (item.display_name, item.name):  # `name` wins where both exist
                if text:
                    ids[text] = item.id
        init = tf.lookup.KeyValueTensorInitializer(list(ids), list(ids.values()), tf.string, tf.int64)
        self._table = tf.lookup.StaticHashTable(init, UNKNOWN)

    def ids(self, texts: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
        """Text wins as soon as a record has any; without text, or without a label map, the integer labels count."""
        if self._table is None:
            return labels
        return tf.cond(tf.size(texts) > 0, lambda: self._table.lookup(texts), lambda: labels)


def parse_example(serialized: tf.Tensor, classes: ClassTable, num_keypoints: int = 0) -> Tensors:
    """One serialized tf.Example -> its fields, the image still encoded.

    Args:
      serialized: string scalar.
      classes: maps class texts to ids.
      num_keypoints: K, how many keypoints each object has in the record; 0 reads none.

    Returns:
      encoded, source_id: string scalars (source_id falls back to the file name); boxes `[N, 4]` float32 normalised
      yxyx as written, unchecked; classes `[N]` int64 label-map ids, -1 where unknown; weights `[N]` float32 (default
      1); is_crowd `[N]` bool; area `[N]` float32 original px^2 (0 = unknown); if K > 0 keypoints `[N, K, 2]` float32
      normalised (y, x), NaN where not labelled, as all are in a record without any.

    Raises:
      tf.errors.InvalidArgumentError (at run time): no tf.Example, or object lists of different lengths.
    """
    fields = tf.io.parse_single_example(serialized, _FEATURES | (_KEYPOINT_FEATURES if num_keypoints else {}))
    boxes = [fields[key] for key in _BOX]
    count = tf.size(boxes[0])
    ids = classes.ids(fields[_TEXT], fields[_LABEL])
    checks = [
        tf.debugging.assert_equal(tf.size(column), count, message="object lists of different lengths")
        for column in (*boxes[1:], ids)
    ]
    with tf.control_dependencies([check for check in checks if check is not None]):
        boxes = tf.stack(boxes, axis=-1)
    source_id, filename = fields["image/source_id"], fields["image/filename"]
    return {
        "encoded": fields["image/encoded"],
        "source_id": tf.where(tf.strings.length(source_id) > 0, source_id, filename),
        "boxes": boxes,
        "classes": ids,
        "weights": _or_default(fields[_WEIGHT], tf.ones([count])),
        "is_crowd": _or_default(fields[_CROWD], tf.zeros([count], tf.int64)) != 0,
        "area": _or_default(fields[_AREA], tf.zeros([count])),
        **({"keypoints": _keypoints(fields, count, num_keypoints)} if num_keypoints else {}),
    }


def _keypoints(fields: Tensors, count: tf.Tensor, num_keypoints: int) -> tf.Tensor:
    """Keypoints `[N, K, 2]`, NaN where not labelled: COCO's visibility 0, or no number (pipeline spec, 3.2)."""
    absent = tf.fill([count * num_keypoints], float("nan"))
    y, x = _or_default(fields[_KEYPOINT_Y], absent), _or_default(fields[_KEYPOINT_X], absent)
    visibility = fields[_VISIBILITY]
    numbers = tf.math.is_finite(y) & tf.math.is_finite(x)
    # TFOD trusts the visibilities only when there is one for each keypoint.
    codes = tf.cond(tf.size(visibility) == tf.size(x), lambda: visibility > 0, lambda: tf.ones_like(numbers))
    points = tf.where((codes & numbers)[:, None], tf.stack([y, x], axis=-1), float("nan"))
    return tf.reshape(points, [count, num_keypoints, 2])


def _or_default(values: tf.Tensor, default: tf.Tensor) -> tf.Tensor:
    """`values`, or `default` where the record has none; any other length is an error of the record."""
    chosen = tf.cond(tf.size(values) > 0, lambda: values, lambda: default)
    check = tf.debugging.assert_equal(tf.size(chosen), tf.size(default), message="object lists of different lengths")
    with tf.control_dependencies([check] if check is not None else []):
        return tf.identity(chosen)


class Keypoint(NamedTuple):
    """A keypoint to write: its label, place normalised to 0..1, and COCO's visibility code (0 not labelled, 1 hidden, 2
    visible)."""

    name: str
    y: float
    x: float
    visibility: int


@dataclass(frozen=True)
class ExampleObject:
    """An object to write: box (ymin, xmin, ymax, xmax) normalised to 0..1, class, area in original px^2, and its
    keypoints, in the order of their ids and equally many for each object of a data set."""

    box: tuple[float, float, float, float]
    class_text: str
    class_id: int
    area: float
    difficult: bool = False
    is_crowd: bool = False
    keypoints: tuple[Keypoint, ...] = ()


def encode_example(
    encoded: bytes,
    image_format: str,
    height: int,
    width: int,
    objects: Sequence[ExampleObject],
    *,
    filename: str = "",
    source_id: str = "",
) -> bytes:
    """A serialized tf.Example with TFOD's keys, which TFOD's own reader takes too.

    Args:
      encoded: the image file's bytes.
      image_format: "jpeg" or "png".
      height, width: of the image in pixels.
      objects: what is in it; may be empty.
      filename, source_id: the image's file name, and its name in the data set (unique, or evaluation mixes them up).

    Raises:
      ValueError: the objects differ in their number of keypoints.
    """
    if len({len(item.keypoints) for item in objects}) > 1:
        raise ValueError("every object of a record needs the same number of keypoints")
    keypoints = [keypoint for item in objects for keypoint in item.keypoints]

    def strings(*values: str | bytes) -> tf.train.Feature:
        data = [value if isinstance(value, bytes) else value.encode() for value in values]
        return tf.train.Feature(bytes_list=tf.train.BytesList(value=data))

    def integers(*values: int) -> tf.train.Feature:
        return tf.train.Feature(int64_list=tf.train.Int64List(value=values))

    def floats(*values: float) -> tf.train.Feature:
        return tf.train.Feature(float_list=tf.train.FloatList(value=values))

    feature = {
        "image/encoded": strings(encoded),
        "image/format": strings(image_format),
        "image/height": integers(height),
        "image/width": integers(width),
        "image/filename": strings(filename),
        "image/source_id": strings(source_id),
        **{key: floats(*(item.box[side] for item in objects)) for side, key in enumerate(_BOX)},
        _TEXT: strings(*(item.class_text for item in objects)),
        _LABEL: integers(*(item.class_id for item in objects)),
        _AREA: floats(*(item.area for item in objects)),
        _CROWD: integers(*(int(item.is_crowd) for item in objects)),
        "image/object/difficult": integers(*(int(item.difficult) for item in objects)),
    }
    if keypoints:
        feature |= {
            _KEYPOINT_Y: floats(*(keypoint.y for keypoint in keypoints)),
            _KEYPOINT_X: floats(*(keypoint.x for keypoint in keypoints)),
            _VISIBILITY: integers(*(keypoint.visibility for keypoint in keypoints)),
            "image/object/keypoint/text": strings(*(keypoint.name for keypoint in keypoints)),
            "image/object/keypoint/num": integers(
                *(sum(keypoint.visibility > 0 for keypoint in item.keypoints) for item in objects)
            ),
        }
    return tf.train.Example(features=tf.train.Features(feature=feature)).SerializeToString(deterministic=True)
