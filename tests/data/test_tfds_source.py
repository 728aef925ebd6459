"""TFDS counts classes through from 0; label maps need not."""

import pytest
import tensorflow_datasets as tfds

from tfod_zoo.config.label_map import COCO_LABEL_MAP, read_label_map
from tfod_zoo.data.errors import DataError
from tfod_zoo.data.source import open_sources, parse_tfds_path
from tfod_zoo.data.tfds_source import _class_ids, _object_features


def test_labels_are_mapped_by_name_over_the_gaps():
    label = tfds.features.ClassLabel(names=["person", "fire hydrant", "stop sign", "toothbrush", "unicorn"])
    assert _class_ids(label, read_label_map(COCO_LABEL_MAP)) == [1, 11, 13, 90, -1]
    assert _class_ids(label, None) == [1, 2, 3, 4, 5]


def test_what_tfds_does_not_have_is_named(tmp_path):
    with pytest.raises(DataError, match="no such data set"):
        open_sources([f"tfds:not_a_data_set:train@{tmp_path}"], None)


def test_sets_without_boxes_are_refused():
    class Builder:
        class info:  # noqa: N801
            features = tfds.features.FeaturesDict({"image": tfds.features.Image(), "label": tfds.features.Text()})

    with pytest.raises(DataError, match="cannot be used for detection"):
        _object_features(tfds, Builder, parse_tfds_path("tfds:mnist:train"))
