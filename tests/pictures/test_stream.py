"""`detect` of a model takes pictures of every kind, and streams hold a few at a time."""

import threading
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import numpy as np
import pytest
import small_detector
import tensorflow as tf
from PIL import Image

import tfod_zoo
from tfod_zoo.pictures.reading import PictureError
from tfod_zoo.pictures.stream import Found, Unreadable, ahead, batch_size_for, detect_stream


@pytest.fixture(scope="module")
def model():
    return small_detector.build()


def test_a_batch_gives_what_it_always_gave(model):
    batch = np.stack([small_detector.pixels(0), small_detector.pixels(1)])
    for images in (batch, tf.constant(batch)):
        outputs = model.detect(images)
        assert isinstance(outputs, dict) and outputs["detection_boxes"].shape == (2, 100, 4)
        assert all(value.dtype == tf.float32 for value in outputs.values())
    traced = tf.function(lambda images: model.detect(images))(tf.constant(batch))
    np.testing.assert_allclose(traced["detection_scores"], outputs["detection_scores"], atol=1e-6)
    with pytest.raises(tfod_zoo.UsageError, match="float64"):
        model.detect(batch.astype(np.float64))


def test_a_picture_of_any_kind_gives_detections(model, tmp_path):
    pixels = small_detector.pixels()
    Image.fromarray(pixels).save(tmp_path / "a.png")
    outputs = model.detect(pixels[None])
    for picture in (tmp_path / "a.png", str(tmp_path / "a.png"), Image.fromarray(pixels), pixels, tf.constant(pixels)):
        found = model.detect(picture)
        assert isinstance(found, tfod_zoo.Detections) and found.size == (48, 80)
        count = int(outputs["num_detections"][0])
        assert len(found) == count > 0
        np.testing.assert_allclose(found.scores, outputs["detection_scores"][0, :count], atol=1e-5)
        assert found.keypoints.shape == (count, 17, 2)
    assert model.detect(str(tmp_path / "a.png")).source == str(tmp_path / "a.png") and found.source is None
    assert tfod_zoo.draw(pixels, found, min_score=0.0).size == (80, 48)


def test_a_list_of_different_sizes_keeps_its_order(model):
    pictures = [small_detector.pixels(index, 30 + 10 * index, 50) for index in range(4)]
    found = model.detect(pictures)
    assert [one.size for one in found] == [(30, 50), (40, 50), (50, 50), (60, 50)]
    for one, picture in zip(found, pictures, strict=True):
        alone = model.detect(picture)
        np.testing.assert_allclose(one.scores, alone.scores, atol=1e-5)
    assert model.detect([]) == [] and len(model.detect((pictures[0],))) == 1
    with pytest.raises(PictureError, match="missing.jpg"):
        model.detect([pictures[0], "missing.jpg"])


def test_batches_change_nothing(model):
    pictures = [small_detector.pixels(index) for index in range(5)]
    one_by_one = list(detect_stream(model, pictures, batch_size=1))
    by_three = list(detect_stream(model, [*pictures[:2], "a.jpg", *pictures[2:], "b.jpg"], batch_size=3))
    assert isinstance(by_three.pop(), Unreadable) and isinstance(by_three.pop(2), Unreadable)
    (none,) = detect_stream(model, ["a.jpg"], batch_size=3)
    assert isinstance(none, Unreadable)
    for one, other in zip(one_by_one, by_three, strict=True):
        np.testing.assert_array_equal(one.pixels, other.pixels)
        np.testing.assert_allclose(one.detections.scores, other.detections.scores, atol=1e-5)


@pytest.mark.skipif(bool(tf.config.list_physical_devices("GPU")), reason="on a GPU every batch has up to eight")
def test_a_batch_has_four_pictures_of_512_fewer_of_larger_ones_and_shares_them_out_evenly():
    def of(size, count=None):
        return batch_size_for(SimpleNamespace(input_shape_hw=(size, size)), count)

    assert [of(size) for size in (64, 512, 640, 800, 1024, 2048)] == [4, 4, 2, 1, 1, 1]
    assert [of(512, count) for count in range(10)] == [4, 1, 2, 3, 4, 3, 3, 4, 4, 3]
    for count in range(1, 200):  # no batch is padded by more than a picture
        batches = -(-count // of(512, count))
        assert batches == -(-count // 4) and 0 <= batches * of(512, count) - count < batches


def test_help_says_it_all(model):
    import inspect

    for method in (model.detect, tfod_zoo.DetectionModel.detect):
        assert inspect.isroutine(method) and "a list or tuple of pictures" in inspect.getdoc(method)
    assert list(inspect.signature(model.detect).parameters) == ["images"]


def test_a_stream_holds_a_few_pictures(model):
    pulled = 0

    def sources():
        nonlocal pulled
        for index in range(60):
            pulled += 1
            yield small_detector.pixels(index)

    most = 0
    for done, one in enumerate(detect_stream(model, sources(), batch_size=2), start=1):
        assert isinstance(one, Found)
        most = max(most, pulled - done)
    assert done == 60 and most <= 16


def test_ahead_is_map_in_order_with_a_limit_and_stops_when_left():
    started, lock = [], threading.Lock()

    def work(item):
        with lock:
            started.append(item)
        return item * item

    with ThreadPoolExecutor(3) as pool:
        assert list(ahead(pool, work, range(50), 4)) == [item * item for item in range(50)]
        started.clear()
        results = ahead(pool, work, iter(range(1000)), 4)
        assert [next(results), next(results)] == [0, 1]
        results.close()
    assert len(started) <= 6
