"""`tfod-zoo completion`: scripts that complete commands and flags in a shell."""

from __future__ import annotations

import argparse
import re
from collections.abc import Sequence

HELP = "a script that completes commands and flags in bash, zsh or fish"
EXAMPLE = """\
tfod-zoo completion bash > ~/.local/share/bash-completion/completions/tfod-zoo
  tfod-zoo completion zsh > "${fpath[1]}/_tfod-zoo"
  tfod-zoo completion fish > ~/.config/fish/completions/tfod-zoo.fish"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("shell", choices=("bash", "zsh", "fish"), help="which one; open a new one afterwards")


def run(args: argparse.Namespace) -> int:
    import shtab

    from tfod_zoo.cli.main import whole_parser
    from tfod_zoo.zoo.registry import list_models

    parser, models = whole_parser(), list_models()
    _say_what_completes(parser, models)
    functions = {"bash": _IN_BASH, "zsh": _IN_ZSH}.get(args.shell, "").replace("MODELS", " ".join(models))
    print(shtab.complete(parser, args.shell, preamble=functions))
    return 0


# shtab's own functions for bash do not quote the word, and so lose names with spaces. That their names end in files or
# dirs tells it that what they give is to be quoted for the shell, and that a folder gets its slash.
_IN_BASH = """\
_tfod_zoo_files() { compgen -f -- "$1"; }
_tfod_zoo_dirs() { compgen -d -- "$1"; }
_tfod_zoo_models_or_files() { compgen -W 'MODELS' -- "$1"; _tfod_zoo_files "$1"; }
"""
_IN_ZSH = "_tfod_zoo_models_or_files() { compadd -- MODELS; _files; }"
_FILES = {"bash": "_tfod_zoo_files", "zsh": "_files", "fish": "(__fish_complete_path (commandline -ct))"}
_FOLDERS = {"bash": "_tfod_zoo_dirs", "zsh": "_files -/", "fish": "(__fish_complete_directories (commandline -ct))"}


def _say_what_completes(parser: argparse.ArgumentParser, models: Sequence[str]) -> None:
    """Marks arguments by what their help calls them: models' names, folders, files; others have no completions."""
    either = dict.fromkeys(("bash", "zsh"), "_tfod_zoo_models_or_files") | {
        "fish": f"{' '.join(models)} {_FILES['fish']}"
    }
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for child in dict.fromkeys(action.choices.values()):
                _say_what_completes(child, models)
            continue
        if action.nargs == 0 or action.choices:
            continue
        kinds = set(re.findall(r"[A-Z]+", str(action.metavar or "")))
        completes = None
        if not action.option_strings and kinds & {"NAME", "MODEL", "PATTERN"}:
            if kinds & {"DIR", "MODEL", "ARCHIVE"}:
                completes = either
            else:
                action.choices = models
        elif kinds == {"DIR"}:
            completes = _FOLDERS
        elif kinds & {"FILE", "DIR", "INPUT", "CONFIG", "GLOB", "RECORDS", "PREFIX", "INTERPRETER", "ARCHIVE"}:
            completes = _FILES
        if completes:
            action.complete = completes  # type: ignore[attr-defined]
