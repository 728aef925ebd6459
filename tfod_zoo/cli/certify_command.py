"""`tfod-zoo certify`: an archive's own SavedModel beside our network with its weights."""

from __future__ import annotations

import argparse
import contextlib
import json
import tempfile
from collections.abc import Iterator
from pathlib import Path

from tfod_zoo.cli.images import read_images
from tfod_zoo.errors import UsageError, ZooError
from tfod_zoo.zoo.registry import list_models

HELP = "compare an archive's own SavedModel with our network, and write a certificate"
EXAMPLE = "tfod-zoo certify centernet_resnet50_v1_fpn_512x512_coco17_tpu-8 --images photos/"

_ARCHIVE = ".tar.gz"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("what", nargs="+", metavar="NAME|ARCHIVE", help="zoo names, or NAME.tar.gz")
    parser.add_argument("--images", metavar="DIR", help="jpg and png files to compare on (default: generated)")
    parser.add_argument("--output", metavar="DIR", default=".", help="where NAME.certificate.json goes (default: here)")
    parser.add_argument("--store", metavar="DIR", help="folder of the zoo's archives")
    parser.add_argument("--json", action="store_true", help="print the certificates as JSON, and nothing else")


def run(args: argparse.Namespace) -> int:
    models = [(text, _model_name(text)) for text in args.what]  # all of them first
    images = read_images(args.images) if args.images else []
    from tfod_zoo.certification.certificate import DIFFERS, certify, generated_images, one_line

    output = Path(args.output)
    output.mkdir(parents=True, exist_ok=True)
    args.result, differ = {}, []
    for text, name in models:
        with _folder(text, name, args.store) as folder:
            print(f"{name}: running its SavedModel and our network", flush=True)
            certificate = certify(name, folder, images or generated_images(), args.images or "generated")
        args.result[name] = certificate
        path = output / f"{name}.certificate.json"
        path.write_text(json.dumps(certificate, indent=2) + "\n", encoding="utf-8")
        print(one_line(certificate))
        print(f"  -> {path}")
        if certificate["verdict"] == DIFFERS:
            differ.append(name)
    if differ:
        raise ZooError(f"{', '.join(differ)}: our network differs from the archive's SavedModel; the certificate says "
                       "in what.")
    return 0


def _model_name(text: str) -> str:
    name = Path(text).name.removesuffix(_ARCHIVE)
    if name not in list_models():
        raise UsageError(f"{text!r} is neither a zoo model's name nor an archive NAME{_ARCHIVE}; `tfod-zoo list` has "
                         "the names.")
    if text != name and not Path(text).is_file():
        raise UsageError(f"There is no file {text}.")
    return name


@contextlib.contextmanager
def _folder(text: str, name: str, store: str | None) -> Iterator[Path]:
    """The model's unpacked folder: of a name in the store, of an archive in a store that is thrown away."""
    from tfod_zoo.zoo.store import download

    if text == name:
        yield download(name, store)
        return
    with tempfile.TemporaryDirectory(prefix="tfod_zoo_certify_") as scratch:
        yield download(name, scratch, from_file=text)
