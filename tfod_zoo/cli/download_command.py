"""`tfod-zoo download`: archives into the store."""

from __future__ import annotations

import argparse
import json
import sys

from tfod_zoo.cli.list_command import archive_size
from tfod_zoo.errors import UsageError, ZooError
from tfod_zoo.zoo.registry import ZooModel, get_model, list_models
from tfod_zoo.zoo.store import download, download_models, is_downloaded, model_folder

HELP = "fetch, verify and unpack models' archives"
EXAMPLE = "tfod-zoo download centernet_mobilenetv2fpn_512x512_coco17_od"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("names", nargs="+", metavar="NAME", help="a zoo name, or a shell pattern ('centernet_*')")
    parser.add_argument("--store", metavar="DIR", help="where to keep them (default TFOD_ZOO_STORE, else checkpoints/)")
    parser.add_argument("--mirror", metavar="URL|DIR|gs://",
                        help="where to look for NAME.tar.gz first (default TFOD_ZOO_MIRROR)")
    parser.add_argument("--offline", action="store_true", default=None,
                        help="never touch the network (default TFOD_ZOO_OFFLINE)")
    parser.add_argument("--from-file", metavar="ARCHIVE", help="take this archive of the one model that is named")
    parser.add_argument("--update-lock", action="store_true",
                        help="accept an archive that is not the one in the store's lock file")
    parser.add_argument("--json", action="store_true", help="print the folders of those that are there, as JSON")


def run(args: argparse.Namespace) -> int:
    # All names first: a misspelt last one should not be found out after gigabytes.
    names = [name for text in args.names for name in list_models(text) or [get_model(text).name]]
    models = [get_model(name) for name in dict.fromkeys(names)]
    if args.from_file and len(models) > 1:
        raise UsageError(f"--from-file is one model's archive, but {len(models)} are named; name that one.")
    wanted = [model for model in models if _is_wanted(model, args)]
    failures = _download(wanted, args)
    if args.json:
        there = [model.name for model in models if is_downloaded(model.name, args.store)]
        print(json.dumps({name: str(model_folder(name, args.store)) for name in there}, indent=2))
    for error in failures:
        if error is failures[-1]:
            raise error  # the frame of the command line prints it, and sets the exit code
        print(error, file=sys.stderr)
    if not args.json:
        print(f"next: tfod-zoo benchmark {models[-1].name}")
    return 0


def _is_wanted(model: ZooModel, args: argparse.Namespace) -> bool:
    """Whether there is something to do; prints what there is not."""

    def say(line: str) -> None:
        if not args.json:
            print(line, flush=True)

    if is_downloaded(model.name, args.store):
        say(f"{model.name}: there already, {model_folder(model.name, args.store)}")
        return False
    if not model.archive_url:
        if model.name in args.names:
            return True  # downloading explains it
        say(f"{model.name}: no archive was ever published, left out")
        return False
    say(f"{model.name}: {archive_size(model)}")
    return True


def _download(models: list[ZooModel], args: argparse.Namespace) -> list[ZooError]:
    options = {"mirror": args.mirror, "offline": args.offline, "update_lock": args.update_lock}
    if len(models) == 1:
        download(models[0].name, args.store, from_file=args.from_file, **options)
        return []
    done = download_models([model.name for model in models], args.store, **options)
    return [result for _, result in done if isinstance(result, ZooError)]
