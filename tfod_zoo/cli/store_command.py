"""`tfod-zoo store`: what the store holds, where it is, and making room in it."""

from __future__ import annotations

import argparse
import json
from typing import TYPE_CHECKING

from tfod_zoo.errors import UsageError
from tfod_zoo.zoo.registry import get_model
from tfod_zoo.zoo.store import store_path

if TYPE_CHECKING:
    from tfod_zoo.zoo.inventory import StoredModel

HELP = "what the store holds and where it came from; make room"
EXAMPLE = "tfod-zoo store list"

_ACTIONS = {
    "list": "the models that are there, their size, origin and verification",
    "path": "where the store is",
    "remove": "remove the models that are named",
    "gc": "remove what broken-off transfers left",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    actions = "; ".join(f"{name}: {text}" for name, text in _ACTIONS.items())
    parser.add_argument("action", choices=tuple(_ACTIONS), metavar="|".join(_ACTIONS), help=actions)
    parser.add_argument("names", nargs="*", metavar="NAME", help="models, for remove")
    parser.add_argument("--store", metavar="DIR", help="folder of the zoo's archives")
    parser.add_argument("--json", action="store_true", help="the list as JSON")


def run(args: argparse.Namespace) -> int:
    # Here, so that `tfod-zoo --help` stays quick.
    from tfod_zoo.zoo.inventory import remove, stored_models, tidy

    store = store_path(args.store)
    if bool(args.names) != (args.action == "remove"):
        raise UsageError("`tfod-zoo store remove` takes the names of models, and no other action does.")
    if args.action == "path":
        print(store.resolve())
    elif args.action == "list":
        _list(stored_models(store), str(store), args.json)
    elif args.action == "remove":
        for model in [get_model(name) for name in args.names]:  # all names first
            print(f"{model.name}: removed, {remove(model.name, store) / 1e6:.1f} MB are free again")
    else:
        count, size = tidy(store)
        print(f"{store}: {count} broken-off transfer{'' if count == 1 else 's'} removed, {size / 1e6:.1f} MB are free "
              "again")
    return 0


def _list(stored: list[StoredModel], store: str, as_json: bool) -> None:
    if as_json:
        print(json.dumps([_row(entry) for entry in stored], indent=2))
        return
    for entry in stored:
        row = _row(entry)
        print(f"{row['model']}  {entry.size / 1e6:.1f} MB")
        print(f"  {row['when'] or 'unknown time'} from {row['source'] or 'unknown'}")
        for finding in row["verified"]:
            print(f"  {finding['level']:<14}{finding['result']:<13}{finding['text']}")
    total = sum(entry.size for entry in stored)
    print(f"{store}: {len(stored)} model{'' if len(stored) == 1 else 's'}, {total / 1e6:.1f} MB")
    print("next: tfod-zoo verify" if stored else "next: tfod-zoo list")


def _row(entry: StoredModel) -> dict:
    origin = entry.origin
    return {
        "model": entry.model.name, "folder": str(entry.folder), "bytes": entry.size, "result": entry.result,
        "source": origin.source if origin else None, "when": origin.when if origin else None,
        "sha256": origin.archive.sha256 if origin and origin.archive else None,
        "verified": [vars(finding) for finding in origin.findings] if origin else [],
    }
