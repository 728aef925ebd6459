"""The shapes data set: the same seed gives the same data, boxes hug what can be seen, and TFDS serves it."""

import numpy as np
import pytest

from tfod_zoo.config.label_map import read_label_map
from tfod_zoo.data.errors import DataError
from tfod_zoo.data.input_pipeline import build_dataset, count_examples
from tfod_zoo.data.shapes import CLASSES, draw_example, prepare_shapes
from tfod_zoo.data.source import parse_tfds_path


def test_the_seed_decides():
    one, shapes = draw_example(60, 80, "0/a")
    again, same = draw_example(60, 80, "0/a")
    np.testing.assert_array_equal(one, again)
    assert [item.label for item in shapes] == [item.label for item in same]
    other, _ = draw_example(60, 80, "0/b")
    assert one.shape != other.shape or (one != other).any()


@pytest.mark.parametrize("number", range(30))
def test_shapes_are_fit_to_learn_from(number):
    pixels, shapes = draw_example(96, 128, f"7/{number}")
    height, width = pixels.shape[:2]
    assert pixels.dtype == np.uint8 and 72 <= height <= 96 and 96 <= width <= 128 and 1 <= len(shapes) <= 5
    for item in shapes:
        ymin, xmin, ymax, xmax = item.box
        assert 0 <= ymin < ymax <= height and 0 <= xmin < xmax <= width
        assert 20 < item.area <= (ymax - ymin) * (xmax - xmin) and item.keypoints.shape == (5, 2)
        assert 0 <= item.label < len(CLASSES)


def test_through_tfds_into_batches(tmp_path, pipeline_of):
    train, validation, label_map = prepare_shapes(tmp_path, train=12, validation=5, image_size=64, seed=3)
    pipeline = pipeline_of(train, num_classes=5, label_map=label_map)
    pipeline.eval_input_reader[0].tf_record_input_reader.input_path[:] = [validation]
    assert [item.name for item in read_label_map(label_map).items] == list(CLASSES)
    assert count_examples(pipeline, training=True) == 12 and count_examples(pipeline, training=False) == 5
    drawn = {}
    for features, truth in build_dataset(pipeline, training=False, batch_size=2):
        for row, name in enumerate(features["source_id"].numpy()):
            count = truth["num_boxes"][row].numpy()
            drawn[name.decode()] = (truth["classes"][row, :count].numpy(), truth["area"][row, :count].numpy())
    assert len(drawn) == 5
    for name, (classes, areas) in drawn.items():
        _, shapes = draw_example(64, 64, f"3/{name}")
        assert classes.tolist() == [item.label for item in shapes] and areas.tolist() == [item.area for item in shapes]
    whole = [features["source_id"].numpy().tolist() for features, _ in build_dataset(pipeline, training=True).take(6)]
    rest = build_dataset(pipeline, training=True, skip_examples=16).take(2)
    assert [features["source_id"].numpy().tolist() for features, _ in rest] == whole[4:]
    again = prepare_shapes(tmp_path, train=12, validation=5, image_size=64, seed=3)
    assert again == (train, validation, label_map)


def test_names_that_cannot_be(tmp_path, pipeline_of):
    with pytest.raises(DataError, match="32 pixels or more"):
        prepare_shapes(tmp_path, train=1, validation=1, image_size=8)
    with pytest.raises(DataError, match="no configuration 'huge'"):
        build_dataset(pipeline_of("tfds:tfod_zoo_shapes/huge:train"), training=True)
    with pytest.raises(DataError, match="tfds:NAME"):
        parse_tfds_path("tfds:coco")


def test_tfds_paths():
    path = parse_tfds_path("tfds:coco/2017:validation[:10%]@/data/tfds")
    assert (path.name, path.split, path.folder) == ("coco/2017", "validation[:10%]", "/data/tfds")
    assert parse_tfds_path("tfds:voc:test").folder is None
