"""`tfod-zoo detect`, with a small real network: pictures, lines, COCO results, going on, and what goes wrong."""

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
import small_detector
from PIL import Image
from small_detector import LOW

from tfod_zoo.cli.main import main
from tfod_zoo.pictures.results import Results

pytestmark = pytest.mark.usefixtures("loaded_once")


def lines(folder):
    return [json.loads(line) for line in (folder / "detections.jsonl").read_text().splitlines()]


def test_one_photograph(model_folder, tmp_path, capsys):
    (path,) = small_detector.write_images(tmp_path, 1)
    before = path.read_bytes()
    assert main(["detect", model_folder, str(path), *LOW]) == 0
    said = capsys.readouterr().out
    assert f"-> {tmp_path / 'image00.detections.jpg'}" in said and "next: " in said
    assert path.read_bytes() == before
    drawn = np.asarray(Image.open(tmp_path / "image00.detections.jpg")).astype(int)
    assert drawn.shape == (48, 80, 3) and np.abs(drawn - np.asarray(Image.open(path))).max() > 100
    (record,) = lines(tmp_path)
    assert record["file"] == str(path) and (record["width"], record["height"]) == (80, 48)
    assert {found["class"] for found in record["detections"]} <= {"cell", "dot"} and record["detections"]
    results = json.loads((tmp_path / "detections.coco.json").read_text())
    assert len(results) == len(record["detections"]) and results[0]["image_id"] == 1
    posed = [result for result in results if result["category_id"] == 1]
    assert all(len(result["keypoints"]) == 3 * 17 for result in posed)
    assert not [name for name in tmp_path.iterdir() if name.name.startswith(".")]


def test_the_same_command_goes_on_after_ctrl_c(model_folder, tmp_path, capsys, monkeypatch):
    paths = small_detector.write_images(tmp_path / "in", 12)
    out = tmp_path / "out"
    command = ["detect", model_folder, str(tmp_path / "in"), "--out", str(out), *LOW]
    add, done = Results.add, []

    def stop_at_five(self, file, found, **more):
        if len(done) == 5:
            raise KeyboardInterrupt
        done.append(file)
        return add(self, file, found, **more)

    with monkeypatch.context() as patch:
        patch.setattr(Results, "add", stop_at_five)
        assert main(command) == 130
    assert "same command goes on" in capsys.readouterr().err
    assert [record["file"] for record in lines(out)] == [str(path) for path in paths[:5]] == list(map(str, done))
    results = json.loads((out / "detections.coco.json").read_text())
    assert {result["image_id"] for result in results} == {1, 2, 3, 4, 5}
    # As after a crash in the middle of a line.
    with (out / "detections.jsonl").open("a") as file:
        file.write('{"file": "in/')
    assert main(command) == 0
    assert "5 of 12 are done already" in capsys.readouterr().out
    assert sorted(record["file"] for record in lines(out)) == sorted(map(str, paths))
    assert {result["image_id"] for result in json.loads((out / "detections.coco.json").read_text())} == {*range(1, 13)}
    before = (out / "detections.jsonl").read_bytes()
    assert main(command) == 0  # nothing is left to do
    assert f"{paths[3]}: " in capsys.readouterr().out
    assert (out / "detections.jsonl").read_bytes() == before
    # A photograph that was changed is looked at again, and its newer line counts.
    Image.fromarray(small_detector.pixels(99, 60, 60)).save(paths[0])
    assert main(command) == 0
    assert "11 of 12 are done already" in capsys.readouterr().out and lines(out)[-1]["width"] == 60


def test_other_settings_are_other_results(model_folder, tmp_path, capsys):
    small_detector.write_images(tmp_path, 2)
    assert main(["detect", model_folder, str(tmp_path), *LOW]) == 0
    assert main(["detect", model_folder, str(tmp_path), "--min-score", "0.5"]) == 0
    assert "done already" not in capsys.readouterr().out
    records = lines(tmp_path)
    assert [record["min_score"] for record in records] == [0.05, 0.05, 0.5, 0.5]
    scores = [[found["score"] for found in record["detections"]] for record in records]
    assert scores[2:] == [[score for score in each if score >= 0.5] for each in scores[:2]]
    results = json.loads((tmp_path / "detections.coco.json").read_text())
    assert [result["score"] for result in results] == [*scores[2], *scores[3]]


def test_an_unreadable_image_is_named_and_left_out(model_folder, tmp_path, capsys):
    good = small_detector.write_images(tmp_path, 3)
    (tmp_path / "broken.jpg").write_text("not an image")
    assert main(["detect", model_folder, str(tmp_path), *LOW]) == 1
    said = capsys.readouterr().err
    assert f"{tmp_path / 'broken.jpg'} cannot be read as an image" in said and "1 of 4 could not be read" in said
    assert [record["file"] for record in lines(tmp_path)] == [str(path) for path in good]


def test_a_photograph_held_sideways_comes_out_upright(model_folder, tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(small_detector.pixels()).save(tmp_path / "a.jpg", exif=exif)
    assert main(["detect", model_folder, str(tmp_path / "a.jpg"), "--out", str(tmp_path / "out"), *LOW]) == 0
    assert Image.open(tmp_path / "out" / "a.detections.jpg").size == (48, 80)
    assert lines(tmp_path / "out")[0]["width"] == 48


def test_inputs_are_never_overwritten(model_folder, tmp_path):
    small_detector.write_images(tmp_path, 2)
    # Names that drawings would have, and a link in the place of one.
    (tmp_path / "image01.detections.jpg").symlink_to(tmp_path / "image00.jpg")
    kept = {path: hashlib.sha256(path.read_bytes()).digest() for path in tmp_path.glob("image??.jpg")}
    assert main(["detect", model_folder, str(tmp_path), "--out", str(tmp_path), *LOW]) == 0
    assert {path: hashlib.sha256(path.read_bytes()).digest() for path in kept} == kept


def test_for_programs(model_folder, tmp_path, capsys):
    paths = small_detector.write_images(tmp_path, 2)
    assert main(["detect", model_folder, *map(str, paths), "--json", *LOW]) == 0
    printed = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert printed == lines(tmp_path) and len(printed) == 2
    assert main(["detect", model_folder, *map(str, paths), "--json", *LOW]) == 0  # what was done before, too
    assert [json.loads(line) for line in capsys.readouterr().out.splitlines()] == printed
    assert main(["detect", model_folder, str(paths[0]), "--out", str(tmp_path / "q"), "--quiet", *LOW]) == 0
    captured = capsys.readouterr()
    assert (captured.out, captured.err) == ("", "")


def test_coco_s_own_file_names_give_their_ids(model_folder, tmp_path):
    for name in ("000000000139.jpg", "000000000285.jpg"):
        Image.fromarray(small_detector.pixels()).save(tmp_path / name)
    assert main(["detect", model_folder, str(tmp_path), *LOW]) == 0
    results = json.loads((tmp_path / "detections.coco.json").read_text())
    assert {result["image_id"] for result in results} == {139, 285}


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["nothing.jpg"], "There is no nothing.jpg"),
        ([".", "--min-score", "30"], "--min-score 30.0 is not between 0 and 1"),
        ([".", "--batch-size", "0"], "--batch-size 0"),
    ],
)
def test_wrong_use_is_one_sentence(model_folder, capsys, monkeypatch, tmp_path, arguments, sentence):
    monkeypatch.chdir(tmp_path)
    assert main(["detect", model_folder, *arguments]) == 2
    assert sentence in capsys.readouterr().err and not list(Path(tmp_path).iterdir())


@pytest.mark.parametrize("model", ["centernet_resnet50_v1", "empty"])
def test_a_model_that_is_not_there_leaves_nothing(model, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    small_detector.write_images(tmp_path / "in", 1)
    assert main(["detect", model, "in"]) == 2
    assert model in capsys.readouterr().err and [path.name for path in (tmp_path / "in").iterdir()] == ["image00.jpg"]


def test_a_file_of_another_make_is_left_alone(model_folder, tmp_path, capsys):
    small_detector.write_images(tmp_path, 1)
    (tmp_path / "detections.jsonl").write_text("somebody else's\n")
    assert main(["detect", model_folder, str(tmp_path), *LOW]) == 1
    assert "none of ours" in capsys.readouterr().err
    assert (tmp_path / "detections.jsonl").read_text() == "somebody else's\n"
