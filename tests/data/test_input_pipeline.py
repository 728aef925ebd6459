"""What reaches the network, from records on disk: order, resuming, and every kind of bad record."""

import logging

import numpy as np
import pytest
import tensorflow as tf
from conftest import example, image_bytes

from tfod_zoo.data.errors import DataError, DataProblems
from tfod_zoo.data.input_pipeline import build_dataset, count_examples
from tfod_zoo.data.tf_example import ExampleObject, Keypoint, encode_example


def names(dataset, batches):
    return [name.decode() for features, _ in dataset.take(batches) for name in features["source_id"].numpy()]


def contents(dataset, batches):
    return [
        (features["source_id"].numpy().tolist(), features["image"].numpy(), truth["boxes"].numpy())
        for features, truth in dataset.take(batches)
    ]


def augmented(pipeline):
    steps = pipeline.train_config.data_augmentation_options
    steps.add().random_horizontal_flip.SetInParent()
    steps.add().random_crop_image.random_coef = 0.25
    steps.add().random_adjust_brightness.SetInParent()
    return pipeline


def test_shapes_and_canvas(pipeline_of):
    pipeline = pipeline_of([example("a"), example("b", boxes=())])
    (features, truth), *more = build_dataset(pipeline, training=False, batch_size=4)
    assert not more and count_examples(pipeline, training=False) == 2
    assert features["image"].shape == (2, 32, 32, 3) and features["image"].dtype == tf.float32
    assert features["true_image_shape"].numpy().tolist() == [[24, 32, 3]] * 2
    assert features["original_shape"].numpy().tolist() == [[24, 32]] * 2
    assert truth["num_boxes"].numpy().tolist() == [1, 0]  # a record without boxes is a negative
    np.testing.assert_allclose(truth["boxes"][0, 0], [0.25 * 0.75, 0.25, 0.75 * 0.75, 0.75])  # 24 of 32 rows are image
    assert truth["classes"][0, 0] == 0 and truth["weights"][0].numpy().tolist() == [1.0] + [0.0] * 9
    assert not any(np.any(value[1]) for value in truth.values())
    static = build_dataset(pipeline, training=True).element_spec
    assert all(None not in spec.shape for part in static for spec in part.values())


def test_text_wins_over_label_and_display_names_count(pipeline_of):
    records = [example("a", text="dog", class_id=1), example("b", text="/m/dog", class_id=1), example("c", text="cow")]
    problems = DataProblems()
    ((_, truth),) = build_dataset(pipeline_of(records), training=False, batch_size=4, problems=problems)
    assert truth["classes"][:, 0].numpy().tolist() == [1, 1, 0] and truth["num_boxes"].numpy().tolist() == [1, 1, 0]
    assert problems.counts == {"objects of a class that is not in the label map": 1}


def test_bad_boxes_are_counted_once_and_dropped(pipeline_of, caplog):
    boxes = [
        (0.1, 0.1, 0.5, 0.5),
        (float("nan"), 0.1, 0.5, 0.5),
        (0.5, 0.5, 0.5, 0.9),
        (0.9, 0.9, 0.1, 0.1),
        (1.1, 0.1, 1.5, 0.5),
        (-0.2, 0.1, 0.5, 1.3),
    ]
    problems = DataProblems()
    dataset = build_dataset(pipeline_of([example("a", boxes=boxes)]), training=False, problems=problems)
    with caplog.at_level(logging.WARNING, "tfod_zoo.data"):
        for _ in range(2):
            ((_, truth),) = dataset
    assert truth["num_boxes"].numpy().tolist() == [2]
    np.testing.assert_allclose(truth["boxes"][0, 1], [0, 0.1, 0.375, 1], atol=1e-6)
    assert problems.counts == {
        "boxes with a coordinate that is not a number": 1,
        "boxes without area": 2,
        "boxes outside the image": 1,
        "boxes partly outside the image": 1,
    }
    assert "2 boxes without area (dropped); the first in image 'a'" in problems.summary()
    assert len(caplog.records) == 4


def test_more_boxes_than_fit_are_counted(pipeline_of):
    problems = DataProblems()
    pipeline = pipeline_of([example("a", boxes=[(0.1, 0.1, 0.5, 0.5)] * 5)], max_boxes=3)
    ((_, truth),) = build_dataset(pipeline, training=False, problems=problems)
    assert truth["boxes"].shape == (1, 3, 4) and problems.counts == {"objects beyond max_number_of_boxes": 2}


@pytest.mark.parametrize(
    ("encoded", "expected"),
    [
        (image_bytes(mode="L"), 100),
        (image_bytes(mode="CMYK"), 100),
        (image_bytes(image_format="PNG"), 100),
        (tf.io.encode_png(tf.fill([24, 32, 3], tf.constant(100 * 257, tf.uint16))).numpy(), 100),
        (image_bytes(image_format="PNG", mode="RGBA"), 100),
        (image_bytes(image_format="GIF"), 100),
        (image_bytes(image_format="BMP"), 100),
    ],
    ids=["grey jpeg", "cmyk jpeg", "png", "16-bit png", "rgba png", "gif", "bmp"],
)
def test_kinds_of_images(pipeline_of, encoded, expected):
    ((features, _),) = build_dataset(pipeline_of([example("a", encoded)]), training=False)
    pixels = features["image"][0].numpy()
    assert np.abs(pixels[:24] - expected).max() <= 3 and not pixels[24:].any()


def bad_records():
    return [
        example("text", b"no image"),
        example("cut", image_bytes(size=(200, 200))[:700]),
        example("empty", b""),
        b"no tf.Example",
    ]


def test_unreadable_records_are_skipped_in_evaluation(pipeline_of):
    problems = DataProblems()
    records = [example("a"), *bad_records(), example("b")]
    dataset = build_dataset(pipeline_of(records), training=False, batch_size=4, problems=problems)
    assert names(dataset, 5) == ["a", "b"]
    assert problems.counts == {"records that could not be read": 4}


def test_unreadable_records_do_not_end_training_nor_move_it(pipeline_of):
    bad = bad_records()
    good = [example(f"g{n}", image_bytes(n)) for n in range(30)]
    records = [bad[0], *good[:10], bad[1], *good[10:], *bad[2:]]
    pipeline, problems = augmented(pipeline_of(records, shards=3)), DataProblems()
    whole = contents(build_dataset(pipeline, training=True, problems=problems), 20)
    assert problems.counts == {"records that could not be read": 4}
    for skipped in (1, 7, 13):
        rest = contents(build_dataset(pipeline, training=True, skip_examples=4 * skipped), 20 - skipped)
        for one, other in zip(whole[skipped:], rest, strict=True):
            assert one[0] == other[0]
            np.testing.assert_array_equal(one[1], other[1])
            np.testing.assert_array_equal(one[2], other[2])


def test_training_stops_clearly_when_nothing_can_be_read(pipeline_of):
    with pytest.raises(tf.errors.InvalidArgumentError, match="none of the first records"):
        next(iter(build_dataset(pipeline_of(bad_records()), training=True)))


def test_order_is_the_seeds_and_every_epoch_is_whole(pipeline_of):
    pipeline = pipeline_of([example(f"e{n}") for n in range(12)], shards=2)
    first, again = (names(build_dataset(pipeline, training=True, seed=5), 6) for _ in range(2))
    other = names(build_dataset(pipeline, training=True, seed=6), 6)
    assert first == again != other
    assert sorted(first[:12]) == sorted(first[12:]) and len(set(first[:12])) == 12 and first[:12] != first[12:]
    pipeline.train_input_reader.shuffle = False
    assert names(build_dataset(pipeline, training=True), 3) == names(build_dataset(pipeline, training=False), 12)


def test_hosts_share_the_stream(pipeline_of):
    pipeline = pipeline_of([example(f"e{n}") for n in range(12)])
    whole = names(build_dataset(pipeline, training=True), 6)
    for skipped in (0, 8):
        shares = [
            names(
                build_dataset(
                    pipeline,
                    training=True,
                    skip_examples=skipped,
                    input_context=tf.distribute.InputContext(2, host, num_replicas_in_sync=2),
                ),
                4,
            )
            for host in range(2)
        ]
        assert [name for pair in zip(*shares, strict=True) for name in pair] == whole[skipped : skipped + 16]


def test_data_that_are_not_there_are_named(pipeline_of, tmp_path):
    with pytest.raises(DataError, match="No file matches .*nowhere"):
        build_dataset(pipeline_of(str(tmp_path / "nowhere*")), training=True)
    with pytest.raises(DataError, match="names no data"):
        build_dataset(pipeline_of("PATH_TO_BE_CONFIGURED"), training=True)
    broken = tmp_path / "broken.tfrecord"
    pipeline_of([example("a")])
    broken.write_bytes((tmp_path / "some-00000-of-00001.tfrecord").read_bytes()[:-3])
    with pytest.raises(DataError, match="broken.tfrecord .*TFRecord"):
        build_dataset(pipeline_of(str(broken)), training=True)


def posed(name, visibilities, away=0.0):
    """A record with a box a row of `visibilities`, and two keypoints in each."""
    objects = [
        ExampleObject(
            (0.25, 0.25, 0.75, 0.75),
            "cat",
            1,
            1.0,
            keypoints=(Keypoint("left", 0.5, 0.25, left), Keypoint("right", 0.5, 0.75 + away, right)),
        )
        for left, right in visibilities
    ]
    return encode_example(image_bytes(), "jpeg", 24, 32, objects, filename=f"{name}.jpg", source_id=name)


def test_keypoints_reach_the_network_where_they_are_labelled(pipeline_of):
    pipeline = pipeline_of([posed("a", [(2, 1), (0, 2)]), example("b"), posed("c", [(2, 2)], away=0.5)])
    pipeline.train_input_reader.num_keypoints = pipeline.eval_input_reader[0].num_keypoints = 2
    problems = DataProblems()
    ((_, truth),) = build_dataset(pipeline, training=False, batch_size=4, problems=problems)
    left, right, none = [0.5 * 0.75, 0.25], [0.5 * 0.75, 0.75], [np.nan, np.nan]  # 24 of 32 rows are image
    assert truth["keypoints"].shape == (3, 10, 2, 2)
    np.testing.assert_allclose(truth["keypoints"][0, :3], [[left, right], [none, right], [none, none]])
    np.testing.assert_allclose(truth["keypoints"][1, 0], [none, none])  # this record has no keypoints at all
    np.testing.assert_allclose(truth["keypoints"][2, 0], [left, none])
    assert problems.counts == {"keypoints outside the image": 1}
    flip = pipeline.train_config.data_augmentation_options.add().random_horizontal_flip
    flip.probability = 1.0
    flip.keypoint_flip_permutation.extend([1, 0])
    for _, truth in build_dataset(pipeline, training=True).take(3):
        points = truth["keypoints"].numpy()[truth["weights"].numpy() > 0]
        for row in points:  # what was left is right, and mirrored it is where the left one was
            np.testing.assert_allclose(row[~np.isnan(row[:, 0]), 1], np.array([0.25, 0.75])[~np.isnan(row[:, 0])])


def test_another_number_of_keypoints_is_refused(pipeline_of):
    pipeline = pipeline_of([example("a"), posed("b", [(2, 2)])])
    pipeline.eval_input_reader[0].num_keypoints = 17
    with pytest.raises(DataError, match="2 keypoints an object, but num_keypoints of the input reader is 17"):
        build_dataset(pipeline, training=False)
