"""Which files the words of a command line mean, and where their results go."""

from pathlib import Path

import pytest

from tfod_zoo.errors import UsageError
from tfod_zoo.pictures.inputs import find_inputs, picture_paths, results_folder


@pytest.fixture
def photos(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("a/1.jpg", "a/1.png", "a/1.detections.jpg", "a/sub/1.JPG", "a/note.txt", "b/1.jpg", "b/film.mp4"):
        path = Path("photos") / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")
    return Path("photos")


def names(words):
    return [str(one.path) for one in find_inputs(words)]


def test_folders_files_and_patterns_each_once(photos):
    assert names(["photos/a"]) == ["photos/a/1.jpg", "photos/a/1.png", "photos/a/sub/1.JPG"]
    assert names(["photos/b/film.mp4", "photos/*/1.*"]) == [
        "photos/b/film.mp4", "photos/a/1.jpg", "photos/a/1.png", "photos/b/1.jpg",
    ]  # fmt: skip
    assert names(["photos/**/*.jpg", "photos/a"])[:2] == ["photos/a/1.jpg", "photos/b/1.jpg"]
    # A shell's *.jpg names what was drawn before, too.
    assert names(["photos/a/1.detections.jpg", "photos/a/1.jpg"]) == ["photos/a/1.jpg"]


def test_a_phones_files_are_images_too(tmp_path):
    for name in ("IMG_1.HEIC", "b.avif", "c.txt"):
        (tmp_path / name).touch()
    assert [one.path.name for one in find_inputs([str(tmp_path)])] == ["IMG_1.HEIC", "b.avif"]


def test_cameras(photos):
    found = find_inputs(["webcam", "webcam:2", "/dev/video3"])
    assert [one.camera for one in found] == [0, 2, 3] and all(one.moves for one in found)


def test_drawings_are_beside_the_image_or_laid_out_alike(photos):
    inputs = find_inputs(["photos/a", "photos/b/1.jpg", "photos/b/film.mp4"])
    beside = picture_paths(inputs, None)
    assert [str(path) for path in beside.values()] == [
        "photos/a/1.detections.jpg", "photos/a/1-2.detections.jpg", "photos/a/sub/1.detections.jpg",
        "photos/b/1.detections.jpg", "photos/b/film.detections.mp4",
    ]  # fmt: skip
    below = picture_paths(inputs, Path("out"))
    assert [str(path) for path in below.values()] == [
        "out/1.detections.jpg", "out/1-2.detections.jpg", "out/sub/1.detections.jpg", "out/1-3.detections.jpg",
        "out/film.detections.mp4",
    ]  # fmt: skip
    for places in (beside, below):
        assert len(set(places.values())) == len(inputs) and not set(places.values()) & set(places)
    assert results_folder(inputs, Path("out")) == Path("out") and results_folder(inputs, None) == Path(".")
    assert results_folder(find_inputs(["photos/a"]), None) == Path("photos/a")


@pytest.mark.parametrize("word", ["nothing.jpg", "photos/c*/*.jpg", "empty"])
def test_what_is_not_there_is_named(photos, word):
    Path("empty").mkdir()
    with pytest.raises(UsageError, match=word.split("*")[0]):
        find_inputs([word])
    with pytest.raises(UsageError, match="itself"):
        find_inputs(["photos/a/1.detections.jpg"])
