"""Small real files for the data tests."""

import io

import numpy as np
import pytest
from PIL import Image

from tfod_zoo.config.label_map import LabelMap, LabelMapItem, write_label_map
from tfod_zoo.config.schema import message_class
from tfod_zoo.data.record_writer import write_shards
from tfod_zoo.data.tf_example import ExampleObject, encode_example


def image_bytes(value=100, size=(24, 32), image_format="JPEG", mode="RGB", **options):
    """An image file of one grey value; size is (height, width)."""
    stream = io.BytesIO()
    Image.fromarray(np.full((*size, 3), value, np.uint8)).convert(mode).save(stream, image_format, **options)
    return stream.getvalue()


def example(name, encoded=None, boxes=((0.25, 0.25, 0.75, 0.75),), text="cat", class_id=1):
    objects = [ExampleObject(tuple(box), text, class_id, 1.0) for box in boxes]
    encoded = image_bytes() if encoded is None else encoded
    return encode_example(encoded, "jpeg", 24, 32, objects, filename=f"{name}.jpg", source_id=name)


@pytest.fixture
def label_map_path(tmp_path):
    path = tmp_path / "label_map.pbtxt"
    write_label_map(LabelMap((LabelMapItem(1, "cat"), LabelMapItem(2, "/m/dog", "dog"))), path)
    return path


@pytest.fixture
def pipeline_of(tmp_path, label_map_path):
    """records (or one tfds path) -> a config that trains and evaluates on them, 32x32."""

    def make(records, shards=1, max_boxes=10, num_classes=2, label_map=label_map_path):
        path = records if isinstance(records, str) else write_shards(records, tmp_path, "some", shards)
        pipeline = message_class("TrainEvalPipelineConfig")()
        pipeline.model.center_net.num_classes = num_classes
        resizer = pipeline.model.center_net.image_resizer.keep_aspect_ratio_resizer
        resizer.min_dimension = resizer.max_dimension = 32
        resizer.pad_to_max_dimension = True
        pipeline.train_config.batch_size = 4
        for reader in (pipeline.train_input_reader, pipeline.eval_input_reader.add()):
            reader.label_map_path = str(label_map)
            reader.max_number_of_boxes = max_boxes
            reader.tf_record_input_reader.input_path.append(path)
        return pipeline

    return make
