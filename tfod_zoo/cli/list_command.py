"""`tfod-zoo list`: the zoo as a table."""

from __future__ import annotations

import argparse
import json

from tfod_zoo.errors import UsageError
from tfod_zoo.zoo.registry import ZooModel, get_model, list_models, nearest_names
from tfod_zoo.zoo.store import is_downloaded, store_path

HELP = "the zoo's models: size, outputs, published speed and mAP, what is here"
EXAMPLE = "tfod-zoo list 'centernet_*'"

_HEADER = ("model", "input", "archive", "outputs", "ms", "box mAP", "kpt mAP", "in store")
_WILDCARDS = "*?["


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("pattern", nargs="?", default="*", metavar="PATTERN", help="a shell pattern over the names")
    parser.add_argument("--json", action="store_true", help="every fact of every model, as JSON")
    parser.add_argument("--store", metavar="DIR", help="folder of the zoo's archives")


def run(args: argparse.Namespace) -> int:
    names = list_models(args.pattern)
    if not names:
        raise UsageError(f"No model matches {args.pattern!r}; {_hint(args.pattern)}")
    if args.quiet and not args.json:
        print("\n".join(names))
        return 0
    models = [get_model(name) for name in names]
    if args.json:
        rows = [{**model.as_dict(), "downloaded": is_downloaded(model.name, args.store)} for model in models]
        print(json.dumps(rows, indent=2))
        return 0
    print(_table([_HEADER, *(_row(model, args.store) for model in models)]))
    print(f"\nms and mAP are the zoo's own, on its hardware and COCO 2017 val; store: {store_path(args.store)}")
    print(f"next: tfod-zoo show {names[0]}")
    return 0


def _hint(pattern: str) -> str:
    if not any(wildcard in pattern for wildcard in _WILDCARDS) and list_models(f"*{pattern}*"):
        return f"`tfod-zoo list '*{pattern}*'` shows the names that contain it."
    return nearest_names(pattern)


def _row(model: ZooModel, store: str | None) -> tuple[str, ...]:
    return (
        model.name,
        "x".join(map(str, model.input_size)),
        archive_size(model),
        "+".join(model.outputs),
        _or_dash(model.speed_ms),
        _or_dash(model.box_map),
        _or_dash(model.keypoint_map),
        "yes" if is_downloaded(model.name, store) else "no",
    )


def archive_size(model: ZooModel) -> str:
    """The archive's size for people: `44 MB`, `~208 MB` when not confirmed, `?` when not known, `none`."""
    if not model.date:
        return "none"
    if not model.archive_bytes:
        return "?"
    return f"{'~' if 'archive_bytes' in model.hints else ''}{model.archive_bytes / 1e6:.0f} MB"


def _or_dash(value: float | None) -> str:
    return "-" if value is None else str(value)


def _table(rows: list[tuple[str, ...]]) -> str:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    right = {_HEADER.index(title) for title in ("archive", "ms", "box mAP", "kpt mAP")}
    return "\n".join(
        "  ".join(cell.rjust(width) if index in right else cell.ljust(width)
                  for index, (cell, width) in enumerate(zip(row, widths, strict=True))).rstrip()
        for row in rows
    )
