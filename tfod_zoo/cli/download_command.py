"""`tfod-zoo download`: archives into the store."""

from __future__ import annotations

import argparse

from tfod_zoo.cli.list_command import archive_size
from tfod_zoo.zoo.registry import get_model, list_models
from tfod_zoo.zoo.store import download, is_downloaded, model_folder

HELP = "fetch, verify and unpack models' archives"
EXAMPLE = "tfod-zoo download centernet_mobilenetv2fpn_512x512_coco17_od"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("names", nargs="+", metavar="NAME", help="a zoo name, or a shell pattern ('centernet_*')")
    parser.add_argument("--store", metavar="DIR", help="where to keep them (default TFOD_ZOO_STORE, else checkpoints/)")


def run(args: argparse.Namespace) -> int:
    # All names first: a misspelt last one should not be found out after gigabytes.
    names = [name for text in args.names for name in list_models(text) or [get_model(text).name]]
    models = [get_model(name) for name in dict.fromkeys(names)]
    for model in models:
        folder = model_folder(model.name, args.store)
        if is_downloaded(model.name, args.store):
            print(f"{model.name}: there already, {folder}")
            continue
        if model.archive_url:
            print(f"{model.name}: {archive_size(model)} from {model.archive_url} to {folder}", flush=True)
        elif model.name not in args.names:
            print(f"{model.name}: no archive was ever published, left out")
            continue
        download(model.name, args.store)  # which explains a model without an archive that was asked for by name
        print(f"{model.name}: verified and unpacked")
    last = models[-1]
    print("next: tfod-zoo " + (f"benchmark {last.name}" if last.network_available else f"config {last.name}"))
    return 0
