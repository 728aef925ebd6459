"""The shapes data set: the same seed gives the same data, boxes hug what can be seen, and TFDS serves it."""

import numpy as np
import pytest

from tfod_zoo.cli.main import main
from tfod_zoo.config.label_map import read_label_map
from tfod_zoo.data.errors import DataError
from tfod_zoo.data.input_pipeline import build_dataset, count_examples
from tfod_zoo.data.shapes import CLASSES, KEYPOINTS, draw_example, prepare_shapes
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


def test_keypoints_belong_to_their_class(tmp_path, pipeline_of):
    train, validation, label_map = prepare_shapes(
        tmp_path, train=1, validation=12, image_size=64, keypoint_classes=("triangle", "star")
    )
    items = {item.name: item.keypoints for item in read_label_map(label_map).items}
    assert items["triangle"] == tuple(enumerate(KEYPOINTS)) and items["star"] == tuple(enumerate(KEYPOINTS, 5))
    assert items["circle"] == ()
    pipeline = pipeline_of(validation, num_classes=5, label_map=label_map)
    reader = pipeline.eval_input_reader[0]
    reader.num_keypoints = 10
    places, seen = {2: slice(0, 5), 3: slice(5, 10)}, set()
    for features, truth in build_dataset(pipeline, training=False, batch_size=1):
        _, shapes = draw_example(64, 64, f"0/{features['source_id'].numpy()[0].decode()}")
        size = features["original_shape"].numpy()[0] / features["true_image_shape"].numpy()[0, :2] * 32
        assert truth["keypoints"].shape == (1, 10, 10, 2)
        assert np.isnan(truth["keypoints"][0, len(shapes) :]).all()
        for shape, points in zip(shapes, truth["keypoints"].numpy()[0], strict=False):
            expected = np.full((10, 2), np.nan)
            if shape.label in places:
                expected[places[shape.label]] = shape.keypoints
                seen.add(shape.label)
            np.testing.assert_allclose(points * size, expected, atol=1e-3)
    assert seen == {2, 3}
    reader.num_keypoints = 7
    with pytest.raises(DataError, match="make them agree"):
        build_dataset(pipeline, training=False)
    with pytest.raises(DataError, match="'cube' is no shape"):
        prepare_shapes(tmp_path, train=1, validation=1, keypoint_classes=("cube",))


@pytest.mark.parametrize("number", range(40))
def test_keypoints_lie_on_the_shape(number):
    """Ends of axes lie on the outline (a square's are the middles of its sides), the centre inside."""
    _, shapes = draw_example(200, 200, f"9/{number}")
    for shape in shapes[-1:]:  # the last one hides the others, nothing hides it
        ymin, xmin, ymax, xmax = shape.box
        top, right, bottom, left, centre = shape.keypoints
        # A star's tips are thinner than a pixel.
        assert (shape.keypoints >= [ymin - 2, xmin - 2]).all() and (shape.keypoints <= [ymax + 2, xmax + 2]).all()
        assert top[0] < centre[0] < bottom[0] and left[1] < centre[1] < right[1]
        if CLASSES[shape.label] in ("circle", "cross"):
            np.testing.assert_allclose((top + bottom) / 2, centre, atol=1e-6)


@pytest.mark.parametrize(("more", "model"), [((), "od"), (("--keypoints", "star"), "kpts")])
def test_the_next_step_has_a_model_for_them(tmp_path, capsys, more, model):
    few = ["--train", "1", "--validation", "1", "--image-size", "64"]
    assert main(["data", "shapes", "--out", str(tmp_path), *few, *more]) == 0
    last = capsys.readouterr().out.splitlines()[-1]
    assert last.startswith(f"next: tfod-zoo config centernet_mobilenetv2fpn_512x512_coco17_{model} --label-map")


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
