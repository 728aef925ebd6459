"""`tfod-zoo show`: everything known of one model."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from tfod_zoo.cli.list_command import archive_size
from tfod_zoo.zoo.checkpoint_index import read_index
from tfod_zoo.zoo.registry import ZooModel, get_model, list_models
from tfod_zoo.zoo.store import checkpoint_prefix, is_downloaded, model_folder

HELP = "everything known of one model, its defects too, and its variables"
EXAMPLE = "tfod-zoo show centernet_mobilenetv2fpn_512x512_coco17_od"

# What `ZooModel.hints` names, in the words of the page.
_HINTS = {"archive_bytes": "size", "archive_folder": "folder", "checkpoint_prefix": "checkpoint", "kaggle": "Kaggle"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", metavar="NAME", help="a zoo name; with --variables a checkpoint's prefix will do too")
    parser.add_argument("--variables", action="store_true", help="the checkpoint's keys, shapes and types")
    parser.add_argument("--json", action="store_true", help="the same as JSON")
    parser.add_argument("--store", metavar="DIR", help="folder of the zoo's archives")


def run(args: argparse.Namespace) -> int:
    if args.variables:
        return _show_variables(args)
    model = get_model(args.name)
    folder, downloaded = model_folder(model.name, args.store), is_downloaded(model.name, args.store)
    if args.json:
        print(json.dumps({**model.as_dict(), "downloaded": downloaded, "folder": str(folder)}, indent=2))
        return 0
    print(model.name)
    for title, values in _facts(model).items():
        for index, value in enumerate(values):
            print(f"  {title if index == 0 else '':<16}{value}")
    print(f"  {'store':<16}{folder} ({'complete' if downloaded else 'not there'})")
    print(f"next: {_next_step(model, downloaded)}")
    return 0


def _show_variables(args: argparse.Namespace) -> int:
    prefix = Path(args.name)
    if args.name in list_models() or not prefix.parent.is_dir() or not list(prefix.parent.glob(f"{prefix.name}*")):
        prefix = checkpoint_prefix(args.name, args.store)
    tensors = read_index(prefix).tensors
    if args.json:
        rows = [{"key": entry.key, "shape": list(entry.shape), "dtype": entry.dtype} for entry in tensors]
        print(json.dumps({"checkpoint": str(prefix), "variables": rows}, indent=2))
        return 0
    width = max((len(str(list(entry.shape))) for entry in tensors), default=0)
    for entry in tensors:
        print(f"{entry.dtype:<8}  {str(list(entry.shape)):<{width}}  {entry.key}")
    print(f"\n{len(tensors)} tensors with {sum(entry.size for entry in tensors) / 1e6:.1f} MB in {prefix}")
    return 0


def _facts(model: ZooModel) -> dict[str, tuple[str, ...]]:
    """Title -> its lines."""
    height, width = model.input_size
    archive: tuple[str, ...] = ("none was ever published",)
    if model.archive_url:
        prefix = model.checkpoint_prefix or "the checkpoint that checkpoint/checkpoint names"
        archive = (model.archive_url, f"{archive_size(model)}; holds {model.archive_folder}/, in it {prefix}")
        if model.hints:
            archive += (f"not confirmed by a transfer yet: {', '.join(_HINTS[hint] for hint in model.hints)}",)
    return {
        "family": (f"{model.family}, feature extractor {model.backbone}",),
        "input": (f"{height}x{width}",),
        "outputs": (
            f"{' and '.join(model.outputs)}, {model.max_detections} detections at most, "
            + ("persons only" if model.num_classes == 1 else f"{model.num_classes} classes (COCO's ids)"),
        ),
        "published": _published(model),
        "trained on": (model.training_hardware,),
        "archive": archive,
        "Kaggle Models": (f"{model.kaggle} (a SavedModel: not for fine-tuning)",) if model.kaggle else (),
        "licence": (model.licence,),
        "papers": model.papers,
        "notes": model.notes,
        "known defects": model.known_defects,
    }


def _published(model: ZooModel) -> tuple[str, ...]:
    figures = [
        text.format(value)
        for text, value in (
            ("{} ms on the zoo's hardware", model.speed_ms),
            ("box mAP {}", model.box_map),
            ("keypoint mAP {}", model.keypoint_map),
        )
        if value is not None
    ]
    return (f"{', '.join(figures)} (COCO 2017 val)" if figures else "no figures",)


def _next_step(model: ZooModel, downloaded: bool) -> str:
    if downloaded:
        return f"tfod-zoo benchmark {model.name}"
    return f"tfod-zoo download {model.name}" if model.archive_url else f"tfod-zoo config {model.name}"
