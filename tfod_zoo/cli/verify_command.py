"""`tfod-zoo verify`: what lies in the store against every check there is."""

from __future__ import annotations

import argparse
import json
from typing import TYPE_CHECKING

from tfod_zoo.errors import ZooError
from tfod_zoo.zoo.store import store_path

if TYPE_CHECKING:
    from tfod_zoo.zoo.verify import Finding

HELP = "check what lies in the store: files, tensors, variables, lock"
EXAMPLE = "tfod-zoo verify centernet_mobilenetv2fpn_512x512_coco17_od"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("what", nargs="*", metavar="NAME|DIR", help="zoo names or unpacked folders (default: all)")
    parser.add_argument("--store", metavar="DIR", help="folder of the zoo's archives")
    parser.add_argument("--json", action="store_true", help="the findings as JSON")


def run(args: argparse.Namespace) -> int:
    # Here, so that `tfod-zoo --help` stays quick.
    from tfod_zoo.zoo.inventory import stored_models
    from tfod_zoo.zoo.verify import FAILED

    store = store_path(args.store)
    names = args.what or [stored.model.name for stored in stored_models(store)]
    if not names:
        raise ZooError(f"{store} holds no model; `tfod-zoo download NAME` brings one.")
    rows, broken = [], []
    for name in names:
        model, folder, findings = _verify(name, args)
        rows.append({"model": model, "folder": folder, "findings": [vars(finding) for finding in findings]})
        if any(finding.result == FAILED for finding in findings):
            broken.append(model)
    if args.json:
        print(json.dumps(rows, indent=2))
    if broken:
        raise ZooError(f"{', '.join(broken)} cannot be trusted; `tfod-zoo store remove NAME` and `tfod-zoo download "
                       "NAME` bring it anew.")
    if not args.json:
        print(f"next: tfod-zoo benchmark {rows[-1]['model']}")
    return 0


def _verify(name: str, args: argparse.Namespace) -> tuple[str, str, list[Finding]]:
    from tfod_zoo.zoo.inventory import folder_size, verify_stored
    from tfod_zoo.zoo.progress import TransferBoard

    with TransferBoard() as board:
        model, folder, findings = verify_stored(name, store_path(args.store), lambda done: show(done))
        # Each byte is read for its file's checksum and once more for its tensor's.
        with board.work(f"{model.name}: verifying", 2 * folder_size(folder)) as show:
            found = list(findings)
    if not args.json:
        print(f"{model.name}: {folder}")
        for finding in found:
            print(f"  {finding.level:<14}{finding.result:<13}{finding.text}")
    return model.name, str(folder), found
