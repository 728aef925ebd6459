"""Import of a small VOC folder with one of each trouble."""

import pytest
import tensorflow as tf
from conftest import image_bytes
from PIL import Image

from tfod_zoo.cli import data_command
from tfod_zoo.config.label_map import LabelMap, LabelMapItem, read_label_map, write_label_map
from tfod_zoo.data import record_writer
from tfod_zoo.data.boxed_images import write_annotations
from tfod_zoo.data.errors import DataError
from tfod_zoo.data.input_pipeline import build_dataset
from tfod_zoo.data.voc import read_voc


def annotate(root, name, *objects):
    boxes = "".join(
        f"<object><name>{text}</name><difficult>0</difficult><bndbox><xmin>{x0}</xmin><ymin>{y0}</ymin>"
        f"<xmax>{x1}</xmax><ymax>{y1}</ymax></bndbox></object>"
        for text, x0, y0, x1, y1 in objects
    )
    (root / "Annotations" / f"{name}.xml").write_text(f"<annotation>{boxes}</annotation>")


@pytest.fixture
def root(tmp_path):
    root = tmp_path / "voc"
    for folder in ("JPEGImages", "Annotations", "ImageSets/Main"):
        (root / folder).mkdir(parents=True)
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees
    images = {"a": image_bytes(), "turned": image_bytes(exif=exif), "bad": b"no image", "bare": image_bytes()}
    for name, data in images.items():
        (root / "JPEGImages" / f"{name}.jpg").write_bytes(data)
    annotate(root, "a", ("dog", 8, 6, 16, 12), ("cat", 5, 5, 5, 9), ("cat", 20, 10, 40, 30), ("cat", 90, 90, 99, 99))
    annotate(root, "turned", ("cat", 0, 0, 24, 32), ("cat", "x", 0, 24, 32))
    annotate(root, "bad", ("dog", 1, 1, 5, 5))
    (root / "ImageSets/Main/train.txt").write_text("a\nturned\nbad\nbare\ngone\n")
    (root / "ImageSets/Main/val.txt").write_text("a\n")
    return root


def test_import_and_report(root, tmp_path, pipeline_of):
    out = tmp_path / "out"
    seen = []
    report = write_annotations(read_voc(root, "train,val"), out, shards=2, on_progress=seen.append)
    assert seen == [1, 2, 3, 4, 5, 6]
    assert sorted(path.name for path in out.iterdir()) == [
        "label_map.pbtxt",
        *(f"{split}-0000{n}-of-00002.tfrecord" for split in ("train", "val") for n in range(2)),
    ]
    assert report.images == {"train": 2, "val": 1} and dict(report.boxes) == {"dog": 2, "cat": 8}
    assert report.dropped == {
        "without area": 2,
        "outside the image": 2,
        "with a coordinate that is not a number": 1,
    }
    assert report.clipped == 2 and report.rotated == ["turned.jpg"]
    assert [name for name, _ in report.skipped] == ["bad", "bare", "gone"]
    assert [item.name for item in read_label_map(report.label_map).items] == ["cat", "dog"]
    assert "2 boxes without area dropped (the first: a.xml)" in report.lines()

    pipeline = pipeline_of(report.records["train"], label_map=report.label_map)
    ((features, truth),) = build_dataset(pipeline, training=False, batch_size=4)
    assert features["source_id"].numpy().tolist() == [b"a", b"turned"]
    assert features["original_shape"].numpy().tolist() == [[24, 32], [32, 24]]
    assert truth["num_boxes"].numpy().tolist() == [2, 1]
    # x and y are divided by the size as they are (TFOD), then by the canvas of 32x32; areas are in pixels.
    assert truth["boxes"][0, 0].numpy().tolist() == [6 / 32, 8 / 32, 12 / 32, 16 / 32]
    assert truth["area"][0, :2].numpy().tolist() == [48, 12 * 14] and truth["classes"][0, 0] == 1


def test_a_given_label_map_rules(root, tmp_path):
    given = tmp_path / "given.pbtxt"
    write_label_map(LabelMap((LabelMapItem(1, "dog"),)), given)
    report = write_annotations(read_voc(root, "val"), tmp_path / "out", label_map=given)
    assert dict(report.boxes) == {"dog": 1}
    assert report.dropped == {"of class 'cat', which the label map does not have": 3}


def test_later_splits_keep_the_ids(root, tmp_path):
    write_annotations(read_voc(root, "val"), tmp_path / "out")
    annotate(root, "a", ("ant", 1, 1, 9, 9), ("dog", 1, 1, 9, 9))
    write_annotations(read_voc(root, "train"), tmp_path / "out")
    assert read_label_map(tmp_path / "out" / "label_map.pbtxt").id_of("dog") == 2


def test_wrong_folders_and_splits_are_named(root, tmp_path):
    with pytest.raises(DataError, match="not a Pascal VOC folder"):
        write_annotations(read_voc(tmp_path, "train"), tmp_path / "out")
    with pytest.raises(DataError, match="no split 'test'.* train, val"):
        write_annotations(read_voc(root, "test"), tmp_path / "out")


def test_a_full_disk_leaves_what_was_there(root, tmp_path, monkeypatch):
    out = tmp_path / "out"
    write_annotations(read_voc(root, "val"), out)
    before = {path.name: path.read_bytes() for path in out.iterdir()}

    class FullDisk(tf.io.TFRecordWriter):
        def write(self, record):
            raise tf.errors.ResourceExhaustedError(None, None, "No space left on device")

    monkeypatch.setattr(record_writer.tf.io, "TFRecordWriter", FullDisk)
    with pytest.raises(DataError, match="No space left on device"):
        write_annotations(read_voc(root, "val"), out)
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before


def test_fewer_shards_replace_more(root, tmp_path):
    write_annotations(read_voc(root, "val"), tmp_path / "out", shards=3)
    write_annotations(read_voc(root, "val"), tmp_path / "out", shards=1)
    assert [path.name for path in sorted((tmp_path / "out").glob("val*"))] == ["val-00000-of-00001.tfrecord"]


def test_command(root, tmp_path, capsys):
    import argparse

    parser = argparse.ArgumentParser()
    data_command.add_arguments(parser)
    args = parser.parse_args(["voc", "--root", str(root), "--split", "val", "--out", str(tmp_path / "out")])
    assert data_command.run(args) == 0
    printed = capsys.readouterr().out
    assert "1 images (val 1), 2 classes (cat 3, dog 1)" in printed and "next: tfod-zoo config" in printed


def test_lists_may_name_images_with_spaces(root):
    for name in ("my cell", "cell 1"):
        (root / "JPEGImages" / f"{name}.jpg").write_bytes(image_bytes())
        annotate(root, name, ("dog", 8, 6, 16, 12))
    (root / "ImageSets/Main/train.txt").write_text("my cell\ncell 1\n")
    assert [image.name for image in read_voc(root, "train").splits["train"]] == ["my cell", "cell 1"]
    # A class file: of the images, "bare" has no dog.
    (root / "ImageSets/Main/dog_train.txt").write_text("a  1\nmy cell -1\ncell 1  1\nbare -1\nturned  0\n")
    assert [image.name for image in read_voc(root, "dog_train").splits["dog_train"]] == ["a", "cell 1", "turned"]


def test_why_an_image_is_left_out_is_said_of_the_file(root, tmp_path):
    (root / "JPEGImages/a.jpg").write_bytes(b"")
    (root / "ImageSets/Main/train.txt").write_text("a\nbad\nturned\n")
    report = write_annotations(read_voc(root, "train"), tmp_path / "out")
    assert report.skipped == [
        ("a", "the image cannot be decoded: the file is empty"),
        ("bad", "the image cannot be decoded: not an image that Pillow knows"),
    ]
