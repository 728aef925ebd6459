"""The documentation does what it says: its pages are followed from top to bottom as a reader would, in a fresh folder
with what the page says one needs; every command line in it and in the README is one that `tfod-zoo` takes; every link
leads somewhere."""

from __future__ import annotations

import argparse
import contextlib
import importlib
import json
import os
import select
import signal
import subprocess
import sys
import sysconfig
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from markdown_page import Page, read_page, zoo_commands
from readers_folder import bring

from tfod_zoo.cli import main as cli

ROOT = Path(__file__).resolve().parents[2]
PAGES = {str(path.relative_to(ROOT)): read_page(path) for path in sorted((ROOT / "docs").glob("*.md"))}
TEXTS = {"README.md": read_page(ROOT / "README.md"), **PAGES}
SLOW = {"docs/benchmarking.md", "docs/fine-tuning.md"}  # pages that take more than a minute on two cores
RUN = ("sh", "python")
SHOWN = ("text", "json", "proto")  # languages of blocks that are for reading
LIMIT = 1800  # seconds a block; one that hangs ends the run, however slow the machine
OUTPUT_SHOWN = 6000  # characters of what a failing block printed

# Runs the blocks of a page that arrive as lines of JSON, all with the same names, and answers each with an exit code.
_PYTHON = """
import json, os, sys, traceback
answers, names = os.fdopen(int(sys.argv[1]), "w"), {"__name__": "__main__"}
for line in sys.stdin:
    code = 0
    try:
        exec(compile(json.loads(line), "<page>", "exec"), names)
    except BaseException:
        traceback.print_exc()
        code = 1
    sys.stdout.flush()
    sys.stderr.flush()
    print(code, file=answers, flush=True)
"""


class Reader:
    """Pastes blocks into one shell's folder and one Python, and keeps what they print."""

    def __init__(self, folder: Path, environment: dict[str, str]) -> None:
        self.folder, self.environment = folder, environment
        self.output = folder.with_name("output.txt")
        self.python: subprocess.Popen | None = None

    def paste(self, language: str, text: str) -> int | str:
        """Its exit code, or what else ended it."""
        self.output.write_text("")
        return self._shell(text) if language == "sh" else self._in_python(text)

    def printed(self) -> str:
        return self.output.read_text(errors="replace")[-OUTPUT_SHOWN:]

    def leave(self) -> None:
        if self.python:
            self.python.stdin.close()
            _end(self.python)

    def _start(self, command: list[str], **options) -> subprocess.Popen:
        return subprocess.Popen(
            command, cwd=self.folder, env=self.environment, stdout=self.output.open("ab"), stderr=subprocess.STDOUT,
            start_new_session=True, **options,
        )  # fmt: skip

    def _shell(self, text: str) -> int | str:
        shell = self._start(["bash", "-exuo", "pipefail", "-c", text], stdin=subprocess.DEVNULL)
        try:
            return shell.wait(LIMIT)
        except subprocess.TimeoutExpired:
            return f"stopped after {LIMIT} s"
        finally:
            _end(shell)

    def _in_python(self, text: str) -> int | str:
        if self.python is None:
            answers, theirs = os.pipe()
            self.python = self._start(
                [sys.executable, "-c", _PYTHON, str(theirs)], stdin=subprocess.PIPE, text=True, pass_fds=[theirs]
            )
            os.close(theirs)
            self.answers = os.fdopen(answers)
        self.python.stdin.write(json.dumps(text) + "\n")
        self.python.stdin.flush()
        if not select.select([self.answers], [], [], LIMIT)[0]:
            return f"stopped after {LIMIT} s"
        answer = self.answers.readline()
        return int(answer) if answer else f"Python ended with {self.python.wait()}"


def _end(process: subprocess.Popen) -> None:
    """The process and whatever it left running."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


@pytest.fixture
def reader(tmp_path) -> Iterator[Reader]:
    folder = tmp_path / "folder"
    folder.mkdir()
    scripts = [os.path.dirname(sys.executable), sysconfig.get_path("scripts")]
    python_path = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    reader = Reader(
        folder,
        {
            **os.environ,
            "PATH": os.pathsep.join([*scripts, os.environ["PATH"]]),
            "PYTHONPATH": os.pathsep.join(python_path),
            "TFOD_ZOO_OFFLINE": "1",
            "TFOD_ZOO_STORE": str(tmp_path / "store"),
            "TFDS_DATA_DIR": str(tmp_path / "tensorflow_datasets"),
            "TF_CPP_MIN_LOG_LEVEL": "3",
        },
    )
    yield reader
    reader.leave()


def _followed() -> list:
    pages = [name for name, page in PAGES.items() if any(_runs(block) for block in page.blocks)]
    return [pytest.param(name, marks=pytest.mark.slow if name in SLOW else ()) for name in pages]


def _runs(block) -> bool:
    return block.language in RUN and block.not_run is None


@pytest.mark.parametrize("name", _followed())
def test_the_page_can_be_followed(name, reader):
    page = PAGES[name]
    for need in page.needs or ():
        bring(need, reader.folder)
    for block in filter(_runs, page.blocks):
        begun = time.monotonic()
        code = reader.paste(block.language, block.text)
        print(f"{name}:{block.line}: {time.monotonic() - begun:.1f} s")
        if code != 0:
            said = f"{name}:{block.line}: exit code {code}\n{block.text}\n--- printed ---\n{reader.printed()}"
            pytest.fail(said, pytrace=False)


@pytest.mark.parametrize("name", PAGES)
def test_a_page_is_followed_or_says_why_not(name):
    page = PAGES[name]
    for block in page.blocks:
        where = f"{name}:{block.line}"
        assert block.language in (*RUN, *SHOWN), f"{where}: {block.language!r} is neither run nor only shown"
        assert block.not_run is None or len(block.not_run.split()) >= 3, f"{where}: not run without a reason"
        assert block.language in RUN or not zoo_commands(_shell_only(block)), f"{where}: commands stand in `sh` blocks"
    says = page.needs is not None or not any(map(_runs, page.blocks))
    assert says, f"{name} does not say what a reader brings: You need ..."


def _shell_only(block) -> str:
    return "\n".join(line for line in block.text.splitlines() if line.startswith("tfod-zoo "))


@pytest.mark.parametrize(
    ("script", "commands"),
    [
        ("tfod-zoo list 'centernet_*'  # all of them", [["list", "centernet_*"]]),
        ("tfod-zoo eval \\\n    --model-dir runs/cells && .venv/bin/tfod-zoo doctor >here.txt",
         [["eval", "--model-dir", "runs/cells"], ["doctor"]]),
        ("TPU_NAME=local tfod-zoo train | tee log", [["train"]]),
        ("cat > a.txt <<'END'\ntfod-zoo in the file\nEND\ntfod-zoo store path", [["store", "path"]]),
        ("if tfod-zoo doctor; then echo tfod-zoo is well; fi", [["doctor"]]),
        ("pip install 'tfod-zoo[train]'", []),
    ],
)  # fmt: skip
def test_command_lines_are_found_in_a_script(script, commands):
    assert zoo_commands(script) == commands


@pytest.fixture
def only_parsed(monkeypatch):
    """No command runs: `tfod-zoo` ends after it has understood its arguments."""
    for name in cli.COMMANDS:
        command = importlib.import_module(f"tfod_zoo.cli.{name}_command")
        monkeypatch.setattr(command, "run", lambda args: 0)
        for more in getattr(command, "SUBCOMMANDS", ()):
            monkeypatch.setattr(importlib.import_module(f"tfod_zoo.cli.{name}_{more}_command"), "run", lambda args: 0)


@pytest.mark.parametrize("name", TEXTS)
def test_every_command_line_is_understood(name, only_parsed, capsys):
    for block in TEXTS[name].blocks:
        for arguments in zoo_commands(block.text) if block.language == "sh" else ():
            code = cli.main(arguments)
            assert code == 0, f"{name}:{block.line}: tfod-zoo {' '.join(arguments)}\n{capsys.readouterr().err}"


@pytest.mark.parametrize("name", TEXTS)
def test_commands_in_the_text_have_these_flags(name):
    """Those are often cut short, `tfod-zoo eval --follow`; what is there must exist."""
    for arguments in TEXTS[name].mentioned_commands:
        said = f"{name}: `tfod-zoo {' '.join(arguments)}`"
        if not arguments or arguments[0].startswith("-"):
            assert cli.main(arguments) == 0, said
            continue
        assert arguments[0] in cli.COMMANDS or not arguments[0].islower(), f"{said}: no such command"
        flags = {word.partition("=")[0] for word in arguments if word.startswith("--")}
        unknown = flags - _flags(arguments) - {"--help", "--debug", "--quiet"}
        assert not unknown, f"{said} has no {min(unknown)}"


def _flags(arguments: list[str]) -> set[str]:
    """Those of the command that a command line's first words name."""
    name, *rest = arguments
    command = importlib.import_module(f"tfod_zoo.cli.{name}_command")
    if rest and rest[0] in getattr(command, "SUBCOMMANDS", ()):
        command = importlib.import_module(f"tfod_zoo.cli.{name}_{rest[0]}_command")
    parser = argparse.ArgumentParser()
    command.add_arguments(parser)
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction) and rest:
            parser = action.choices[rest[0]]
    return set(parser._option_string_actions)


@pytest.mark.parametrize("name", TEXTS)
def test_links_lead_somewhere(name):
    page = TEXTS[name]
    for link in page.links:
        path, _, anchor = link.partition("#")
        target = (page.path.parent / path).resolve() if path else page.path
        assert target.exists(), f"{name}: {link} leads to no file"
        if anchor:
            assert anchor in _page(target).anchors, f"{name}: {link} leads to no heading"


def _page(path: Path) -> Page:
    return next((page for page in TEXTS.values() if page.path == path), None) or read_page(path)
