"""Detections as a small object, and what they are handed on as."""

import sys

import numpy as np
import pytest
from pycocotools.coco import COCO

import tfod_zoo
from tfod_zoo.errors import ZooError
from tfod_zoo.pictures.detections import Detections
from tfod_zoo.pictures.labels import Labels, labels_of

LABELS = Labels(
    {1: "person", 2: "ball"}, keypoints=("head", "foot"), keypoints_of={1: (0, 1), 2: ()}, edges=((0, 1),)
)
OUTPUTS = {
    "detection_boxes": np.float32([[[0.1, 0.2, 0.5, 0.6], [0, 0, 1, 1], [0, 0, 0, 0]]]),
    "detection_scores": np.float32([[0.6, 0.9, 0.0]]),
    "detection_classes": np.float32([[2, 1, 1]]),
    "detection_keypoints": np.float32([[[[0, 0], [0, 0]], [[0.25, 0.5], [0.75, 0.5]], [[0, 0], [0, 0]]]]),
    "detection_keypoint_scores": np.float32([[[0, 0], [0.8, 0.7], [0, 0]]]),
    "num_detections": np.float32([2]),
}


@pytest.fixture
def detections():
    return Detections.from_outputs(OUTPUTS, (100, 200), labels=LABELS, source="a.jpg")


def test_what_was_found_best_first(detections):
    assert len(detections) == 2 and detections.names == ["person", "ball"]
    np.testing.assert_allclose(detections.xyxy, [[0, 0, 200, 100], [40, 10, 120, 50]], rtol=1e-6)
    assert repr(detections) == "Detections(a.jpg 200x100: person 0.90, ball 0.60)"
    sure = detections.above(0.7)
    assert sure.names == ["person"] and sure.keypoints.shape == (1, 2, 2)
    assert detections.keypoints_of(0)[0] == pytest.approx((100, 25, 0.8)) and detections.keypoints_of(1) == {}


def test_coco_s_results_are_read_by_pycocotools(detections, capsys):
    results = detections.to_coco(image_id=7)
    assert [result["category_id"] for result in results] == [1, 2]
    assert results[1]["bbox"] == [40, 10, 80, 40] and "keypoints" not in results[1]
    assert results[0]["keypoints"] == pytest.approx([100, 25, 0.8, 100, 75, 0.7])
    truth = COCO()
    truth.dataset = {"images": [{"id": 7}], "categories": [{"id": 1}, {"id": 2}], "annotations": []}
    truth.createIndex()
    assert truth.loadRes(results).anns[2]["area"] == 3200


def test_a_table(detections):
    table = detections.to_pandas()
    assert list(table.columns[:7]) == ["class_id", "class", "score", "xmin", "ymin", "xmax", "ymax"]
    assert table["class"].tolist() == ["person", "ball"] and table.xmax.tolist() == pytest.approx([200, 120])
    assert table.head_x[0] == 100 and np.isnan(table.foot_score[1])


def test_a_table_without_pandas_is_one_sentence(detections, monkeypatch):
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(ZooError, match="pip install pandas"):
        detections.to_pandas()


def test_a_line_and_back(detections):
    again = Detections.from_dict({**detections.to_dict(), "file": "a.jpg"}, LABELS)
    assert again.to_dict() == detections.to_dict() and repr(again) == repr(detections)
    nothing = detections.above(1.0)
    assert nothing.to_coco() == [] and len(Detections.from_dict(nothing.to_dict(), LABELS)) == 0
    assert len(nothing.to_pandas()) == 0


@pytest.mark.parametrize(
    ("name", "id", "title"),
    [
        ("centernet_resnet50_v1_fpn_512x512_coco17_tpu-8", 90, "toothbrush"),
        ("faster_rcnn_resnet50_v1_640x640_coco17_tpu-8", 18, "dog"),
        ("centernet_mobilenetv2fpn_512x512_coco17_kpts", 1, "person"),
    ],
)
def test_the_zoo_s_models_have_coco_s_names(name, id, title):
    labels = labels_of(tfod_zoo.generate_pipeline(name))
    assert labels.name(id) == title and labels.name(12345) == "class 12345"
    if name.endswith("kpts"):
        assert labels.keypoints[0] == "nose" and (5, 7) in labels.edges and len(labels.edges) == 18


def test_a_label_map_beside_the_model_is_found_when_its_path_is_not(tmp_path):
    pipeline = tfod_zoo.generate_pipeline("centernet_mobilenetv2fpn_512x512_coco17_od")
    pipeline.model.center_net.num_classes = 1
    pipeline.eval_input_reader[0].label_map_path = "/somewhere/else/label_map.pbtxt"
    assert labels_of(pipeline, tmp_path).name(1) == "class 1"
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "label_map.pbtxt").write_text('item { id: 1 name: "cell" }')
    assert labels_of(pipeline, tmp_path).name(1) == "cell"
