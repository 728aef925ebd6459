"""What quantising costs in mAP: on pictures whose truth is what the model itself finds."""

import json

import pytest
import tf_keras
from PIL import Image

import tfod_zoo
from tfod_zoo.certification.certificate import generated_images
from tfod_zoo.cli.main import main
from tfod_zoo.data.coco_json import import_coco, read_coco
from tfod_zoo.errors import ZooError
from tfod_zoo.evaluation.pipeline_data import with_eval_data
from tfod_zoo.export import exported
from tfod_zoo.export.accuracy import MOST_POINTS, LabelledData, MapCost
from tfod_zoo.export.networks import in_tensorflow

BOXES = "centernet_mobilenetv2fpn_512x512_coco17_od"
OBJECTS = 5  # a picture


def model_of(seed):
    tf_keras.utils.set_random_seed(seed)
    model = tfod_zoo.build(tfod_zoo.generate_pipeline(BOXES, image_size=64))
    for variable in model.variables:
        if "gamma" not in variable.name and "kernel" in variable.name:
            variable.assign(variable * 1.5)
    # Random weights' scores lie so close together that rounding, another on each processor, would decide their order.
    scores = model.heads["object_center"][-1].layers[-1]
    scores.kernel.assign(scores.kernel * 300)
    sizes = model.heads["box/scale"][-1].layers[-1]
    sizes.bias.assign(sizes.bias + 4)  # cells, where random weights give boxes without area
    return model


@pytest.fixture(scope="module")
def model():
    return model_of(0)


@pytest.fixture(scope="module")
def data(model, tmp_path_factory):
    """A pipeline whose eval reader names records of a few pictures."""
    folder = tmp_path_factory.mktemp("data")
    images, objects = [], []
    for index, pixels in enumerate(generated_images()):
        Image.fromarray(pixels).save(folder / f"{index}.png")
        images.append({"id": index, "file_name": f"{index}.png"})
        height, width, _ = pixels.shape
        found = {key: value.numpy()[0] for key, value in model.detect(pixels[None]).items()}
        for box, label in zip(found["detection_boxes"][:OBJECTS], found["detection_classes"][:OBJECTS], strict=True):
            top, left, bottom, right = (box * [height, width, height, width]).tolist()
            sides = max(right - left, 1.0), max(bottom - top, 1.0)
            objects.append({"id": len(objects) + 1, "image_id": index, "category_id": int(label), "iscrowd": 0,
                            "bbox": [left, top, *sides], "area": sides[0] * sides[1]})
    categories = [{"id": number, "name": f"c{number}"} for number in range(1, 91)]
    truth = folder / "truth.json"
    truth.write_text(json.dumps({"images": images, "categories": categories, "annotations": objects}))
    report = import_coco(read_coco(truth), folder, folder / "records")
    return {"dataset": report.records["truth"], "label_map": str(report.label_map)}


def test_a_cost_is_the_model_s_map_less_the_export_s(model, data):
    labelled = LabelledData(model, with_eval_data(model.pipeline, **data))
    same = labelled.cost(model, in_tensorflow(model))
    assert same.images == 3 and data["dataset"] in same.dataset
    assert list(same.model) == ["DetectionBoxes_Precision/mAP"] and same.model["DetectionBoxes_Precision/mAP"] > 50
    assert abs(same.points) < 1e-6 and not same.beyond()
    other = labelled.cost(model, in_tensorflow(model_of(1)))
    assert other.model == same.model and other.points > 10 and "points of mAP" in other.beyond()


def test_the_largest_loss_counts():
    cost = MapCost("set", 3, {"boxes": 50.0, "keypoints": 60.0}, {"boxes": 50.5, "keypoints": 60.0 - MOST_POINTS})
    assert cost.points == pytest.approx(MOST_POINTS) and cost.beyond()
    assert "50.00 -> 50.50, 60.00 -> 59.00" in str(cost)


def test_labelled_data_judge_int8_and_nothing_else(model, data, tmp_path, monkeypatch):
    labelled = LabelledData(model, with_eval_data(model.pipeline, **data))
    images = generated_images()
    room = exported.formats.room("litert")
    convert = room.convert
    # int8 of another network: near enough in no respect, whatever the converter does.
    other = model_of(1)
    monkeypatch.setattr(room, "convert", lambda name, network, *rest: convert(name, other.networks[name], *rest))
    with pytest.raises(ZooError, match="points of mAP"):
        exported.export_networks(model, tmp_path, images, format="litert", precision="int8", labelled=labelled)
    monkeypatch.setattr(room, "convert", convert)
    folder = exported.export_networks(model, tmp_path, images, format="litert", precision="float16", labelled=labelled)
    assert "map" not in json.loads((folder / "export.json").read_text())


def test_the_command_measures_what_int8_costs(model, data, tmp_path, capsys):
    folder, out = tmp_path / "model", tmp_path / "out"
    folder.mkdir()
    tfod_zoo.write_pipeline(with_eval_data(model.pipeline, **data), folder / "pipeline.config")
    model.save_checkpoint(folder / "ckpt-1")
    code = main(["export", str(folder), "--out", str(out), "--format", "litert", "--precision", "dynamic",
                 "--dataset", "config", "--limit", "2"])  # fmt: skip
    said = capsys.readouterr()
    if code == 0:
        report = json.loads((out / "litert_dynamic" / "export.json").read_text())
        assert report["map"]["images"] == 2 and report["map"]["points"] < MOST_POINTS
        assert "on 2 images" in said.out
    else:  # random weights suffer more than trained ones
        assert "points of mAP" in said.err
