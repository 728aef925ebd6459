"""The registry: invariants over every row, and the figures that the zoo published."""

import json

import pytest

from tfod_zoo.errors import UsageError
from tfod_zoo.zoo.registry import BASELINE, MODELS, UnknownModelError, get_model, list_models

# The zoo's own page: ms, box mAP, keypoint mAP.
PUBLISHED = {
    "centernet_hg104_512x512_coco17_tpu-8": (70, 41.9, None),
    "centernet_hg104_512x512_kpts_coco17_tpu-32": (76, 40.0, 61.4),
    "centernet_hg104_1024x1024_coco17_tpu-32": (197, 44.5, None),
    "centernet_hg104_1024x1024_kpts_coco17_tpu-32": (211, 42.8, 64.5),
    "centernet_resnet50_v1_fpn_512x512_coco17_tpu-8": (27, 31.2, None),
    "centernet_resnet50_v1_fpn_512x512_kpts_coco17_tpu-8": (30, 29.3, 50.7),
    "centernet_resnet101_v1_fpn_512x512_coco17_tpu-8": (34, 34.2, None),
    "centernet_resnet50_v2_512x512_coco17_tpu-8": (27, 29.5, None),
    "centernet_resnet50_v2_512x512_kpts_coco17_tpu-8": (30, 27.6, 48.2),
    "centernet_mobilenetv2fpn_512x512_coco17_od": (6, 23.4, None),
    "centernet_mobilenetv2fpn_512x512_coco17_kpts": (6, None, 41.7),
    "faster_rcnn_resnet50_v1_640x640_coco17_tpu-8": (53, 29.3, None),
    "faster_rcnn_resnet50_v1_1024x1024_coco17_tpu-8": (65, 31.0, None),
    "faster_rcnn_resnet50_v1_800x1333_coco17_gpu-8": (65, 31.6, None),
    "faster_rcnn_resnet50_v1_fpn_640x640_coco17_tpu-8": (None, None, None),
    BASELINE: (None, None, None),  # not the zoo's
}


def test_all_models_in_the_zoos_order():
    assert list_models() == list(PUBLISHED) == [model.name for model in MODELS]


@pytest.mark.parametrize("model", MODELS, ids=lambda model: model.name)
class TestEveryModel:
    def test_published_figures(self, model):
        assert (model.speed_ms, model.box_map, model.keypoint_map) == PUBLISHED[model.name]

    def test_family_is_the_names_first_word(self, model):
        words = {"center_net": "centernet_", "faster_rcnn": ("faster_rcnn_", BASELINE)}
        assert model.name.startswith(words[model.family])

    def test_input_size_and_hardware_are_the_names(self, model):
        assert "{}x{}".format(*model.input_size) in model.name or model.name == BASELINE
        tail = model.name.rpartition("_")[2]
        if "-" in tail:
            assert model.training_hardware == {"tpu-8": "TPU-8", "tpu-32": "TPU-32", "gpu-8": "8 GPUs"}[tail]

    def test_outputs_agree_with_name_and_figures(self, model):
        assert ("keypoints" in model.outputs) == ("kpts" in model.name) == (model.num_keypoints == 17)
        assert model.keypoint_map is None or "keypoints" in model.outputs
        assert model.box_map is None or "boxes" in model.outputs

    def test_archive_address(self, model):
        if model.date is None:
            assert model.archive_url is None and model.archive_urls == () and model.archive_bytes is None
            return
        tail = f"/models/object_detection/tf2/{model.date}/{model.name}.tar.gz"
        assert model.archive_urls == (
            f"https://storage.googleapis.com/download.tensorflow.org{tail}", f"http://download.tensorflow.org{tail}"
        )
        assert model.archive_url == model.archive_urls[0]

    def test_hints_name_facts_that_are_given(self, model):
        for hint in model.hints:
            assert getattr(model, hint) is not None

    def test_has_papers_and_licence_and_writes_as_json(self, model):
        assert model.papers and model.licence == "Apache-2.0"
        row = json.loads(json.dumps(model.as_dict()))
        assert row["archive_url"] == model.archive_url and row["input_size"] == list(model.input_size)

    def test_is_found_by_its_name(self, model):
        assert get_model(model.name) is model and list_models(model.name) == [model.name]


def test_mobilenet_archives_have_folders_of_their_own_name():
    od = get_model("centernet_mobilenetv2fpn_512x512_coco17_od")
    assert (od.archive_folder, od.checkpoint_prefix) == ("centernet_mobilenetv2_fpn_od", "checkpoint/ckpt-301")
    kpts = get_model("centernet_mobilenetv2fpn_512x512_coco17_kpts")
    assert (kpts.archive_folder, kpts.num_classes) == ("centernet_mobilenetv2_fpn_kpts", 1)
    assert od.max_detections == kpts.max_detections == 20


def test_folders_are_distinct():
    assert len({model.archive_folder for model in MODELS}) == len(MODELS)


@pytest.mark.parametrize(
    ("pattern", "count"), [("*", 16), ("centernet*", 11), ("*kpts*", 5), ("faster_rcnn_*", 4), ("no-such*", 0)]
)
def test_patterns(pattern, count):
    assert len(list_models(pattern)) == count


def test_misspelt_name_gives_the_nearest():
    with pytest.raises(UnknownModelError, match="did you mean centernet_mobilenetv2fpn_512x512_coco17_od") as caught:
        get_model("centernet_mobilenetv2_fpn_512x512_coco17_od")
    assert isinstance(caught.value, UsageError)
    with pytest.raises(UnknownModelError, match="tfod-zoo list"):
        get_model("yolo")
