"""`tfod-zoo doctor` sees what is there, what is missing, and what is broken."""

import json
from importlib import metadata

import pytest

from tfod_zoo.cli.main import main
from tfod_zoo.doctor import machine, packages


@pytest.fixture
def quick(monkeypatch):
    """Without TensorFlow, whose own check takes seconds and has its own test."""
    monkeypatch.setattr(machine, "check_tensorflow", lambda: iter(()))


def test_tensorflow_starts_and_computes_here(capsys, tmp_path):
    assert main(["doctor", "--json", "--store", str(tmp_path)]) == 0
    report = json.loads(capsys.readouterr().out)
    found = {one["name"]: one for one in report["findings"]}
    assert report["ok"] and found["TensorFlow"]["state"] == "ok" and "cores" in found["devices"]["text"]


def test_a_page_for_people(quick, capsys, tmp_path):
    assert main(["doctor", "--store", str(tmp_path / "new")]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert any(line.startswith("ok       python") for line in lines)
    assert any(f"{tmp_path / 'new'} with 0 models" in line for line in lines)
    assert any(" GiB free" in line for line in lines) and lines[-1].startswith("next: ")


def test_every_extra_for_users_is_told(quick, capsys, tmp_path):
    main(["doctor", "--store", str(tmp_path)])
    said = capsys.readouterr().out
    extras = metadata.metadata("tfod-zoo").get_all("Provides-Extra")
    assert [extra for extra in extras if extra != "test" and f"[{extra}]" not in said] == []


def test_a_tensorflow_that_dies_is_broken(monkeypatch, capsys, tmp_path):
    for script, sentence in (
        ("import os, signal; os.kill(os.getpid(), signal.SIGILL)", "AVX"),
        ("import no_such_library", "No module named 'no_such_library'"),
    ):
        monkeypatch.setattr(machine, "_TRY_TENSORFLOW", script)
        assert main(["doctor", "--store", str(tmp_path)]) == 1
        assert sentence in capsys.readouterr().err


def test_packages_that_are_missing_or_old(quick, monkeypatch, capsys, tmp_path):
    needs = ["numpy>=1", "no-such-package>=2", "rich>=9999", 'not-there; extra == "video"', "x; python_version<'3'"]
    monkeypatch.setattr(packages.metadata, "requires", lambda name: needs if name == "tfod-zoo" else [])
    monkeypatch.setattr(packages.metadata, "metadata", lambda name: {"Requires-Python": ">=3.10"})
    assert main(["doctor", "--store", str(tmp_path)]) == 1
    captured = capsys.readouterr()
    assert "no-such-package: not installed; pip install 'no-such-package>=2' (1 more above)" in captured.err
    states = {line.split()[1]: line.split()[0] for line in captured.out.splitlines()}
    assert (states["numpy"], states["rich"], states["[video]"]) == ("ok", "broken", "missing") and "x" not in states
    assert "pip install 'tfod-zoo[video]'" in captured.out


def test_run_from_a_folder(quick, monkeypatch, capsys, tmp_path):
    def nothing(name):
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(packages.metadata, "metadata", nothing)
    assert main(["doctor", "--store", str(tmp_path)]) == 0
    assert "pip install -e" in capsys.readouterr().out


def test_a_store_that_cannot_be_written(quick, capsys, tmp_path):
    (tmp_path / "file").write_text("")
    assert main(["doctor", "--store", str(tmp_path / "file" / "store")]) == 1
    assert "TFOD_ZOO_STORE" in capsys.readouterr().err


@pytest.mark.parametrize(("variables", "colored"), [({}, False), ({"FORCE_COLOR": "1"}, True),
                                                    ({"FORCE_COLOR": "1", "NO_COLOR": "1"}, False)])  # fmt: skip
def test_colours_only_on_a_terminal_that_wants_them(quick, monkeypatch, capsys, tmp_path, variables, colored):
    for name in ("FORCE_COLOR", "NO_COLOR", "TTY_COMPATIBLE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm-256color")
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert main(["doctor", "--store", str(tmp_path)]) == 0
    assert ("\x1b[3" in capsys.readouterr().out) == colored

