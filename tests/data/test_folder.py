"""What a folder holds is recognised, imported and divided, whatever made it."""

import json

import pytest
import tensorflow as tf
from conftest import example, image_bytes
from hypothesis import given
from hypothesis import strategies as st

from tfod_zoo.cli import main
from tfod_zoo.config.label_map import LabelMap, LabelMapItem, read_label_map, write_label_map
from tfod_zoo.data.errors import DataError
from tfod_zoo.data.folder import find_data
from tfod_zoo.data.record_writer import write_shards
from tfod_zoo.data.splits import split_of_name, train_and_val

CSV = "filename,width,height,class,xmin,ymin,xmax,ymax\n"


@pytest.fixture
def root(tmp_path):
    (tmp_path / "set").mkdir()
    return tmp_path / "set"


def put(root, name, content=None):
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(image_bytes()) if content is None else path.write_text(content)
    return path


def xml(name="dog"):
    box = "<xmin>1</xmin><ymin>2</ymin><xmax>9</xmax><ymax>8</ymax>"
    return f"<annotation><object><name>{name}</name><bndbox>{box}</bndbox></object></annotation>"


def voc(root, splits=("train", "val")):
    for split in splits:
        put(root, f"JPEGImages/{split}.jpg")
        put(root, f"Annotations/{split}.xml", xml())
        put(root, f"ImageSets/Main/{split}.txt", f"{split}\n")


def coco(names, first=1):
    return json.dumps({
        "images": [{"id": first + n, "file_name": name} for n, name in enumerate(names)],
        "annotations": [
            {"id": first + n, "image_id": first + n, "category_id": 5, "bbox": [1, 2, 8, 6]} for n in range(len(names))
        ],
        "categories": [{"id": 5, "name": "dog"}],
    })


def names_in(globs):
    files = [file for glob in globs for file in tf.io.gfile.glob(glob)]
    fields = [tf.train.Example.FromString(raw.numpy()).features.feature for raw in tf.data.TFRecordDataset(files)]
    return {item["image/source_id"].bytes_list.value[0].decode() for item in fields}


def test_voc_keeps_its_lists(root, tmp_path):
    voc(root, ("train", "val", "test"))
    put(root, "ImageSets/Main/trainval.txt", "train\nval\n")
    seen = []
    found = find_data(root)
    data = found.import_to(tmp_path / "out", seen.append)
    assert (found.kind, found.num_images, seen) == ("Pascal VOC", 3, [1, 2, 3])
    assert names_in(data.train_records) == {"train"} and names_in(data.eval_records) == {"val"}
    assert data.description == f"{root}/: Pascal VOC, 3 images, 1 classes (dog 3), train 1, val 1, test 1"
    assert read_label_map(data.label_map).id_of("dog") == 1 and data.num_keypoints == 0


def test_loose_xml_files_are_divided_by_their_folders(root, tmp_path):
    for split in ("train", "test"):
        for number in range(2):
            put(root, f"images/{split}/{number}.jpg")
            put(root, f"images/{split}/{number}.xml", xml())
    data = find_data(root).import_to(tmp_path / "out")
    assert names_in(data.train_records) == {"images/train/0", "images/train/1"}
    assert names_in(data.eval_records) == {"images/test/0", "images/test/1"}


def test_without_a_split_images_are_drawn_and_stay_drawn(root, tmp_path):
    for number in range(12):
        put(root, f"pictures/{number}.jpg")
        put(root, f"annotations/{number}.xml", xml("cat" if number else "dog"))
        put(root, f"images/{number}.jpg")
    first = find_data(root).import_to(tmp_path / "first")
    train, val = names_in(first.train_records), names_in(first.eval_records)
    assert train and val and not train & val and len(train | val) == 12
    assert any("by a hash of their names" in note for note in first.report.notes)
    for number in range(12, 24):
        put(root, f"images/{number}.jpg")
        put(root, f"annotations/{number}.xml", xml())
    more = find_data(root).import_to(tmp_path / "more")
    assert train <= names_in(more.train_records) and val <= names_in(more.eval_records)


def test_coco_with_and_without_a_split(root, tmp_path):
    for split, first in (("train", 1), ("val", 5)):
        put(root, f"{split}2017/a.jpg")
        put(root, f"{split}2017/b.jpg")
        put(root, f"annotations/instances_{split}2017.json", coco(["a.jpg", "b.jpg"], first))
        put(root, f"annotations/captions_{split}2017.json", coco(["a.jpg"]))
    data = find_data(root).import_to(tmp_path / "out")
    assert names_in(data.train_records) == {"1", "2"} and names_in(data.eval_records) == {"5", "6"}
    assert "COCO JSON, 4 images, 1 classes (dog 4), train 2, val 2" in data.description

    one = tmp_path / "one"
    for number in range(10):
        put(one, f"{number}.jpg")
    put(one, "_annotations.coco.json", coco([f"{number}.jpg" for number in range(10)]))
    seen = []
    data = find_data(one, val_share=0.5).import_to(tmp_path / "drawn", seen.append)
    train, val = names_in(data.train_records), names_in(data.eval_records)
    assert train and val and not train & val and len(train | val) == 10 and seen == list(range(1, 11))


def test_yolo_and_csv(root, tmp_path):
    for split in ("train", "valid"):
        put(root, f"{split}/images/a.jpg")
        put(root, f"{split}/labels/a.txt", "0 0.5 0.5 0.25 0.5\n")
        put(root, f"{split}/_annotations.csv", CSV + "a.jpg,32,24,cat,1,2,9,8\n")
    put(root, "data.yaml", "names: [dog]\n")
    found = find_data(root)
    assert (found.kind, found.other_kinds) == ("YOLO", ("CSV",))
    data = found.import_to(tmp_path / "yolo")
    assert names_in(data.train_records) == {"train/images/a.jpg"} and dict(data.report.boxes) == {"dog": 2}
    assert f"{root} also holds CSV; not used" in data.report.notes
    (root / "data.yaml").unlink()
    found = find_data(root)
    data = found.import_to(tmp_path / "csv")
    assert (found.kind, dict(data.report.boxes), data.report.skipped) == ("CSV", {"cat": 2}, [])


@pytest.mark.parametrize("names", ["data.yaml", "classes.txt", "labels/train/classes.txt"])
def test_yolo_in_a_folder_of_its_own(names, root, tmp_path):
    for number, split in enumerate(("train", "val")):
        put(root, f"inner/images/{split}/{number}.jpg")
        put(root, f"inner/labels/{split}/{number}.txt", "0 0.5 0.5 0.25 0.5\n")
    put(root, f"inner/{names}", "names: [dog]\n" if names == "data.yaml" else "dog\n")
    found = find_data(root)
    assert (found.kind, found.num_images, found.other_kinds) == ("YOLO", 2, ())


def test_records_stay_where_they_are_if_they_are_divided(root, tmp_path):
    write_label_map(LabelMap((LabelMapItem(1, "cat"), LabelMapItem(2, "/m/dog", "dog"))), root / "map.pbtxt")
    put(root, "pipeline.pbtxt", "model { }")
    write_shards([example(f"t{n}", text="/m/dog") for n in range(4)], root, "train", 2)
    write_shards([example("v")], root, "val", 1)
    data = find_data(root).import_to(tmp_path / "out")
    assert data.train_records == [str(root / "train-?????-of-00002.tfrecord")]
    assert data.label_map == root / "map.pbtxt" and not (tmp_path / "out").exists()
    assert data.description.endswith("TFRecord, 5 images, 2 classes (dog 4, cat 1), train 4, val 1")


def test_records_that_are_not_divided_are_divided(root, tmp_path):
    write_label_map(LabelMap((LabelMapItem(1, "cat"),)), root / "map.pbtxt")
    write_shards([example(f"t{n}") for n in range(9)], root, "everything", 2)
    data = find_data(root, val_share=0.4).import_to(tmp_path / "out")
    train, val = names_in(data.train_records), names_in(data.eval_records)
    assert train and val and not train & val and len(train | val) == 9 and dict(data.report.boxes) == {"cat": 9}


def test_what_cannot_be_used_is_said(root, tmp_path):
    put(root, "a.jpg")
    with pytest.raises(DataError, match="1 images and no annotations that are known"):
        find_data(root)
    with pytest.raises(DataError, match="is no folder"):
        find_data(root / "none")
    with pytest.raises(DataError, match="share between 0 and 1"):
        find_data(root, val_share=1.0)
    put(root, "a.xml", xml())
    with pytest.raises(DataError, match="1 images cannot be divided"):
        find_data(root)
    write_shards([example("t")], root, "train", 1)
    with pytest.raises(DataError, match=r"TFRecords and no label map"):
        find_data(root)
    (root / "broken").mkdir()
    put(root / "broken", "a.json", '{"images": [], "annotations": [')
    with pytest.raises(DataError, match="line 1, column"):
        find_data(root / "broken")


def test_the_import_is_not_found_again(root, tmp_path, capsys):
    voc(root)
    for _ in range(2):
        assert main.main(["data", "import", str(root), "--out", str(root / "records")]) == 0
        assert f"{root}/: Pascal VOC, 2 images, 1 classes (dog 2), train 1, val 1" in capsys.readouterr().out


def test_an_import_told_to_a_program(root, tmp_path, capsys):
    voc(root)
    put(root, "Annotations/lost.xml", xml())
    put(root, "ImageSets/Main/train.txt", "train\nlost\n")
    assert main.main(["data", "import", str(root), "--out", str(tmp_path / "out"), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["source"], told["images"], told["boxes"]) == ("Pascal VOC", {"train": 1, "val": 1}, {"dog": 2})
    assert told["images_skipped"] == {"lost": "no image of that name"}
    assert names_in(told["train_records"]) == {"train"} and names_in(told["eval_records"]) == {"val"}
    assert read_label_map(told["label_map"]).id_of("dog") == 1


@given(names=st.lists(st.text(), min_size=2, unique=True), share=st.floats(0.01, 0.99))
def test_both_sides_get_something_and_nothing_is_lost(names, share):
    train, val = train_and_val(names, str, share)
    assert train and val and sorted(train + val) == sorted(names)


def test_a_share_is_about_kept():
    _, val = train_and_val([f"image{n}.jpg" for n in range(2000)], str, 0.2)
    assert 320 < len(val) < 480


@pytest.mark.parametrize(
    ("name", "split"),
    [("instances_val2017", "val"), ("train_labels", "train"), ("Validation", "val"), ("cats", ""), ("contest", "")],
)
def test_splits_of_names(name, split):
    assert split_of_name(name) == split
