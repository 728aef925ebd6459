"""The command line's frame: names, flags, exit codes, and how fast it answers."""

import json
import os
import statistics
import subprocess
import sys
import warnings
from types import SimpleNamespace

import pytest

from tfod_zoo.cli import main as cli
from tfod_zoo.errors import UsageError, ZooError
from tfod_zoo.zoo.registry import list_models

FAST_SECONDS = 0.5
MOBILENET = "centernet_mobilenetv2fpn_512x512_coco17_od"


def run(*arguments):
    return subprocess.run([sys.executable, "-m", "tfod_zoo.cli.main", *arguments], capture_output=True, text=True)


@pytest.mark.parametrize(
    "arguments", [["--help"], ["list"], ["show", MOBILENET], ["config", "--help"]], ids=lambda words: " ".join(words)
)
def test_answers_under_half_a_second(arguments):
    seconds = []
    for _ in range(5):
        before = os.times()
        assert run(*arguments).returncode == 0
        after = os.times()  # a processor's time: other work on the machine is not the command's
        seconds.append(after.children_user + after.children_system - before.children_user - before.children_system)
    assert statistics.median(seconds) < FAST_SECONDS, seconds


@pytest.mark.parametrize("statement", ["import tfod_zoo", "import tfod_zoo; tfod_zoo.list_models(); tfod_zoo.download"])
def test_import_does_not_bring_tensorflow(statement):
    check = f"import sys; {statement}; print({{'tensorflow', 'requests', 'rich'}} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


@pytest.mark.parametrize("name", cli.COMMANDS)
def test_every_commands_help_has_an_example_and_no_tensorflow(name):
    check = f"import sys; from tfod_zoo.cli.main import main\ntry: main([{name!r}, '--help'])\nexcept SystemExit: pass"
    check += "\nassert 'tensorflow' not in sys.modules"
    done = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, check=True)
    assert f"example:\n  tfod-zoo {name}" in done.stdout


def test_overview_has_every_command(capsys):
    for arguments in ([], ["--help"], ["-h"]):
        assert cli.main(arguments) == 0
        text = capsys.readouterr().out
        assert all(f"\n  {name} " in text for name in cli.COMMANDS)


def test_version(capsys):
    assert cli.main(["--version"]) == 0
    assert capsys.readouterr().out.startswith("tfod-zoo 0.")


def test_a_path_where_a_model_should_be(capsys, tmp_path):
    photograph = tmp_path / "street.jpg"
    photograph.touch()
    assert cli.main(["detect", str(photograph), MOBILENET]) == 2
    assert capsys.readouterr().err.startswith(f"tfod-zoo: {photograph} is a file, not a model; the model comes first")
    assert cli.main(["detect", "runs/nothing", str(photograph)]) == 2
    assert capsys.readouterr().err.startswith("tfod-zoo: There is no runs/nothing; give a folder that is there")


def test_pillows_warning_of_large_pictures_is_not_shown(recwarn):
    assert cli.main(["--version"]) == 0
    warnings.warn("Image size (108000000 pixels) exceeds limit of 89478485 pixels", UserWarning, stacklevel=1)
    assert not recwarn.list


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["lst"], "There is no command 'lst'; did you mean list?"),
        (["frobnicate"], "There is no command 'frobnicate'; `tfod-zoo --help` lists them."),
        (["--frobnicate", "list"], "Unrecognized arguments: --frobnicate"),
        (["list", "--jsn"], "tfod-zoo list does not take '--jsn'; did you mean --json?"),
        (["list", "a", "b"], "tfod-zoo list does not take 'b'; see `tfod-zoo list --help`."),
        (["show"], "The following arguments are required: NAME; see `tfod-zoo show --help`."),
        (["show", "centernet_resnet50"], "The zoo has no model 'centernet_resnet50'"),
    ],
)
def test_wrong_use_is_one_sentence_and_2(capsys, arguments, sentence):
    assert cli.main(arguments) == 2
    captured = capsys.readouterr()
    assert captured.out == "" and captured.err.startswith(f"tfod-zoo: {sentence}") and captured.err.count("\n") == 1


@pytest.mark.parametrize(
    ("error", "code", "text"),
    [
        (ZooError("The disk is full."), 1, "tfod-zoo: The disk is full.\n"),
        (UsageError("No such name."), 2, "tfod-zoo: No such name.\n"),
        (KeyboardInterrupt(), 130, "\ntfod-zoo: interrupted.\n"),
        (ValueError("odd"), 1, "tfod-zoo: ValueError: odd (not expected; --debug shows the trace)\n"),
    ],
    ids=["failure", "wrong use", "interrupt", "defect"],
)
def test_errors_become_one_sentence_and_a_code(capsys, monkeypatch, error, code, text):
    def fail(args):
        raise error

    command = SimpleNamespace(HELP="fails", EXAMPLE="tfod-zoo list", add_arguments=lambda parser: None, run=fail)
    monkeypatch.setattr(cli, "_module", lambda name: command)
    assert cli.main(["list"]) == code
    assert capsys.readouterr().err == text
    for arguments in (["--debug", "list"], ["list", "--debug"]):
        with pytest.raises(type(error)):
            cli.main(arguments)


def test_reader_that_stops_reading():
    done = subprocess.run(
        f"'{sys.executable}' -m tfod_zoo.cli.main list --json | head -c 1", shell=True, capture_output=True, text=True
    )
    assert (done.stdout, done.stderr) == ("[", "")


class TestList:
    def test_table(self, capsys, tmp_path):
        assert cli.main(["list", "centernet_*", "--store", str(tmp_path)]) == 0
        lines = capsys.readouterr().out.splitlines()
        row = next(line for line in lines if line.startswith(MOBILENET)).split()
        assert row == [MOBILENET, "512x512", "~44", "MB", "boxes", "6", "23.4", "-", "no"]
        assert sum(line.startswith("centernet_") for line in lines) == 11
        assert cli.main(["list", "faster_rcnn_*", "--store", str(tmp_path)]) == 0
        rows = [line for line in capsys.readouterr().out.splitlines() if line.startswith("faster_rcnn_")]
        assert len(rows) == 4
        assert lines[-1] == "next: tfod-zoo show centernet_hg104_512x512_coco17_tpu-8"

    def test_json_is_the_registry(self, capsys, tmp_path):
        assert cli.main(["list", "--json", "--store", str(tmp_path)]) == 0
        rows = json.loads(capsys.readouterr().out)
        assert [row["name"] for row in rows] == list_models() and not any(row["downloaded"] for row in rows)

    def test_pattern_without_match(self, capsys):
        assert cli.main(["list", "mobilenet"]) == 2
        assert "`tfod-zoo list '*mobilenet*'`" in capsys.readouterr().err
        assert cli.main(["list", "centernet_resnet50_v1_fpn_512x512"]) == 2
        assert "centernet_resnet50_v1_fpn_512x512" in capsys.readouterr().err


class TestShow:
    def test_page(self, capsys, tmp_path):
        assert cli.main(["show", MOBILENET, "--store", str(tmp_path)]) == 0
        text = capsys.readouterr().out
        for fact in ("20210210", "centernet_mobilenetv2_fpn_od", "ckpt-301", "box mAP 23.4", "arXiv:1904.07850"):
            assert fact in text
        assert text.endswith(f"next: tfod-zoo download {MOBILENET}\n")

    def test_model_without_archive(self, capsys):
        name = "faster_rcnn_resnet50_v1_fpn_640x640_coco17_tpu-8"
        assert cli.main(["show", name]) == 0
        text = capsys.readouterr().out
        assert "none was ever published" in text and text.endswith(f"tfod-zoo config {name}\n")

    def test_json(self, capsys, tmp_path):
        assert cli.main(["show", MOBILENET, "--json", "--store", str(tmp_path)]) == 0
        row = json.loads(capsys.readouterr().out)
        assert row["checkpoint_prefix"] == "checkpoint/ckpt-301"
        assert row["folder"] == os.path.join(tmp_path, "centernet_mobilenetv2_fpn_od")


class TestDownload:
    def test_misspelt_name_stops_before_any_transfer(self, capsys, tmp_path):
        assert cli.main(["download", MOBILENET, "centernet_mobilenet", "--store", str(tmp_path)]) == 2
        assert list(tmp_path.iterdir()) == [] and capsys.readouterr().out == ""

    def test_model_without_archive_by_name_and_by_pattern(self, capsys, tmp_path):
        name = "faster_rcnn_resnet50_v1_fpn_640x640_coco17_tpu-8"
        assert cli.main(["download", name, "--store", str(tmp_path)]) == 2
        assert "No archive" in capsys.readouterr().err
        assert cli.main(["download", "*_fpn_640*", "--store", str(tmp_path)]) == 0
        assert f"{name}: no archive was ever published, left out" in capsys.readouterr().out

    def test_what_is_there_is_not_fetched(self, capsys, tmp_path):
        folder = tmp_path / "centernet_mobilenetv2_fpn_od"
        (folder / "checkpoint").mkdir(parents=True)
        for name in ("pipeline.config", "checkpoint/ckpt-301.index", "checkpoint/ckpt-301.data-00000-of-00001"):
            (folder / name).write_text("")
        assert cli.main(["download", MOBILENET, "--store", str(tmp_path)]) == 0
        lines = capsys.readouterr().out.splitlines()
        assert lines == [f"{MOBILENET}: there already, {folder}", f"next: tfod-zoo benchmark {MOBILENET}"]
        assert cli.main(["download", MOBILENET, "*_fpn_640*", "--json", "--store", str(tmp_path)]) == 0
        assert json.loads(capsys.readouterr().out) == {MOBILENET: str(folder)}
