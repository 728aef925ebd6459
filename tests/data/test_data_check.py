"""Everything that `data check` looks for, each planted once; the sheet; exit codes."""

import json
import re

import pytest
from conftest import example, image_bytes
from PIL import Image

from tfod_zoo.cli import main
from tfod_zoo.config.label_map import LabelMap, LabelMapItem, read_label_map, write_label_map
from tfod_zoo.config.pipeline import write_pipeline
from tfod_zoo.data.check import ERROR, NOTE, WARNING, Part, check_data
from tfod_zoo.data.contact_sheet import _color
from tfod_zoo.data.record_writer import write_shards
from tfod_zoo.data.tf_example import ExampleObject, Keypoint, encode_example

BOX = (0.25, 0.25, 0.75, 0.75)


@pytest.fixture
def check(tmp_path, label_map_path):
    """records by part -> {what was found: count}, without the remarks on so few examples."""

    def run(parts, label_map=None, **options):
        classes = label_map or read_label_map(label_map_path)
        sources = [
            Part(name, (write_shards(records, tmp_path / "in", name, 1),), classes) for name, records in parts.items()
        ]
        report = check_data(sources, **options)
        found = {one.what: (one.severity, one.count) for one in report.findings if "examples in" not in one.what}
        return found, report

    return run


def both(name, encoded):
    """A good record, with an object of either class."""
    objects = [ExampleObject(BOX, "cat", 1, 1.0), ExampleObject((0.1, 0.1, 0.5, 0.5), "dog", 2, 1.0)]
    return encode_example(encoded, "jpeg", 24, 32, objects, source_id=name)


def test_good_data_are_good(check):
    found, report = check({"train": [both(f"g{n}", image_bytes(n)) for n in range(12)]})
    assert found == {} and report.ok and report.lines()[-1] == "nothing to report"
    assert report.parts["train"].boxes == {"cat": 12, "dog": 12}
    assert report.lines()[0] == "train: 12 images, 24 boxes, 0 images without, 32x24"


def test_what_training_would_leave_out(check):
    boxes = [BOX, (float("nan"), 0.1, 0.5, 0.5), (0.5, 0.5, 0.5, 0.9), (0.9, 0.1, 0.1, 0.5), (1.1, 0.1, 1.5, 0.5)]
    records = [
        both("good", image_bytes(1)),
        example("boxes", image_bytes(2), boxes),
        example("cow", image_bytes(3), text="cow"),
        example("number", image_bytes(4), text="", class_id=7),
        example("text", b"no image"),
        example("cut", image_bytes(size=(200, 200))[:700]),
        b"no tf.Example",
    ]
    found, report = check({"train": records})
    assert {what: value for what, value in found.items() if value[0] == ERROR} == {
        "boxes with a coordinate that is not a number": (ERROR, 1),
        "boxes without area": (ERROR, 1),
        "boxes whose minimum and maximum are swapped": (ERROR, 1),
        "boxes outside the image": (ERROR, 1),
        'objects of class "cow", which the label map does not have': (ERROR, 1),
        'objects of class "", which the label map does not have': (ERROR, 1),
        "images that cannot be decoded": (ERROR, 2),
        "records that are no tf.Example, or whose object lists differ in length": (ERROR, 1),
    }
    assert not report.ok and report.parts["train"].boxes == {"cat": 2, "dog": 1}
    assert found["images of train without a box, which are negatives"] == (NOTE, 2)
    cow = next(one for one in report.findings if "cow" in one.what)
    assert cow.images == [("train", 2, "cow")]


def test_what_was_probably_not_meant(check):
    same = image_bytes(9)
    thin = [(0.1, 0.1, 0.9, 0.11), (0.5, 0.2, 0.501, 0.2 + 0.001), BOX, BOX, (-0.5, 0.1, 0.5, 0.5)]
    records = [
        both("a", same), both("b", same), both("c", image_bytes(3)), both("c", image_bytes(4)),
        example("thin", image_bytes(5), thin),
        example("size", image_bytes(6, (48, 32))),  # stated as 24 high
    ]
    found, _ = check({"train": records, "val": [example("v", same), example("w", image_bytes(7))]})
    assert found == {
        "images that are in train more than once": (WARNING, 1),
        "images of val that are in train too: evaluation would flatter": (WARNING, 1),
        "images that share their source_id with another: evaluation mixes them up": (WARNING, 1),
        "boxes under 4 pixels high or wide at the model's input": (WARNING, 1),
        "boxes more than 10 times as long as they are wide": (NOTE, 1),
        "boxes that another of the same class covers exactly": (WARNING, 1),
        "boxes partly outside the image, which are clipped": (NOTE, 1),
        "images whose stated image/height and image/width are not theirs: boxes may be off": (WARNING, 1),
        'class "dog" has no example in val': (NOTE, 1),
    }


def test_classes_and_boxes_that_cannot_be_learned(check):
    found, _ = check({"train": [example("a")]})
    assert found == {'class "dog" has no example in train': (WARNING, 1)}
    found, report = check({"train": [example("a", boxes=())]})
    assert found == {"train has no box that can be used": (ERROR, 1)} and not report.ok


def test_keypoints(check):
    def posed(name, left, right):
        points = tuple(Keypoint(n, y, x, seen) for n, (y, x, seen) in (("left", left), ("right", right)))
        objects = [ExampleObject(BOX, "cat", 1, 1.0, keypoints=points)]
        return encode_example(image_bytes(ord(name)), "jpeg", 24, 32, objects, source_id=name)

    posed_cat = LabelMap((LabelMapItem(1, "cat", keypoints=((0, "left"), (1, "right"))),))
    records = [posed("a", (0.5, 0.5, 2), (0.0, 0.0, 0)), posed("b", (0.5, 1.5, 2), (0.0, 0.0, 0))]
    found, report = check({"train": records}, posed_cat)
    assert found == {
        "keypoints outside the image, which are taken as not labelled": (WARNING, 1),
        'keypoint "right" of "cat" is never labelled in train': (WARNING, 1),
    }
    assert report.parts["train"].keypoints == {("cat", "left"): 2, ("cat", "right"): 0}
    words = [line.split() for line in report.lines()]
    assert ["cat", "left", "100", "%"] in words and ["cat", "right", "0", "%"] in words


def test_boxes_are_measured_at_the_models_input(check, pipeline_of):
    pipeline = pipeline_of([example("a")])
    resizer = pipeline.model.center_net.image_resizer
    record = example("a", image_bytes(1), [(0.1, 0.1, 0.2, 0.2)])  # 3.2 pixels wide in 32, 51 in 512
    tiny = "boxes under 4 pixels high or wide at the model's input"
    assert tiny not in check({"train": [record]})[0]
    assert check({"train": [record]}, resizer=resizer)[0][tiny] == (WARNING, 1)
    resizer.fixed_shape_resizer.height = resizer.fixed_shape_resizer.width = 300
    assert tiny not in check({"train": [record]}, resizer=resizer)[0]


def voc(root, box="<xmin>1</xmin><ymin>2</ymin><xmax>9</xmax><ymax>8</ymax>"):
    root.mkdir()
    for number in range(9):
        (root / f"{number}.jpg").write_bytes(image_bytes(number))
        text = f"<annotation><object><name>dog</name><bndbox>{box}</bndbox></object></annotation>"
        (root / f"{number}.xml").write_text(text)


def test_a_folder_of_annotations(tmp_path, capsys):
    voc(tmp_path / "good")
    (tmp_path / "good/bad.jpg").write_bytes(b"no image")
    (tmp_path / "good/bad.xml").write_text((tmp_path / "good/0.xml").read_text())
    assert main.main(["data", "check", str(tmp_path / "good")]) == 1
    printed = capsys.readouterr().out
    assert "holds 10 images (Pascal VOC)" in printed and "checking 9 images" in printed
    assert re.search(r"error +1 +images that cannot be used +bad \(the image cannot be decoded", printed)
    (tmp_path / "good/bad.xml").unlink()
    assert main.main(["data", "check", str(tmp_path / "good")]) == 0
    assert sorted(path.suffix for path in (tmp_path / "good").iterdir()) == [".jpg"] * 10 + [".xml"] * 9


def test_config_json_and_sheet(pipeline_of, tmp_path, capsys):
    records = [both(f"g{n}", image_bytes(n)) for n in range(12)] + [example("cut", b"\xff\xd8\xff")]
    pipeline = pipeline_of(records)
    config, sheet = tmp_path / "pipeline.config", tmp_path / "out/sheet.png"
    write_pipeline(pipeline, config)
    assert main.main(["data", "check", str(config), "--json", "--sheet", str(sheet), "--images", "7"]) == 1
    report = json.loads(capsys.readouterr().out)
    assert report["ok"] is False and list(report["parts"]) == ["train", "eval"]
    assert report["parts"]["train"] == {
        "images": 13, "boxes": {"cat": 12, "dog": 12}, "images_without_boxes": 0, "sizes": {"32x24": 12},
        "keypoints": {},
    }
    assert report["findings"][0]["what"] == "images that cannot be decoded"
    assert report["findings"][0]["first"][0] == {"part": "train", "record": 12, "image": "cut"}
    with Image.open(sheet) as picture:
        assert picture.size == (6 * 320, 2 * 276)
        colours = {color for _, color in picture.convert("RGB").getcolors(1 << 20)}
    assert {_color(1), _color(2)} <= colours  # of the boxes
    assert any(red > 200 and green < 90 and blue < 90 for red, green, blue in colours)  # captions of what was found
    assert list(sheet.parent.iterdir()) == [sheet]


def test_records_by_flags_and_wrong_use(tmp_path, label_map_path, capsys):
    glob = write_shards([both(f"g{n}", image_bytes(n)) for n in range(12)], tmp_path / "in", "train", 1)
    assert main.main(["data", "check", "--records", glob, "--label-map", str(label_map_path)]) == 0
    assert "12 images, 24 boxes" in capsys.readouterr().out
    assert main.main(["data", "check"]) == 2
    assert main.main(["data", "check", "--records", str(tmp_path / "none*")]) == 1
    assert "No file matches" in capsys.readouterr().err
    assert main.main(["data", "check", "--records", glob, "--sheet", str(tmp_path / "sheet.nothing")]) == 1
    assert "cannot be written" in capsys.readouterr().err


def test_gaps_in_a_label_map_are_noted(tmp_path, check):
    path = tmp_path / "gaps.pbtxt"
    write_label_map(LabelMap((LabelMapItem(1, "cat"), LabelMapItem(3, "dog"))), path)
    found, _ = check({"train": [both("a", image_bytes())]}, read_label_map(path))
    assert found["ids that no class has (2...), outputs that nothing trains"] == (NOTE, 1)
