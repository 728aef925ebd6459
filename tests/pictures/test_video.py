"""`tfod-zoo detect` on videos that OpenCV itself wrote."""

import json
import sys

import numpy as np
import pytest
from small_detector import LOW

from tfod_zoo.cli.main import main
from tfod_zoo.pictures.inputs import Input
from tfod_zoo.pictures.results import Results
from tfod_zoo.pictures.video import VideoReader

cv2 = pytest.importorskip("cv2")

FRAMES = 9

pytestmark = pytest.mark.usefixtures("loaded_once")


@pytest.fixture
def film(tmp_path):
    """Nine frames of 64x96, the n-th of brightness 20n, at 10 frames a second."""
    writer = cv2.VideoWriter(str(tmp_path / "film.mp4"), cv2.VideoWriter.fourcc(*"mp4v"), 10.0, (96, 64))
    for number in range(FRAMES):
        writer.write(np.full([64, 96, 3], 20 * number, np.uint8))
    writer.release()
    return tmp_path / "film.mp4"


def frames(path):
    with VideoReader(Input(path, path.parent)) as video:
        return video.pace, list(video.frames())


def records(folder):
    return [json.loads(line) for line in (folder / "detections.jsonl").read_text().splitlines()]


def test_frames_come_in_order(film):
    pace, seen = frames(film)
    assert pace == 10 and len(seen) == FRAMES and seen[0].shape == (64, 96, 3)
    assert np.abs(np.asarray([frame.mean() for frame in seen]) - 20 * np.arange(FRAMES)).max() < 10


def test_a_film_is_drawn_and_recorded(model_folder, film, tmp_path):
    assert main(["detect", model_folder, str(film), *LOW]) == 0
    pace, drawn = frames(tmp_path / "film.detections.mp4")
    _, before = frames(film)
    assert pace == 10 and len(drawn) == FRAMES and drawn[0].shape == (64, 96, 3)
    assert all(np.abs(one.astype(int) - other).max() > 50 for one, other in zip(drawn, before, strict=True))
    *lines, whole = records(tmp_path)
    assert [line["frame"] for line in lines] == list(range(FRAMES)) and lines[3]["seconds"] == 0.3
    assert whole["frames"] == FRAMES
    results = json.loads((tmp_path / "detections.coco.json").read_text())
    assert {result["image_id"] for result in results} == {*range(1, FRAMES + 1)}
    assert {result["frame"] for result in results} == {*range(FRAMES)}


def test_a_film_goes_on_where_it_was_stopped(model_folder, film, tmp_path, monkeypatch):
    add = Results.add

    def stop_at_the_fifth(self, file, found, **more):
        if more.get("frame") == 4:
            raise KeyboardInterrupt
        return add(self, file, found, **more)

    with monkeypatch.context() as patch:
        patch.setattr(Results, "add", stop_at_the_fifth)
        assert main(["detect", model_folder, str(film), *LOW]) == 130
    assert len(records(tmp_path)) == 4 and len(frames(tmp_path / "film.detections.mp4")[1]) >= 4
    assert main(["detect", model_folder, str(film), *LOW]) == 0
    assert [line.get("frame") for line in records(tmp_path)] == [*range(FRAMES), None]
    again = frames(tmp_path / "film.detections.mp4")[1]
    assert len(again) == FRAMES
    whole = tmp_path / "whole"
    assert main(["detect", model_folder, str(film), "--out", str(whole), *LOW]) == 0
    for one, other in zip(again, frames(whole / "film.detections.mp4")[1], strict=True):
        assert np.abs(one.astype(int) - other).mean() < 2


def test_what_is_no_film_is_named(model_folder, tmp_path, capsys):
    (tmp_path / "film.mp4").write_text("no film")
    assert main(["detect", model_folder, str(tmp_path / "film.mp4")]) == 1
    assert "film.mp4 is not a video" in capsys.readouterr().err


def test_without_opencv_it_says_what_to_install(model_folder, film, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "cv2", None)
    assert main(["detect", model_folder, str(film)]) == 1
    assert "pip install 'tfod-zoo[video]'" in capsys.readouterr().err


def test_a_camera_that_is_not_there_is_named(model_folder, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["detect", model_folder, "webcam:99"]) == 1
    assert "camera 99 cannot be opened" in capsys.readouterr().err
