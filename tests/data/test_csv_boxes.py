"""Import of CSV files with one box a line, in the orders that tools write, with one of each trouble."""

import pytest
from conftest import image_bytes

from tfod_zoo.cli import main
from tfod_zoo.config.label_map import read_label_map
from tfod_zoo.data.boxed_images import write_annotations
from tfod_zoo.data.csv_boxes import read_csv
from tfod_zoo.data.errors import DataError
from tfod_zoo.data.input_pipeline import build_dataset

HEADER = "filename,width,height,class,xmin,ymin,xmax,ymax"


@pytest.fixture
def images(tmp_path):
    folder = tmp_path / "images"
    (folder / "test").mkdir(parents=True)
    for name in ("a.jpg", "b.jpg", "test/c.jpg"):
        (folder / name).write_bytes(image_bytes())  # 24 high, 32 wide
    return folder


def written(tmp_path, *lines, name="train_labels.csv"):
    path = tmp_path / name
    path.write_text("\n".join(lines) + "\n", encoding="utf-8-sig")
    return path


def boxes(annotations, split="train"):
    return {
        image.name: [(box.class_name, *box.corners) for box in image.boxes] for image in annotations.splits[split]
    }


@pytest.mark.parametrize(
    "lines",
    [
        (HEADER, "a.jpg,32,24,dog,8,6,16,12", "b.jpg,32,24,cat,1,2,3,4"),
        ("a.jpg,32,24,dog,8,6,16,12", "b.jpg,32,24,cat,1,2,3,4"),
        ("xmax;ymax;Label;xmin;ymin;image", "16;12;dog;8;6;a.jpg", "3;4;cat;1;2;b.jpg"),
        ("C:\\old\\a.jpg,8,6,16,12,dog", "/home/somebody/b.jpg,1,2,3,4,cat"),
        ("a.jpg\tdog\t8\t6\t16\t12", "", "b.jpg\tcat\t1\t2\t3\t4"),
    ],
    ids=["header", "no header", "other order", "class last", "class second"],
)
def test_orders_of_columns(lines, images, tmp_path, pipeline_of):
    file = written(tmp_path, *lines)
    found = boxes(read_csv({"train": file}, images))
    assert list(found.values()) == [[("dog", 8, 6, 16, 12)], [("cat", 1, 2, 3, 4)]]
    report = write_annotations(read_csv({"train": file}, images), tmp_path / "out")
    ((features, truth),) = build_dataset(
        pipeline_of(report.records["train"], label_map=report.label_map), training=False, batch_size=4
    )
    assert truth["boxes"][0, 0].numpy().tolist() == [6 / 32, 8 / 32, 12 / 32, 16 / 32]  # of a canvas of 32x32
    assert truth["classes"][:, 0].numpy().tolist() == [1, 0]


def test_troubles_are_counted_with_file_and_line(images, tmp_path):
    file = written(
        tmp_path, HEADER,
        "a.jpg,32,24,dog,8,6,16,12", "a.jpg,32,24,dog,8,6,8,12", "a.jpg,32,24,cat,40,6,50,12",
        "a.jpg,32,24,cat,20,x,30,12", "a.jpg,32,24,,1,1,2,2", ",32,24,cat,1,1,2,2", "a.jpg,32,24,cat,20,10,40,30",
        "b.jpg", "gone.jpg,32,24,cat,1,1,2,2", "c.jpg,64,64,cat,1,1,2,2",
    )
    report = write_annotations(read_csv({"train": file}, images), tmp_path / "out")
    assert report.images == {"train": 2} and dict(report.boxes) == {"dog": 2, "cat": 3} and report.clipped == 1
    assert report.first_dropped == {
        "without area": "train_labels.csv, line 3",
        "outside the image": "train_labels.csv, line 4",
        "with a coordinate that is not a number": "train_labels.csv, line 5",
        "in lines without a class": "train_labels.csv, line 6",
        "in lines without a file name": "train_labels.csv, line 7",
    }
    assert report.skipped == [
        ("gone.jpg", "there is no such image"), ("c.jpg", "it is 32x24, the annotations are of 64x64")
    ]


def test_shares_of_the_sides_are_recognised(images, tmp_path):
    annotations = read_csv({"train": written(tmp_path, HEADER, "a.jpg,32,24,dog,0.25,0.25,0.5,1.0")}, images)
    assert annotations.splits["train"][0].boxes[0].fractions
    assert annotations.notes == [
        "train_labels.csv: coordinates are within 0 to 1, taken as shares of the image's sides"
    ]


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (("filename,class,xmin,ymin", "a.jpg,dog,1,2"), "line 1: the header has no column xmax, ymax"),
        (("one,two", "1,2"), "line 1: the columns are not known"),
        (("",), "is empty"),
        ((HEADER, "a.jpg"), "no line with a class and a box"),
    ],
)
def test_files_that_are_no_such_csv(lines, message, images, tmp_path):
    with pytest.raises(DataError, match=message):
        read_csv({"train": written(tmp_path, *lines)}, images)


def test_other_encodings_and_missing_files_are_named(images, tmp_path):
    file = tmp_path / "train.csv"
    file.write_bytes(b"\xff\xfe\x00a")
    with pytest.raises(DataError, match="not a text file in UTF-8"):
        read_csv({"train": file}, images)
    with pytest.raises(DataError, match="cannot be read"):
        read_csv({"train": tmp_path / "none.csv"}, images)
    with pytest.raises(DataError, match="is no folder"):
        read_csv({"train": file}, tmp_path / "nowhere")


def test_command_takes_the_splits_from_the_names(images, tmp_path, capsys):
    train = written(tmp_path, HEADER, "a.jpg,32,24,dog,8,6,16,12")
    test = written(tmp_path, HEADER, "c.jpg,32,24,cat,8,6,16,12", name="test_labels.csv")
    flags = ["--images", str(images), "--out", str(tmp_path / "out")]
    files = ["--annotations", str(train), "--annotations", str(test)]
    assert main.main(["data", "csv", *files, *flags]) == 0
    assert "2 images (train 1, test 1), 2 classes (dog 1, cat 1)" in capsys.readouterr().out
    assert [item.name for item in read_label_map(tmp_path / "out/label_map.pbtxt").items] == ["cat", "dog"]
    assert main.main(["data", "csv", *files, "--annotations", f"test={train}", *flags]) == 2
