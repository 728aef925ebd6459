"""Any TensorFlow Datasets data set with `image` and `objects/{bbox,label}`, in the form of decoded tf.Examples.

Keypoints are read from `objects/keypoints` `[n, 2]`, normalised (y, x): the n of an object are those that the label map
names for its class, in the order of their ids.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf

from tfod_zoo.data.errors import DataError
from tfod_zoo.data.tf_example import UNKNOWN, Tensors

_INDEX = "tfod_zoo/index"


def open_tfds(
    path: Any, label_map: Any | None, num_keypoints: int = 0
) -> tuple[int, tf.data.Dataset, Callable[[Tensors], Tensors]]:
    """Opens a TFDS data set that is already prepared; the package's own shapes set is made on first use.

    Args:
      path: TfdsPath.
      label_map: LabelMap that the class names are looked up in; None takes TFDS's label + 1 as id.
      num_keypoints: K, of all classes together; 0 reads none.

    Returns:
      the number of examples; the examples in their stored order, images still encoded; and a function from one of them
      to what `tf_example.parse_example` returns.

    Raises:
      DataError: no such data set or split, not prepared, without boxes, or with other keypoints than the label map's.
    """
    import tensorflow_datasets as tfds

    builder = _builder(tfds, path)
    objects = _object_features(tfds, builder, path)
    try:
        count = builder.info.splits[path.split].num_examples
    except (KeyError, ValueError) as error:
        splits = ", ".join(builder.info.splits) or "none"
        raise DataError(f"{path}: no split {path.split!r}; it has {splits}.") from error
    # One file after another, undecoded: order and shuffling are the input pipeline's, and skipping must cost nothing.
    dataset = builder.as_dataset(
        split=path.split,
        shuffle_files=False,
        decoders={"image": tfds.decode.SkipDecoding()},
        read_config=tfds.ReadConfig(interleave_cycle_length=1, try_autocache=False),
    )
    dataset = dataset.enumerate().map(lambda index, example: {**example, _INDEX: index})
    ids = tf.constant(_class_ids(objects["label"], label_map), tf.int64)
    places = _keypoint_places(objects, label_map, num_keypoints, path) if num_keypoints else None
    return count, dataset, lambda example: _parse(example, ids, places)


def _builder(tfds: Any, path: Any) -> Any:
    folder = path.folder or os.environ.get("TFOD_ZOO_DATA") or None
    name, _, config = path.name.partition("/")
    if name == "tfod_zoo_shapes":
        from tfod_zoo.data.shapes import shapes_builder

        return shapes_builder(config, folder)
    try:
        builder = tfds.builder(path.name, data_dir=folder)
    except (tfds.core.registered.DatasetNotFoundError, ValueError) as error:
        first_line = str(error).strip().splitlines()[0]
        raise DataError(f"{path}: TFDS has no such data set here ({first_line}); check name and folder.") from error
    if not builder.info.splits:
        raise DataError(
            f"{path} is not prepared under {builder.data_dir}; prepare it with "
            f"`tfds build {path.name} --data_dir DIR` and name that folder: {path.name}:{path.split}@DIR."
        )
    return builder


def _object_features(tfds: Any, builder: Any, path: Any) -> Any:
    """The feature dict of one object."""
    features = builder.info.features
    inner = getattr(features["objects"], "feature", None) if {"image", "objects"} <= set(features.keys()) else None
    if inner is None or not {"bbox", "label"} <= set(inner.keys()):
        raise DataError(f"{path} has no `image`, `objects/bbox` and `objects/label`; it cannot be used for detection.")
    return inner


def _class_ids(label: Any, label_map: Any | None) -> list[int]:
    """TFDS label -> label-map id: by class name, as TFDS counts COCO's 80 classes without the gaps."""
    if label_map is None:
        return list(range(1, label.num_classes + 1))
    ids = [label_map.id_of(name) for name in label.names]
    return [UNKNOWN if one is None else one for one in ids]


def _keypoint_places(objects: Any, label_map: Any | None, num_keypoints: int, path: Any) -> tf.Tensor:
    """`[TFDS classes, K]` int32: which of an object's own keypoints stands at each place; -1: none of them."""
    own = objects["keypoints"].shape[0] if "keypoints" in objects else 0
    if not own:
        raise DataError(f"{path} has no objects/keypoints; take num_keypoints out of the input reader.")
    places = np.full([objects["label"].num_classes, num_keypoints], -1, np.int32)
    items = {item.id: item for item in label_map.items} if label_map else {}
    for label, id in enumerate(_class_ids(objects["label"], label_map)):
        keypoints = sorted(items[id].keypoints) if id in items else ()
        if not keypoints:
            continue
        if len(keypoints) != own or keypoints[-1][0] >= num_keypoints:
            raise DataError(
                f'{path} has {own} keypoints an object and the input reader {num_keypoints} in all, but the label map '
                f'has {len(keypoints)} for "{items[id].title}", up to id {keypoints[-1][0]}; make them agree.'
            )
        places[label, [place for place, _ in keypoints]] = np.arange(own)
    return tf.constant(places)


def _parse(example: Tensors, ids: tf.Tensor, places: tf.Tensor | None) -> Tensors:
    objects = example["objects"]
    boxes = tf.cast(objects["bbox"], tf.float32)
    count = tf.shape(boxes)[0]
    # COCO's image id, which its results files refer to; else the file's name; else the place in the split.
    name = next(example[key] for key in ("image/id", "image/filename", _INDEX) if key in example)
    if name.dtype != tf.string:
        name = tf.strings.as_string(name)
    # Test splits mark their unlabelled objects -1.
    labels = tf.cast(objects["label"], tf.int64)
    classes = tf.where(labels >= 0, tf.gather(ids, tf.maximum(labels, 0)), tf.cast(UNKNOWN, tf.int64))
    keypoints = {}
    if places is not None:
        rows = tf.gather(places, tf.maximum(labels, 0))
        points = tf.gather(tf.cast(objects["keypoints"], tf.float32), tf.maximum(rows, 0), batch_dims=1)
        keypoints["keypoints"] = tf.where((rows >= 0)[..., None], points, float("nan"))
    return {
        "encoded": example["image"],
        "source_id": name,
        "boxes": boxes,
        "classes": classes,
        "weights": tf.ones([count]),
        "is_crowd": tf.cast(objects["is_crowd"], tf.bool) if "is_crowd" in objects else tf.zeros([count], tf.bool),
        "area": tf.cast(objects["area"], tf.float32) if "area" in objects else tf.zeros([count]),
        **keypoints,
    }
