"""Import of YOLO text folders, as exported by the usual tools, with one of each trouble."""

import pytest
from conftest import image_bytes

from tfod_zoo.cli import main
from tfod_zoo.config.label_map import read_label_map
from tfod_zoo.data.boxed_images import write_annotations
from tfod_zoo.data.errors import DataError
from tfod_zoo.data.input_pipeline import build_dataset
from tfod_zoo.data.yolo import read_yolo


def put(root, image, label=None):
    """An image and its label file, `labels` taking the place of `images`."""
    path = root / image
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(image_bytes())  # 24 high, 32 wide
    if label is not None:
        text = root / image.replace("images", "labels").replace(".jpg", ".txt")
        text.parent.mkdir(parents=True, exist_ok=True)
        text.write_text(label)


@pytest.fixture
def root(tmp_path):
    return tmp_path / "yolo"


def test_import_and_report(root, tmp_path, pipeline_of):
    put(root, "images/train/a.jpg", "1 0.5 0.5 0.25 0.5\n\n0 0.9 0.5 0.4 0.5\n")
    put(root, "images/train/empty.jpg", "")
    put(root, "images/train/none.jpg")
    put(root, "images/val/b.jpg", "0 0.5 0.5 0 0.5\n0 0.5 0.5\n7 0.5 0.5 0.1 0.1\n0 0.5 x 0.1 0.1\n0 0.5 0.5 0.1 0.1\n")
    (root / "data.yaml").write_text(
        "path: /content/datasets/yolo\ntrain: images/train\nval: images/val\nnames:\n  0: dog\n  1: cat\n"
    )
    report = write_annotations(read_yolo(root), tmp_path / "out")
    assert report.images == {"train": 3, "val": 1} and report.clipped == 1 and report.skipped == []
    assert dict(report.boxes) == {"cat": 1, "dog": 4}
    assert report.first_dropped == {
        "without area": "labels/val/b.txt, line 1",
        "in lines of 3 values, where YOLO has 5": "labels/val/b.txt, line 2",
        "of class 7, which data.yaml does not name": "labels/val/b.txt, line 3",
        "with a coordinate that is not a number": "labels/val/b.txt, line 4",
    }
    assert report.notes == ["1 images without a label file taken as images without objects"]
    assert [item.name for item in read_label_map(report.label_map).items] == ["dog", "cat"]  # YOLO's order
    pipeline = pipeline_of(report.records["train"], label_map=report.label_map)
    ((features, truth),) = build_dataset(pipeline, training=False, batch_size=4)
    assert features["source_id"].numpy().tolist() == [f"images/train/{n}.jpg".encode() for n in ("a", "empty", "none")]
    assert truth["num_boxes"].numpy().tolist() == [2, 0, 0] and truth["classes"][0, :2].numpy().tolist() == [1, 0]
    assert truth["boxes"][0, 0].numpy().tolist() == [6 / 32, 12 / 32, 18 / 32, 20 / 32]


@pytest.mark.parametrize(
    ("images", "yaml", "splits"),
    [
        (("train/images/a.jpg", "valid/images/b.jpg"), "train: ../train/images\nval: ../valid/images\n", "train val"),
        (("train/images/a.jpg", "valid/images/b.jpg"), "", "train val"),
        (("images/a.jpg", "images/b.jpg"), "train: images\n", "train"),
        (("images/a.jpg", "images/b.jpg"), "train: one.txt\nval: two.txt\n", "train val"),
        (("images/a.jpg", "images/b.jpg"), "", ""),
        (("a.jpg", "b.jpg"), "", ""),
    ],
    ids=["export with ..", "folders", "one split", "lists", "flat", "labels beside the images"],
)
def test_layouts(images, yaml, splits, root):
    for image in images:
        put(root, image, "0 0.5 0.5 0.25 0.5")
    for name, image in zip(("one", "two"), images, strict=True):
        (root / f"{name}.txt").write_text(f"./{image}\n")
    (root / "data.yaml").write_text(f"{yaml}nc: 1\nnames: [dog]\n")
    annotations = read_yolo(root)
    assert sorted(annotations.splits) == (splits.split() or [""])
    assert annotations.num_images == 2 and annotations.notes == []
    assert all(len(image.boxes) == 1 for images in annotations.splits.values() for image in images)


def test_polygons_become_boxes_and_keypoints_are_left_out(root):
    put(root, "images/a.jpg", "0 0.1 0.2 0.5 0.2 0.3 0.6\n")
    (root / "classes.txt").write_text("dog\n")
    annotations = read_yolo(root)
    assert annotations.splits[""][0].boxes[0].corners == (0.1, 0.2, 0.5, 0.6)
    assert annotations.notes == ["1 polygons taken as the boxes around them"]
    (root / "classes.txt").unlink()
    (root / "data.yaml").write_text("names: [dog]\nkpt_shape: [2, 3]\n")
    (root / "labels/a.txt").write_text("0 0.5 0.5 0.2 0.2 0.1 0.1 2 0 0 0\n")
    annotations = read_yolo(root)
    assert annotations.splits[""][0].boxes[0].corners == pytest.approx((0.4, 0.4, 0.6, 0.6))
    assert annotations.notes == ["1 objects with keypoints, which are left out"]


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("data.yaml", "names: {0: dog, 2: cat}", r"must number the classes 0 to 1; it has \[0, 2\]"),
        ("data.yaml", "names: 5", "must list the class names"),
        ("classes.txt", "dog\ncat\ndog\n", '"dog" twice'),
        ("readme.txt", "", "neither a data.yaml with `names` nor a classes.txt"),
    ],
)
def test_class_names_that_cannot_be(name, text, message, root):
    put(root, "images/a.jpg", "0 0.5 0.5 0.25 0.5")
    (root / name).write_text(text)
    with pytest.raises(DataError, match=message):
        read_yolo(root)


def test_without_images_or_labels(root):
    root.mkdir()
    (root / "classes.txt").write_text("dog\n")
    with pytest.raises(DataError, match="has no images"):
        read_yolo(root)
    put(root, "images/a.jpg")
    with pytest.raises(DataError, match="has no label file .* for any of 1 images"):
        read_yolo(root)


def test_command(root, tmp_path, capsys):
    put(root, "images/a.jpg", "0 0.5 0.5 0.25 0.5")
    (root / "classes.txt").write_text("dog\n")
    assert main.main(["data", "yolo", "--root", str(root), "--out", str(tmp_path / "out")]) == 0
    assert "YOLO, 1 images (train 1), 1 classes (dog 1)" in capsys.readouterr().out
