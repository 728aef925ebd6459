"""`tfod-zoo config`: what it prints and writes, what it refuses, and how fast."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tfod_zoo.cli.main import main
from tfod_zoo.config.pipeline import read_pipeline

OD = "centernet_mobilenetv2fpn_512x512_coco17_od"
PIPELINES = Path(__file__).parents[2] / "pipelines"


@pytest.fixture(autouse=True)
def store(tmp_path, monkeypatch):
    monkeypatch.setenv("TFOD_ZOO_STORE", str(tmp_path / "store"))
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def data(tmp_path):
    (tmp_path / "map.pbtxt").write_text("item { id: 1 name: 'RBC' }\nitem { id: 2 name: 'WBC' }\n")
    return ["--label-map", "map.pbtxt", "--train-records", "a-*", "--train-records", "b-*", "--eval-records", "c-*"]


def test_it_prints_the_pipeline_that_is_checked_in(capsys):
    assert main(["config", OD]) == 0
    printed = capsys.readouterr()
    assert printed.out == (PIPELINES / f"{OD}.config").read_text()
    assert "next: " in printed.err


def test_a_fine_tuning_pipeline_in_one_command(data, capsys):
    flags = ["--hardware", "gpu", "--batch-size", "4", "--steps", "50"]
    flags += ["--learning-rate", "0.001", "--image-size", "256"]
    assert main(["config", OD, *data, *flags, "--checkpoint", "none", "--out", "cells.config"]) == 0
    printed = capsys.readouterr().out
    assert "random weights" in printed and "RBC, WBC" in printed
    assert "next: tfod-zoo train --pipeline cells.config --model-dir runs/cells" in printed
    pipeline = read_pipeline(Path("cells.config"))
    assert (pipeline.train_config.batch_size, pipeline.train_config.num_steps) == (4, 50)
    assert list(pipeline.train_input_reader.tf_record_input_reader.input_path) == ["a-*", "b-*"]
    assert main(["config", "check", "cells.config"]) == 0


def test_the_zoos_checkpoint_is_to_be_downloaded_first(data, capsys):
    assert main(["config", OD, *data, "--checkpoint", "zoo", "--out", "cells.config"]) == 0
    assert f"next: tfod-zoo download {OD}, then tfod-zoo train" in capsys.readouterr().out
    train = read_pipeline(Path("cells.config")).train_config
    assert train.fine_tune_checkpoint.endswith("checkpoint/ckpt-301")
    assert train.fine_tune_checkpoint_type == "detection"


def test_fragments_and_overrides_come_last(capsys):
    Path("more.txt").write_text("train_config { batch_size: 5 num_steps: 7 }")
    assert main(["config", OD, "--merge", "more.txt", "--set", "train_config.batch_size=6", "--out", "p.config"]) == 0
    assert "next: fill in the paths that `tfod-zoo config check p.config` names" in capsys.readouterr().out
    train = read_pipeline(Path("p.config")).train_config
    assert (train.batch_size, train.num_steps) == (6, 7)


def test_a_users_file_is_not_overwritten(capsys):
    Path("mine.config").write_text("# mine")
    assert main(["config", OD, "--out", "mine.config"]) == 2
    assert "--force" in capsys.readouterr().err and Path("mine.config").read_text() == "# mine"
    assert main(["config", OD, "--out", "mine.config", "--force"]) == 0
    assert read_pipeline(Path("mine.config")).train_config.batch_size == 512


def test_check_names_what_is_wrong(capsys):
    assert main(["config", "check", str(PIPELINES / f"{OD}.config")]) == 1
    printed = capsys.readouterr()
    assert "train_input_reader.label_map_path is PATH_TO_BE_CONFIGURED" in printed.out and "next" not in printed.err
    assert main(["config", "check", str(PIPELINES / f"{OD}.config"), "--json"]) == 1
    told = json.loads(capsys.readouterr().out)
    assert not told["ok"] and any("PATH_TO_BE_CONFIGURED" in finding for finding in told["findings"])
    assert main(["config", OD, "--json"]) == 2


@pytest.mark.parametrize(
    "argv, code, sentence",
    [
        (["centernet_mobilenetv2fpn_512x512_coco17"], 2, OD),
        (["check"], 2, "needs the FILE"),
        (["check", "nowhere.config"], 1, "cannot be read"),
        ([OD, "stray"], 2, "stray"),
        ([OD, "--hardware", "abacus"], 2, "tpu-8"),
        ([OD, "--image-size", "100"], 2, "multiple of 32"),
        ([OD, "--set", "train_config.batch_sise=8"], 1, 'did you mean "batch_size"'),
        ([OD, "--merge", "nowhere.txt"], 2, "No such file"),
        ([OD, "--label-map", "map.pbtxt"], 2, "train_records"),
        ([OD, "--checkpoint-type", "fine_tune"], 2, 'use "detection"'),
    ],
)
def test_wrong_use_is_one_sentence(argv, code, sentence, capsys):
    assert main(["config", *argv]) == code
    printed = capsys.readouterr()
    assert sentence in printed.err and printed.err.count("\n") == 1 and printed.out == ""


def test_it_answers_at_once_and_without_tensorflow():
    program = (
        "import sys; from tfod_zoo.cli.main import main; code = main(sys.argv[1:]);"
        " assert not {'tensorflow', 'numpy'} & set(sys.modules); sys.exit(code)"
    )
    times = []
    for _ in range(3):
        before = os.times()
        subprocess.run([sys.executable, "-c", program, "config", OD], check=True, capture_output=True)
        after = os.times()  # a processor's time: other work on the machine is not the command's
        times.append(after.children_user + after.children_system - before.children_user - before.children_system)
    assert min(times) < 0.5
