"""Completion scripts are made of the commands as they are."""

import shutil
import subprocess

import pytest

from tfod_zoo.cli import main as cli

MOBILENET = "centernet_mobilenetv2fpn_512x512_coco17_od"


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_every_command_and_flag_is_in_it(shell, capsys, tmp_path):
    assert cli.main(["completion", shell]) == 0
    script = capsys.readouterr().out
    assert all(name in script for name in (*cli.COMMANDS, "min-score", "eval-every", MOBILENET))
    if shutil.which(shell):
        (tmp_path / "script").write_text(script)
        subprocess.run([shell, "-n", str(tmp_path / "script")], check=True)


@pytest.mark.skipif(not shutil.which("bash"), reason="no bash here")
@pytest.mark.parametrize(
    ("words", "wanted"),
    [
        (["tfod-zoo", "fine"], ["finetune"]),
        (["tfod-zoo", "show", "centernet_mobilenetv2fpn_512x512_coco17_o"], [MOBILENET]),
        (["tfod-zoo", "detect", "--min"], ["--min-score"]),
        (["tfod-zoo", "tpu", "la"], ["launch"]),
        (["tfod-zoo", "tpu", "check", "--topology", "v3-3"], ["v3-32"]),
    ],
)
def test_bash_completes(words, wanted, capsys, tmp_path):
    assert cli.main(["completion", "bash"]) == 0
    (tmp_path / "script").write_text(capsys.readouterr().out)
    assert [word.strip() for word in _completed(words, tmp_path / "script").split()] == wanted


@pytest.mark.skipif(not shutil.which("bash"), reason="no bash here")
@pytest.mark.parametrize(
    ("words", "wanted"),
    [
        (["tfod-zoo", "detect", MOBILENET, "str"], ["street.jpg"]),
        (["tfod-zoo", "detect", MOBILENET, "--out", "found", "my "], ["my photos"]),
        (["tfod-zoo", "detect", "ru"], ["runs"]),
        (["tfod-zoo", "finetune", MOBILENET, "--data", "my photos/"], ["my photos/cells"]),  # folders alone
        (["tfod-zoo", "train", "--pipeline", "cells"], ["cells.config"]),
        (["tfod-zoo", "eval", "--model-dir", "r"], ["runs"]),
        (["tfod-zoo", "benchmark", "r"], ["runs"]),
        (["tfod-zoo", "finetune", MOBILENET, "--steps", ""], []),
    ],
)
def test_bash_completes_files_and_folders(words, wanted, capsys, tmp_path, monkeypatch):
    for folder in ("runs", "my photos/cells"):
        (tmp_path / "here" / folder).mkdir(parents=True)
    for file in ("street.jpg", "cells.config", "my photos/a b.jpg"):
        (tmp_path / "here" / file).touch()
    assert cli.main(["completion", "bash"]) == 0
    (tmp_path / "script").write_text(capsys.readouterr().out)
    monkeypatch.chdir(tmp_path / "here")
    assert _completed(words, tmp_path / "script").splitlines() == wanted


def _completed(words, script):
    """A line for each completion of the last of the words."""
    line = " ".join(f"'{word}'" for word in words)
    check = (
        f"source {script}; COMP_WORDS=({line}); COMP_CWORD={len(words) - 1}; COMP_LINE=\"{' '.join(words)}\"; "
        'COMP_POINT=${#COMP_LINE}; _shtab_tfod_zoo; for one in "${COMPREPLY[@]}"; do echo "$one"; done'
    )
    return subprocess.run(["bash", "-c", check], capture_output=True, text=True).stdout


def test_another_shell_is_wrong_use(capsys):
    assert cli.main(["completion", "cmd"]) == 2
    assert "bash" in capsys.readouterr().err


class TestQuiet:
    def test_list_gives_names_alone(self, capsys):
        assert cli.main(["list", "centernet_mobilenetv2*", "--quiet"]) == 0
        assert capsys.readouterr().out.splitlines() == ["centernet_mobilenetv2fpn_512x512_coco17_od",
                                                        "centernet_mobilenetv2fpn_512x512_coco17_kpts"]  # fmt: skip

    def test_what_is_asked_for_is_printed(self, capsys):
        assert cli.main(["--quiet", "show", MOBILENET]) == 0
        assert "ckpt-301" in capsys.readouterr().out

    def test_what_only_tells_of_itself_is_not_but_errors_are(self, capsys, tmp_path):
        name = "faster_rcnn_resnet50_v1_fpn_640x640_coco17_tpu-8"
        assert cli.main(["download", "*_fpn_640*", "--quiet", "--store", str(tmp_path)]) == 0
        assert capsys.readouterr() == ("", "")
        assert cli.main(["download", name, "--quiet", "--store", str(tmp_path)]) == 2
        assert "No archive" in capsys.readouterr().err

    def test_progress_is_not_shown(self, capsys, monkeypatch):
        from tfod_zoo import progress
        from tfod_zoo.evaluation.progress import ImageProgress

        monkeypatch.setattr(progress, "_SECONDS_BETWEEN_LINES", -1.0)
        with progress.quiet_progress(), ImageProgress("eval", 3) as show:
            show(1)
        assert capsys.readouterr().err == ""
        with ImageProgress("eval", 3) as show:
            show(1)
        assert "1 of 3 images" in capsys.readouterr().err
