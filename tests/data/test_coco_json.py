"""Import of small COCO files with one of each trouble, read back by the input pipeline."""

import argparse
import copy
import json
import math

import pytest
import tensorflow as tf
from conftest import image_bytes
from PIL import Image

from tfod_zoo.cli import data_command
from tfod_zoo.config.label_map import COCO_LABEL_MAP, read_label_map
from tfod_zoo.data import record_writer
from tfod_zoo.data.coco_json import import_coco, read_coco
from tfod_zoo.data.errors import DataError
from tfod_zoo.data.input_pipeline import build_dataset

CATEGORIES = [
    {"id": 1, "name": "person", "keypoints": ["nose", "left_eye", "right_eye"], "skeleton": [[1, 2]]},
    {"id": 2, "name": "ball"},
]
# 24 high, 32 wide.
IMAGES = [
    {"id": 42, "file_name": "a.jpg", "height": 24, "width": 32},
    {"id": 7, "file_name": "sub/b.jpg", "height": 24, "width": 32},
    {"id": 8, "file_name": "empty.jpg"},
]
POSE = [10, 6, 2, 12, 9, 1, 0, 0, 0]


def annotation(id_, image, category, bbox, **more):
    polygon = [[0, 0, 1, 0, 1, 1]]
    return {"id": id_, "image_id": image, "category_id": category, "bbox": bbox, "iscrowd": 0, "segmentation": polygon,
            **more}


OBJECTS = [
    annotation(1, 42, 1, [8, 6, 8, 6], area=31.5, keypoints=POSE, num_keypoints=2),
    annotation(2, 42, 2, [20, 10, 20, 30], area=100.0),  # beyond the right and lower border
    annotation(3, 7, 1, [0, 0, 16, 12], area=50.0, iscrowd=1, keypoints=[0] * 9, num_keypoints=0),
]


@pytest.fixture
def images(tmp_path):
    folder = tmp_path / "images"
    (folder / "sub").mkdir(parents=True)
    for name in ("a.jpg", "sub/b.jpg", "empty.jpg"):
        (folder / name).write_bytes(image_bytes())
    return folder


@pytest.fixture
def write(tmp_path):
    def to_file(name="instances_val.json", images=IMAGES, annotations=OBJECTS, categories=CATEGORIES):
        path = tmp_path / name
        path.write_text(json.dumps({"info": {}, "images": images, "annotations": annotations,
                                    "categories": categories}))
        return path

    return to_file


def features(pattern):
    """The records' raw fields, by source id."""
    found = {}
    for raw in tf.data.TFRecordDataset(tf.io.gfile.glob(pattern)):
        example = tf.train.Example.FromString(raw.numpy()).features.feature
        values = {key: list(getattr(item, item.WhichOneof("kind") or "int64_list").value)
                  for key, item in example.items()}
        found[values["image/source_id"][0].decode()] = values
    return found


def test_what_is_written_is_what_the_input_pipeline_reads(write, images, tmp_path, pipeline_of):
    seen = []
    report = import_coco(read_coco(write()), images, tmp_path / "out", shards=2, on_progress=seen.append)
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "label_map.pbtxt", "val-00000-of-00002.tfrecord", "val-00001-of-00002.tfrecord",
    ]
    assert seen == [1, 2, 3]
    assert report.images == {"val": 3} and dict(report.boxes) == {"person": 2, "ball": 1}
    assert (report.clipped, report.keypoints, report.skipped, dict(report.dropped)) == (1, 2, [], {})
    assert "COCO JSON, 3 images (val 3), 2 classes (person 2, ball 1)" in report.lines()

    pipeline = pipeline_of(report.records["val"], label_map=report.label_map)
    pipeline.eval_input_reader[0].num_keypoints = 3
    ((features_, truth),) = build_dataset(pipeline, training=False, batch_size=4)
    rows = {name.decode(): row for row, name in enumerate(features_["source_id"].numpy())}
    assert set(rows) == {"42", "7", "8"}
    a, b, empty = (rows[name] for name in ("42", "7", "8"))
    assert [int(truth["num_boxes"][row]) for row in (a, b, empty)] == [2, 1, 0]
    # 24x32 pixels fill a canvas of 32x32 but for the lower 8 rows.
    assert truth["boxes"][a, 0].numpy().tolist() == [6 / 32, 8 / 32, 12 / 32, 16 / 32]
    assert truth["boxes"][a, 1].numpy().tolist() == [10 / 32, 20 / 32, 24 / 32, 32 / 32]
    assert truth["area"][a, :2].numpy().tolist() == [31.5, 100.0], "the annotations' own"
    assert truth["is_crowd"][:, 0].numpy()[[a, b]].tolist() == [False, True]
    assert truth["classes"][a, :2].numpy().tolist() == [0, 1]
    nose, eye, unlabelled = truth["keypoints"][a, 0].numpy().tolist()
    assert nose == [6 / 32, 10 / 32] and eye == [9 / 32, 12 / 32] and all(map(math.isnan, unlabelled))
    assert tf.reduce_all(tf.math.is_nan(truth["keypoints"][a, 1]))
    assert tf.reduce_all(tf.math.is_nan(truth["keypoints"][b]))


def test_tfods_own_fields_are_written(write, images, tmp_path):
    report = import_coco(read_coco(write()), images, tmp_path / "out", split="train")
    record = features(report.records["train"])["42"]
    assert record["image/object/keypoint/visibility"] == [2, 1, 0, 0, 0, 0]
    assert record["image/object/keypoint/num"] == [2, 0]
    assert record["image/object/keypoint/text"] == [b"nose", b"left_eye", b"right_eye"] * 2
    assert record["image/object/class/text"] == [b"person", b"ball"]
    assert record["image/filename"] == [b"a.jpg"] and record["image/height"] == [24]
    assert features(report.records["train"])["7"]["image/filename"] == [b"sub/b.jpg"]


def test_every_trouble_is_counted(write, images, tmp_path):
    (images / "broken.jpg").write_bytes(image_bytes()[:300])
    bad_images = [
        {"id": 9, "file_name": "gone.jpg"}, {"id": 10, "file_name": "broken.jpg"},
        {"id": 11, "file_name": "a.jpg", "height": 48, "width": 64}, {"id": 42, "file_name": "again.jpg"},
        {"id": 12, "file_name": "../secret.jpg"}, {"id": 13}, {"file_name": "no_id.jpg"}, "no entry",
    ]
    bad_objects = [
        annotation(20, 42, 1, [5, 5, 0, 4]), annotation(21, 42, 1, [90, 90, 9, 9]),
        annotation(22, 42, 1, [1, 2, 3]), annotation(23, 42, 1, None), annotation(24, 42, 1, ["1", 2, 3, 4]),
        annotation(25, 42, 1, [float("nan"), 2, 3, 4]), annotation(26, 42, 99, [1, 2, 3, 4]),
        annotation(27, 555, 1, [1, 2, 3, 4]), "no annotation",
        annotation(28, 42, 1, [1, 2, 3, 4], keypoints=[1, 2, 2]),
        annotation(29, 42, 1, [1, 2, 3, 4], keypoints=[1, 2, 3] * 3),
        annotation(30, 42, 2, [1, 2, 3, 4], keypoints=[1, 2, 2]), annotation(31, 42, 1, [1, 2, 3, 10**400]),
    ]
    path = write(images=IMAGES + bad_images, annotations=OBJECTS + bad_objects)
    report = import_coco(read_coco(path), images, tmp_path / "out")
    assert report.images == {"val": 3}
    assert dict(report.dropped) == {
        "without area": 1, "outside the image": 1, "with a bbox that is not four numbers": 4,
        "with a coordinate that is not a number": 1, "of category 99, which the file does not list": 1,
        "of an image that the file does not list": 2,
    }
    assert sum(report.keypoints_dropped.values()) == 3
    assert "2 keypoint lists of person that are not x, y and visibility of its 3 keypoints left out, their boxes stay" \
        in report.lines()
    skipped = dict(report.skipped)
    assert skipped["gone.jpg"] == "there is no such file" and "cannot be decoded" in skipped["broken.jpg"]
    assert skipped["a.jpg"] == "it is 32x24, the annotations are of 64x48"
    assert "another image's" in skipped["again.jpg"] and "leads out" in skipped["../secret.jpg"]
    assert skipped["images[8]"] == skipped["images[10]"] == "it has no file_name"
    assert skipped["no_id.jpg"] == "it has no id"
    record = features(report.records["val"])["42"]
    assert len(record["image/object/class/label"]) == 5, "boxes stay where only their keypoints are wrong"
    assert sum(record["image/object/keypoint/visibility"]) == 3


def test_cocos_own_ids_keep_their_gaps(write, images, tmp_path):
    categories = [{"id": 1, "name": "person", "keypoints": ["nose", "left_eye", "right_eye"]},
                  {"id": 90, "name": "toothbrush"}, {"id": 13, "name": "stop sign"}]
    objects = [*OBJECTS[:1], annotation(5, 42, 90, [1, 1, 9, 9])]
    report = import_coco(read_coco(write(annotations=objects, categories=categories)), images, tmp_path / "out")
    written, cocos = read_label_map(report.label_map), read_label_map(COCO_LABEL_MAP)
    assert [item.id for item in written.items] == [1, 13, 90]
    assert [(item.name, item.display_name) for item in written.items] == [
        (item.name, item.display_name) for item in cocos.items if item.id in (1, 13, 90)
    ], "the names that the published configs use"
    assert written.items[0].keypoints == ((0, "nose"), (1, "left_eye"), (2, "right_eye"))
    assert features(report.records["val"])["42"]["image/object/class/label"] == [1, 90]
    assert report.notes == ["1 classes have no object in this split: stop sign"]


def test_other_ids_are_renumbered_and_that_is_said(write, images, tmp_path):
    categories = [{"id": 9, "name": "crane", "keypoints": ["hook"]}, {"id": 0, "name": "truck"},
                  {"id": 4, "name": "digger", "keypoints": ["arm", "hook"]}]
    objects = [annotation(1, 42, 9, [1, 1, 9, 9], keypoints=[3, 4, 2]), annotation(2, 42, 0, [1, 1, 9, 9]),
               annotation(3, 42, 4, [1, 1, 9, 9], keypoints=[5, 6, 1, 0, 0, 0])]
    report = import_coco(read_coco(write(annotations=objects, categories=categories)), images, tmp_path / "out")
    assert report.notes == ["category ids renumbered 1 to 3: truck 0 -> 1, digger 4 -> 2, crane 9 -> 3"]
    written = read_label_map(report.label_map, allow_gaps=False)
    assert [(item.name, item.keypoints) for item in written.items] == [
        ("truck", ()), ("digger", ((0, "arm"), (1, "hook"))), ("crane", ((2, "hook"),)),
    ]
    record = features(report.records["val"])["42"]
    assert record["image/object/class/label"] == [3, 1, 2]
    assert record["image/object/keypoint/visibility"] == [0, 0, 2, 0, 0, 0, 1, 0, 0], "each class has places of its own"


def test_keypoints_of_a_second_file_are_added_by_object(write, images, tmp_path):
    instances = copy.deepcopy(OBJECTS)
    for item in instances:
        item.pop("keypoints", None)
    plain = [{"id": category["id"], "name": category["name"]} for category in CATEGORIES]
    stranger = annotation(77, 42, 1, [1, 1, 2, 2], keypoints=POSE)
    first = write("instances_val.json", annotations=instances, categories=plain)
    second = write("person_keypoints_val.json", annotations=[OBJECTS[0], stranger], categories=CATEGORIES[:1])
    report = import_coco(read_coco(first, second), images, tmp_path / "both")
    alone = import_coco(read_coco(write("alone_val.json")), images, tmp_path / "alone")
    assert features(report.records["val"]) == features(alone.records["alone_val"])
    assert report.keypoints_dropped == {"without an object of that id in instances_val.json": 1}
    other = write("other.json", categories=[CATEGORIES[0] | {"name": "human"}])
    with pytest.raises(DataError, match='"human", id 1'):
        read_coco(first, other)


def test_later_splits_keep_the_ids(write, images, tmp_path):
    out = tmp_path / "out"
    import_coco(read_coco(write()), images, out, split="train")
    categories = [{"id": 1, "name": "ball"}, {"id": 2, "name": "bat"}]
    objects = [annotation(1, 42, 1, [1, 1, 9, 9]), annotation(2, 42, 2, [1, 1, 9, 9])]
    report = import_coco(read_coco(write(annotations=objects, categories=categories)), images, out, split="val")
    assert features(report.records["val"])["42"]["image/object/class/label"] == [2]
    assert report.dropped == {"of class 'bat', which the label map does not have": 1}
    with pytest.raises(DataError, match='other keypoints for "person"'):
        import_coco(read_coco(write(categories=[{"id": 1, "name": "person"}])), images, out)


def test_turned_pictures_follow_the_size_that_the_annotations_name(write, images, tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees
    (images / "a.jpg").write_bytes(image_bytes(exif=exif))
    for name, (height, width), turned in (("flat", (24, 32), []), ("upright", (32, 24), ["a.jpg"])):
        entries = [{"id": 42, "file_name": "a.jpg", "height": height, "width": width}]
        path = write(f"{name}.json", images=entries, annotations=OBJECTS[:1])
        report = import_coco(read_coco(path), images, tmp_path / name)
        assert report.rotated == turned
        record = features(report.records[name])["42"]
        pixels = tf.io.decode_image(record["image/encoded"][0])
        assert pixels.shape[:2] == (height, width) and record["image/object/bbox/ymin"] == [pytest.approx(6 / height)]


@pytest.mark.parametrize(
    "text, sentence",
    [
        ('{"images": [\n  {"id": 1,, "file_name": "a"}]}', r"line 2, column \d+: this is not JSON"),
        ('{"images": [', "line 1.*not JSON"),
        ("[]", "no list named images"),
        ('{"images": [], "annotations": {}, "categories": []}', "no list named annotations"),
        ('{"images": [], "annotations": [], "categories": []}', "lists no categories"),
        ('{"images": [], "annotations": [], "categories": [{"id": "1", "name": "x"}]}', r"categories\[0\]"),
        ('{"images": [], "annotations": [], "categories": [{"id": 1, "name": "x", "keypoints": "nose"}]}',
         "keypoints must be a list of names"),
        ('{"images": [], "annotations": [], "categories": [{"id": 1, "name": "x"}, {"id": 1, "name": "y"}]}',
         r'categories\[1\] \("y", id 1\) repeats'),
        ('{"images": [], "annotations": [], "categories": [{"id": 1, "name": "x"}]}', "lists no images"),
    ],
)
def test_files_that_are_no_annotations_get_a_sentence(tmp_path, text, sentence):
    path = tmp_path / "instances.json"
    path.write_text(text)
    with pytest.raises(DataError, match=sentence) as error:
        read_coco(path)
    assert str(path) in str(error.value) and "\n" not in str(error.value)


def test_wrong_use_gets_a_sentence(write, images, tmp_path):
    with pytest.raises(DataError, match="cannot be read"):
        read_coco(tmp_path / "none.json")
    (tmp_path / "picture.json").write_bytes(image_bytes())
    with pytest.raises(DataError, match="not a JSON file"):
        read_coco(tmp_path / "picture.json")
    coco = read_coco(write())
    for wrong, sentence in (
        ({"split": "a/b"}, "cannot name a split"), ({"shards": 0}, "0 shards"),
        ({"images": tmp_path / "nowhere"}, "is no folder"),
        ({"images": tmp_path}, "No image of split val can be used.*a.jpg: there is no such file"),
    ):
        with pytest.raises(DataError, match=sentence):
            import_coco(coco, **{"images": images, "out": tmp_path / "out"} | wrong)
        assert not list((tmp_path / "out").glob("*")), "nothing half-written"


def test_a_full_disk_leaves_what_was_there(write, images, tmp_path, monkeypatch):
    coco, out = read_coco(write()), tmp_path / "out"
    import_coco(coco, images, out)
    before = {path.name: path.read_bytes() for path in out.iterdir()}

    class FullDisk(tf.io.TFRecordWriter):
        def write(self, record):
            raise tf.errors.ResourceExhaustedError(None, None, "No space left on device")

    monkeypatch.setattr(record_writer.tf.io, "TFRecordWriter", FullDisk)
    with pytest.raises(DataError, match="No space left on device"):
        import_coco(coco, images, out)
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before


def test_segmentations_are_not_kept(write):
    assert not any("segmentation" in item for items in read_coco(write()).objects.values() for item in items)


def test_command(write, images, tmp_path, capsys):
    parser = argparse.ArgumentParser()
    data_command.add_arguments(parser)
    args = parser.parse_args(["coco", "--annotations", str(write()), "--images", str(images), "--out",
                              str(tmp_path / "out"), "--split", "night"])
    assert data_command.run(args) == 0
    printed = capsys.readouterr().out
    assert "3 images (night 3)" in printed and "2 labelled keypoints" in printed and "next: tfod-zoo config" in printed
