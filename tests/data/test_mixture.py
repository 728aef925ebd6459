"""Several sources in one stream: by weight or whole, in an order that only seed and position decide."""

from collections import Counter

import numpy as np
import pytest
from conftest import example

from tfod_zoo.data import mixture
from tfod_zoo.data.errors import DataError
from tfod_zoo.data.input_pipeline import build_dataset, count_examples
from tfod_zoo.data.record_writer import write_shards
from tfod_zoo.data.shapes import prepare_shapes


def names(dataset, batches):
    return [name.decode() for features, _ in dataset.take(batches) for name in features["source_id"].numpy()]


@pytest.fixture
def weighted(pipeline_of, tmp_path):
    """Three sources of 8, 3 and 5 records, the middle one of weight 0."""
    pipeline = pipeline_of([example(f"a{n}") for n in range(8)])
    for reader in (pipeline.train_input_reader, pipeline.eval_input_reader[0]):
        for letter, count in (("b", 3), ("c", 5)):
            records = write_shards([example(f"{letter}{n}") for n in range(count)], tmp_path, letter, 2)
            reader.tf_record_input_reader.input_path.append(records)
        reader.sample_from_datasets_weights.extend([3.0, 0.0, 1.0])
    return pipeline


def test_sources_are_drawn_by_their_weights(weighted):
    stream = names(build_dataset(weighted, training=True, seed=3), 100)
    letters = Counter(name[0] for name in stream)
    assert set(letters) == {"a", "c"} and 250 <= letters["a"] <= 350  # of 400; five deviations either way
    for letter, count in (("a", 8), ("c", 5)):  # each source goes through its own epochs
        own = [name for name in stream if name[0] == letter]
        for epoch in range(len(own) // count):
            assert len(set(own[epoch * count : (epoch + 1) * count])) == count
    assert stream != names(build_dataset(weighted, training=True, seed=4), 100)


def test_a_mixture_goes_on_where_it_was(weighted, monkeypatch):
    monkeypatch.setattr(mixture, "_DRAWS", 16)  # so that positions lie beyond the first block
    whole = list(build_dataset(weighted, training=True).take(30))
    for skipped in (3, 21):
        rest = build_dataset(weighted, training=True, skip_examples=4 * skipped).take(30 - skipped)
        for (one, _), (other, _) in zip(whole[skipped:], rest, strict=True):
            assert one["source_id"].numpy().tolist() == other["source_id"].numpy().tolist()
            np.testing.assert_array_equal(one["image"], other["image"])


def test_evaluation_reads_every_record_of_a_weight_once(weighted):
    expected = [f"a{n}" for n in range(8)] + [f"c{n}" for n in (0, 2, 4, 1, 3)]  # records are dealt out to two shards
    assert names(build_dataset(weighted, training=False, batch_size=4), 9) == expected
    assert count_examples(weighted, training=False) == 13
    weighted.eval_input_reader[0].sample_1_of_n_examples = 4
    assert names(build_dataset(weighted, training=False, batch_size=4), 9) == ["a0", "a4", "c0", "c3"]
    assert count_examples(weighted, training=False) == 4


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ([1.0, 2.0], "2 weights for 3 input_paths"),
        ([0.0, 0.0, 0.0], "not all of them 0"),
        ([1.0, -1.0, 2.0], "numbers of 0 or more"),
        ([1.0, float("nan"), 2.0], "numbers of 0 or more"),
    ],
)
def test_weights_that_cannot_be(weighted, weights, message):
    weighted.train_input_reader.sample_from_datasets_weights[:] = weights
    with pytest.raises(DataError, match=message):
        build_dataset(weighted, training=True)


@pytest.fixture
def mixed(pipeline_of, tmp_path):
    """Six records and four examples of a TFDS data set."""
    train, _, label_map = prepare_shapes(tmp_path / "shapes", train=4, validation=1, image_size=32)
    records = write_shards([example(f"r{n}", text="star") for n in range(6)], tmp_path, "records", 1)
    pipeline = pipeline_of(train, num_classes=5, label_map=label_map)
    for reader in (pipeline.train_input_reader, pipeline.eval_input_reader[0]):
        reader.tf_record_input_reader.input_path.append(records)
    return pipeline


def test_tfds_and_records_are_one_data_set(mixed):
    stream = names(build_dataset(mixed, training=True), 10)
    epochs = [stream[start : start + 10] for start in range(0, 40, 10)]
    shapes = {f"train-{n:06d}.jpg" for n in range(4)}
    assert all(set(epoch) == shapes | {f"r{n}" for n in range(6)} for epoch in epochs) and epochs[0] != epochs[1]
    assert any(set(epoch[:4]) & shapes and set(epoch[:4]) - shapes for epoch in epochs)  # not one after the other
    assert stream[12:] == names(build_dataset(mixed, training=True, skip_examples=12), 7)
    for features, truth in build_dataset(mixed, training=False, batch_size=1):
        if features["source_id"][0].numpy().startswith(b"r"):
            assert truth["classes"][0, 0] == 3 and truth["num_boxes"].numpy() == [1]  # a star
    assert count_examples(mixed, training=True) == 10


def test_tfds_and_records_by_weight(mixed):
    mixed.train_input_reader.sample_from_datasets_weights.extend([1.0, 1.0])
    mixed.train_input_reader.num_keypoints = 0
    letters = Counter(name[0] for name in names(build_dataset(mixed, training=True), 50))
    assert 60 <= letters["r"] <= 140 and letters["r"] + letters["t"] == 200


@pytest.mark.parametrize(
    ("place", "field", "value"),
    [
        ("train_input_reader", "input_type", 2),
        ("train_input_reader", "expand_labels_hierarchy", True),
        ("train_input_reader", "keypoint_type_weight", [1.0, 0.5]),
        ("train_config", "merge_multiple_label_boxes", True),
        ("train_config", "use_multiclass_scores", True),
    ],
)
def test_fields_that_nothing_honours_are_refused(pipeline_of, place, field, value):
    pipeline = pipeline_of([example("a")])
    message = getattr(pipeline, place)
    if isinstance(value, list):
        getattr(message, field).extend(value)
    else:
        setattr(message, field, value)
    with pytest.raises(DataError, match=f"{place}.{field} is not supported"):
        build_dataset(pipeline, training=True)
