"""`tfod-zoo completion`: scripts that complete commands and flags in a shell."""

from __future__ import annotations

import argparse
import re

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

    parser = whole_parser()
    _say_what_completes(parser)
    print(shtab.complete(parser, args.shell))
    return 0


def _say_what_completes(parser: argparse.ArgumentParser) -> None:
    """Marks arguments by what their help calls them: models' names, folders, files."""
    import shtab

    from tfod_zoo.zoo.registry import list_models

    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for child in dict.fromkeys(action.choices.values()):
                _say_what_completes(child)
            continue
        kind = str(action.metavar or "")
        if action.nargs == 0 or action.choices or not kind:
            continue
        if not action.option_strings and re.search(r"\b(NAME|MODEL|PATTERN)\b", kind):
            action.choices = list_models()
        else:
            action.complete = shtab.DIRECTORY if kind == "DIR" else shtab.FILE  # type: ignore[attr-defined]
