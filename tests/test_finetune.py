"""One command from a folder of images to a measured detector."""

import argparse
import json
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from tfod_zoo.cli import finetune_command
from tfod_zoo.cli.main import main
from tfod_zoo.config.generate import generate_pipeline
from tfod_zoo.config.pipeline import read_pipeline
from tfod_zoo.data.errors import DataError
from tfod_zoo.data.folder import find_data
from tfod_zoo.errors import UsageError
from tfod_zoo.finetune import _batch, base_learning_rate, finetune, scale_learning_rate
from tfod_zoo.training.devices import make_strategy
from tfod_zoo.training.run import DoesNotFitError
from tfod_zoo.training.task import DetectionTask

NAME = "centernet_mobilenetv2fpn_512x512_coco17_od"
TINY = ("model.center_net.feature_extractor.type=hourglass_10",)

ANNOTATION = """<annotation><filename>{0}.jpg</filename>
<size><width>64</width><height>64</height><depth>3</depth></size>
<object><name>cell</name><bndbox><xmin>8</xmin><ymin>8</ymin><xmax>40</xmax><ymax>32</ymax></bndbox></object>
</annotation>
"""


@pytest.fixture(scope="module")
def photographs(tmp_path_factory):
    """A Pascal VOC folder of six images of a square."""
    folder = tmp_path_factory.mktemp("photographs")
    for name in ("Annotations", "JPEGImages", "ImageSets/Main"):
        (folder / name).mkdir(parents=True)
    (folder / "boxes.csv").write_text("filename,width,height,class,xmin,ymin,xmax,ymax\na.jpg,64,64,cell,8,8,40,32\n")
    lists = {"train": ["a", "b", "c", "d"], "val": ["e", "f"]}
    for split, names in lists.items():
        (folder / "ImageSets" / "Main" / f"{split}.txt").write_text("\n".join(names) + "\n")
        for name in names:
            pixels = np.full((64, 64, 3), 30, np.uint8)
            pixels[8:32, 8:40] = 200
            Image.fromarray(pixels).save(folder / "JPEGImages" / f"{name}.jpg")
            (folder / "Annotations" / f"{name}.xml").write_text(ANNOTATION.format(name))
    return folder


class FourDoNotFit(DetectionTask):
    """Stands in for a device whose memory holds two images."""

    def train_step(self, inputs, model, optimizer, metrics=None):
        if inputs[0]["image"].shape[0] > 2:
            raise tf.errors.ResourceExhaustedError(None, None, "out of memory")
        return super().train_step(inputs, model, optimizer, metrics)


@pytest.fixture(scope="module")
def run(photographs, tmp_path_factory):
    out, lines = tmp_path_factory.mktemp("runs") / "cells", []
    result = finetune(
        NAME, photographs, out, steps=2, batch_size=4, image_size=64, checkpoint="", overrides=TINY, say=lines.append,
        make_task=FourDoNotFit,
    )  # fmt: skip
    return out, result, lines


def test_it_trains_evaluates_and_says_what_it_chose(run, photographs):
    out, result, lines = run
    assert result.step == 2 and "DetectionBoxes_Precision/mAP" in result.metrics
    config = read_pipeline(out / "pipeline.config")
    assert config.model.center_net.num_classes == 1
    assert config.train_input_reader.label_map_path == str(out / "data" / "label_map.pbtxt")
    assert any("6 images" in line and "cell 6" in line for line in lines)
    assert f"  {photographs} also holds CSV; not used" in lines
    assert any("batch 4 on 1 CPU" in line and "the recipe: 512" in line for line in lines)


def test_a_batch_that_does_not_fit_is_halved_with_its_rate(run):
    out, _, lines = run
    config = read_pipeline(out / "pipeline.config").train_config
    assert config.batch_size == 2
    assert any("a batch of 4 did not fit" in line and "halved to 2" in line for line in lines)
    said = next(line for line in lines if line.startswith("batch 4"))
    rate = float(said.split("learning rate ")[1].split(" ")[0])
    assert base_learning_rate(config.optimizer) == pytest.approx(rate / 2, rel=1e-2)


def test_the_same_call_goes_on_and_another_is_refused(run, photographs):
    out, _, _ = run
    lines = []
    result = finetune(NAME, photographs, out, steps=3, say=lines.append)
    assert result.step == 3 and any(line.startswith("going on from") for line in lines)
    assert not any(line.startswith("batch") for line in lines)
    with pytest.raises(UsageError, match="holds the fine-tuning of"):
        finetune("centernet_hg104_512x512_coco17_tpu-8", photographs, out, steps=3)


def test_a_program_can_read_what_came_of_it(run, photographs, capsys):
    out, _, _ = run
    assert main(["finetune", NAME, "--data", str(photographs), "--out", str(out), "--steps", "4", "--json"]) == 0
    said = capsys.readouterr()
    result = json.loads(said.out)
    assert result["step"] == 4 and result["checkpoint"] == str(out / "ckpt-4") and result["model_dir"] == str(out)
    assert "DetectionBoxes_Precision/mAP" in result["metrics"]
    assert "going on from" in said.err


def test_one_image_that_does_not_fit_is_an_error(photographs, tmp_path):
    class NothingFits(DetectionTask):
        def train_step(self, *args, **kwargs):
            raise tf.errors.ResourceExhaustedError(None, None, "out of memory")

    with pytest.raises(DoesNotFitError, match="a batch of 1 does not fit into the memory of 1 CPU"):
        finetune(
            NAME, photographs, tmp_path, steps=1, batch_size=2, image_size=64, checkpoint="", overrides=TINY,
            make_task=NothingFits, say=lambda line: None,
        )  # fmt: skip


def test_every_rate_of_a_schedule_is_scaled():
    text = """train_config { optimizer { adam_optimizer { learning_rate { manual_step_learning_rate {
        initial_learning_rate: 1.0 schedule { step: 9 learning_rate: 0.5 } schedule { step: 12 learning_rate: 0.1 }
        } } } } }"""
    optimizer = read_pipeline(text).train_config.optimizer
    scale_learning_rate(optimizer, 0.5)
    manual = optimizer.adam_optimizer.learning_rate.manual_step_learning_rate
    rates = [manual.initial_learning_rate, *(each.learning_rate for each in manual.schedule)]
    assert rates == pytest.approx([0.5, 0.25, 0.05]) and [each.step for each in manual.schedule] == [9, 12]
    cosine = generate_pipeline(NAME).train_config.optimizer
    before = base_learning_rate(cosine)
    scale_learning_rate(cosine, 0.5)
    assert base_learning_rate(cosine) == pytest.approx(before / 2)


def test_the_batch_goes_by_the_device(photographs, tmp_path):
    records = find_data(photographs).import_to(tmp_path)
    assert _batch(NAME, records, make_strategy("cpu")) == 8


def test_a_folder_that_is_no_data_set_is_named(tmp_path):
    with pytest.raises(DataError, match="0 images and no annotations that are known"):
        finetune(NAME, tmp_path, tmp_path / "out", checkpoint="", say=lambda line: None)


def test_what_cannot_be_is_said_before_anything_that_takes_long(photographs, tmp_path):
    lines = []
    with pytest.raises(DataError, match="0 images"):  # checkpoint=None: no download for data that are none
        finetune(NAME, tmp_path, tmp_path / "out", say=lines.append)
    with pytest.raises(UsageError, match="image_size 100 does not fit"):
        finetune(NAME, photographs, tmp_path / "out", image_size=100, say=lines.append)
    assert lines == [] and not (tmp_path / "out").exists()


def test_help_and_wrong_use_need_no_tensorflow(tmp_path):
    code = (
        "import argparse, sys; from tfod_zoo.cli import finetune_command as command\n"
        "parser = argparse.ArgumentParser(); command.add_arguments(parser)\n"
        f"args = parser.parse_args(['{NAME}', '--data', '{tmp_path}/nothing'])\n"
        "try:\n    command.run(args)\nexcept Exception as error:\n    print(error)\n"
        "sys.exit('tensorflow' in sys.modules)"
    )
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert "is no folder" in shown
    parser = argparse.ArgumentParser()
    finetune_command.add_arguments(parser)
    assert parser.parse_args([NAME, "--data", "cells", "--precision", "bfloat16"]).precision == "bfloat16"

