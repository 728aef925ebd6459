"""`tfod-zoo doctor`: whether this machine has what is needed."""

from __future__ import annotations

import argparse
import json

from tfod_zoo.errors import ZooError

HELP = "what is installed, which devices, memory, disk; what is missing and how to get it"
EXAMPLE = "tfod-zoo doctor"

_COLORS = {"ok": "green", "missing": "default", "warning": "yellow", "broken": "red"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--store", metavar="DIR", help="folder of the zoo's archives")
    parser.add_argument("--json", action="store_true", help="the findings as JSON")


def run(args: argparse.Namespace) -> int:
    # Here, so that `tfod-zoo --help` stays quick.
    from itertools import chain

    from rich.console import Console
    from rich.text import Text

    from tfod_zoo.doctor.finding import BROKEN
    from tfod_zoo.doctor.machine import check_disk, check_memory, check_tensorflow
    from tfod_zoo.doctor.packages import check_packages

    console = Console(highlight=False, soft_wrap=True)  # colours on a terminal alone, and not with NO_COLOR
    findings = []
    for one in chain(check_packages(), [check_memory()], check_disk(args.store), check_tensorflow()):
        findings.append(one)
        if not args.json:
            text = f"{one.name:<24}{one.text}" + (f" -> {one.advice}" if one.advice else "")
            console.print(Text.assemble((f"{one.state:<9}", _COLORS[one.state]), text))
    broken = [one for one in findings if one.state == BROKEN]
    if args.json:
        print(json.dumps({"ok": not broken, "findings": [vars(one) for one in findings]}, indent=2))
    if broken:
        first = broken[0]
        more = f" ({len(broken) - 1} more above)" if len(broken) > 1 else ""
        raise ZooError(f"{first.name}: {first.text}; {first.advice}{more}.")
    if not args.json:
        print("next: tfod-zoo quickstart, or tfod-zoo list")
    return 0
