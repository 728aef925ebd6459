"""`tfod-zoo`: finds the command's module, parses its flags, runs it, and turns its errors into one sentence.

A command NAME is the module `tfod_zoo.cli.NAME_command` with `HELP` (one line), `EXAMPLE`, `add_arguments(parser)` and
`run(args) -> exit code`, which finds the whole command line in `args.command_line`. Only the module that is needed is
imported, and none imports TensorFlow before it runs.

Exit codes: 0 done, 1 failed, 2 wrong use, 130 interrupted.
"""

from __future__ import annotations

import argparse
import contextlib
import difflib
import importlib
import json
import os
import shlex
import sys
import warnings
from collections.abc import Sequence
from types import ModuleType
from typing import Any, NoReturn

import tfod_zoo
from tfod_zoo.errors import UsageError, ZooError
from tfod_zoo.progress import quiet_progress

_GROUPS = {
    "start here": ("quickstart", "doctor"),
    "the zoo": ("list", "show", "download", "verify", "store", "certify"),
    "your data": ("config", "data"),
    "models": ("detect", "serve", "finetune", "train", "eval", "export", "benchmark", "tpu"),
    "the command line": ("completion",),
}
COMMANDS = tuple(name for names in _GROUPS.values() for name in names)

_DEBUG_HELP = "show the trace of an error"
_QUIET_HELP = "no progress; of commands that do something nothing but errors, of `list` the names alone"
# What these print is about what they do; the others' output is what was asked for.
_DOING = ("certify", "detect", "download", "export", "benchmark", "finetune", "quickstart", "train")
# Of these, those that leave in `args.result` what --json prints; what they say on the way goes to standard error then.
_RESULTS = ("certify", "export", "benchmark", "finetune", "train")


class _Parser(argparse.ArgumentParser):
    """Raises instead of exiting, so that wrong use looks the same wherever it is found."""

    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{message[:1].upper()}{message[1:]}; see `{self.prog} --help`.")


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command line (default: this process's) and returns its exit code."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    # Read here, so that they may stand anywhere, behind a command's own subcommand too.
    debug, quiet = "--debug" in arguments, "--quiet" in arguments
    arguments = [text for text in arguments if text not in ("--debug", "--quiet")]
    # TensorFlow's own start-up chatter hides what a command says.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    # protobuf 6 says of each of TensorFlow's generated files that protobuf 5's compiler made it: over a hundred lines.
    warnings.filterwarnings("ignore", message="Protobuf gencode version")
    # Pillow warns of pictures half as large as those that it refuses, of which there is a sentence.
    warnings.filterwarnings("ignore", message="Image size .* exceeds limit")
    try:
        with quiet_progress() if quiet else contextlib.nullcontext():
            code = _run(arguments, quiet)
        sys.stdout.flush()
        return code
    except BrokenPipeError:
        # The reader (`| head`) has seen enough; keep the interpreter from complaining about it at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except KeyboardInterrupt:
        if debug:
            raise
        print("\ntfod-zoo: interrupted.", file=sys.stderr)
        return 130
    except ZooError as error:
        if debug:
            raise
        print(f"tfod-zoo: {error}", file=sys.stderr)
        return 2 if isinstance(error, UsageError) else 1
    except Exception as error:
        if debug:
            raise
        print(f"tfod-zoo: {type(error).__name__}: {error} (not expected; --debug shows the trace)", file=sys.stderr)
        return 1


def _run(arguments: list[str], quiet: bool) -> int:
    # Global flags stand before the command; what follows it is the command's own.
    at = next((index for index, text in enumerate(arguments) if not text.startswith("-")), len(arguments))
    parser = _Parser(prog="tfod-zoo", add_help=False, allow_abbrev=False)
    parser.add_argument("-h", "--help", action="store_true")
    parser.add_argument("--version", action="store_true")
    flags = parser.parse_args(arguments[:at])
    if flags.version:
        print(f"tfod-zoo {tfod_zoo.__version__}, which reproduces TFOD as in {tfod_zoo.REFERENCE}")
        return 0
    if flags.help or at == len(arguments):
        print(_overview())
        return 0
    name = arguments[at]
    if name not in COMMANDS:
        near = difflib.get_close_matches(name, COMMANDS, n=2)
        hint = f"did you mean {' or '.join(near)}?" if near else "`tfod-zoo --help` lists them."
        raise UsageError(f"There is no command {name!r}; {hint}")
    command, own = _module(name), arguments[at + 1 :]
    if own and own[0] in getattr(command, "SUBCOMMANDS", ()):
        # A command whose first argument is otherwise a name of the user's, so that argparse could not tell them apart.
        name, command, own = f"{name} {own[0]}", _module(f"{name}_{own[0]}"), own[1:]
    parser = _Parser(prog=f"tfod-zoo {name}", **_looks(command))
    _add_arguments(parser, command)
    args = _parse(parser, own)
    args.quiet = quiet
    args.command_line = shlex.join(["tfod-zoo", *arguments])
    as_json = getattr(args, "json", False)
    gives_result = as_json and name in _RESULTS
    with open(os.devnull, "w") as nowhere:
        told = sys.stderr if gives_result else sys.stdout
        if quiet and name in _DOING and (gives_result or not as_json):
            told = nowhere
        try:
            with contextlib.redirect_stdout(told):
                return command.run(args)
        finally:  # of what failed after a part of it, that part
            if gives_result and hasattr(args, "result"):
                print(json.dumps(args.result, indent=2))


def _module(name: str) -> ModuleType:
    return importlib.import_module(f"tfod_zoo.cli.{name}_command")


def _looks(command: ModuleType) -> dict[str, Any]:
    return {
        "description": f"{command.HELP[:1].upper()}{command.HELP[1:]}.", "epilog": f"example:\n  {command.EXAMPLE}",
        "formatter_class": argparse.RawDescriptionHelpFormatter, "allow_abbrev": False,
    }  # fmt: skip


def _add_arguments(parser: argparse.ArgumentParser, command: ModuleType) -> None:
    command.add_arguments(parser)
    parser.add_argument("--debug", action="store_true", help=_DEBUG_HELP)
    parser.add_argument("--quiet", action="store_true", help=_QUIET_HELP)


def whole_parser() -> argparse.ArgumentParser:
    """Every command in one parser, for tools that look through it; parsing needs the one that is meant alone."""
    parser = _Parser(prog="tfod-zoo", allow_abbrev=False)
    parser.add_argument("--version", action="store_true", help="the version")
    commands = parser.add_subparsers(metavar="COMMAND")
    for name in COMMANDS:
        command = _module(name)
        _add_arguments(commands.add_parser(name, help=command.HELP, **_looks(command)), command)
    return parser


def _parse(parser: argparse.ArgumentParser, arguments: list[str]) -> argparse.Namespace:
    args, unknown = parser.parse_known_args(arguments)
    if unknown:
        flag = unknown[0].partition("=")[0]
        near = difflib.get_close_matches(flag, parser._option_string_actions, n=1)
        hint = f"did you mean {near[0]}?" if flag.startswith("-") and near else f"see `{parser.prog} --help`."
        raise UsageError(f"{parser.prog} does not take {unknown[0]!r}; {hint}")
    return args


def _overview() -> str:
    lines = ["usage: tfod-zoo [--debug] [--quiet] COMMAND ...", ""]
    lines += ["The TensorFlow detection model zoo, on today's TensorFlow."]
    for group, names in _GROUPS.items():
        lines += ["", f"{group}:", *(f"  {name:<12}{_module(name).HELP}" for name in names)]
    lines += [
        "", "flags:", "  -h, --help  this page; `tfod-zoo COMMAND --help` has a command's flags and an example",
        "  --version   the version", f"  --debug     {_DEBUG_HELP}",
        f"  --quiet     {_QUIET_HELP}",
        "", "next: tfod-zoo quickstart, or tfod-zoo list",
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
