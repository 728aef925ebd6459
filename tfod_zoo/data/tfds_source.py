"""Any TensorFlow Datasets data set with `image` and `objects/{bbox,label}`, in the form of decoded tf.Examples."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import tensorflow as tf

from tfod_zoo.data.errors import DataError
from tfod_zoo.data.tf_example import UNKNOWN, Tensors

_INDEX = "tfod_zoo/index"


def open_tfds(path: Any, label_map: Any | None) -> tuple[int, tf.data.Dataset, Callable[[Tensors], Tensors]]:
    """Opens a TFDS data set that is already prepared; the package's own shapes set is made on first use.

    Args:
      path: TfdsPath.
      label_map: LabelMap that the class names are looked up in; None takes TFDS's label + 1 as id.

    Returns:
      the number of examples; the examples in their stored order, images still encoded; and a function from one of them
      to what `tf_example.parse_example` returns.

    Raises:
      DataError: no such data set or split, not prepared, or without boxes.
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
    return count, dataset, lambda example: _parse(example, ids)


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


def _parse(example: Tensors, ids: tf.Tensor) -> Tensors:
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
    return {
        "encoded": example["image"],
        "source_id": name,
        "boxes": boxes,
        "classes": classes,
        "weights": tf.ones([count]),
        "is_crowd": tf.cast(objects["is_crowd"], tf.bool) if "is_crowd" in objects else tf.zeros([count], tf.bool),
        "area": tf.cast(objects["area"], tf.float32) if "area" in objects else tf.zeros([count]),
    }
