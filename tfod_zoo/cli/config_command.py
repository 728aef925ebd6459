"""`tfod-zoo config`: write a zoo model's pipeline.config, for COCO or for data of one's own, or check one."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from tfod_zoo.config.check import check_pipeline
from tfod_zoo.config.generate import HARDWARE, PLACEHOLDER, described, generate_pipeline
from tfod_zoo.config.label_map import read_label_map
from tfod_zoo.config.pipeline import apply_override, merge_text, read_pipeline, read_text, write_text
from tfod_zoo.errors import UsageError
from tfod_zoo.zoo.registry import get_model
from tfod_zoo.zoo.store import is_downloaded

HELP = "write a model's pipeline.config, or check one (config check FILE)"
EXAMPLE = (
    "tfod-zoo config centernet_mobilenetv2fpn_512x512_coco17_od --label-map cells/label_map.pbtxt \\\n"
    "      --train-records 'cells/train-*.tfrecord' --eval-records 'cells/val-*.tfrecord' --out cells.config\n"
    "  tfod-zoo config check cells.config"
)

_CHECK = "check"
_ZOO = "zoo"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the flags of `tfod-zoo config`."""
    parser.add_argument("name", metavar="NAME", help="a zoo model, or `check` to look a file over")
    parser.add_argument("file", nargs="?", metavar="FILE", help="after `check`: the pipeline.config to look over")
    parser.add_argument("--out", metavar="FILE", help="write there (default: print)")
    parser.add_argument("--force", action="store_true", help="replace the file of --out where there is one")
    parser.add_argument("--hardware", choices=tuple(HARDWARE), help="scale batch and learning rate to it")
    parser.add_argument("--label-map", metavar="FILE", help="fine-tune on data with these classes")
    parser.add_argument("--train-records", action="append", metavar="GLOB", help="record glob or tfds:NAME:SPLIT")
    parser.add_argument("--eval-records", action="append", metavar="GLOB", help="likewise, for evaluation")
    parser.add_argument(
        "--checkpoint",
        metavar="PREFIX",
        help="start from this checkpoint, from `zoo` (the model's own; default with --label-map) or `none`",
    )
    parser.add_argument(
        "--checkpoint-type", metavar="TYPE", help="what to restore of it: detection, classification or full"
    )
    parser.add_argument("--batch-size", type=int, metavar="N", help="global batch")
    parser.add_argument("--steps", type=int, metavar="N", help="length of the schedule")
    parser.add_argument("--learning-rate", type=float, metavar="X", help="base rate (default: scaled to the batch)")
    parser.add_argument("--image-size", type=int, metavar="N", help="side of the network's input in pixels")
    parser.add_argument(
        "--set",
        dest="overrides",
        action="append",
        default=[],
        metavar="FIELD=VALUE",
        help="change one field, such as train_config.batch_size=8; may be repeated",
    )
    parser.add_argument("--merge", metavar="FILE", help="merge a fragment of text format into it")
    parser.add_argument("--json", action="store_true", help="of `check`: what it found as JSON")


def run(args: argparse.Namespace) -> int:
    """Writes, prints or checks a pipeline; returns 1 when the check found something."""
    if args.name == _CHECK:
        return _check(args.file, args.json)
    if args.json:
        raise UsageError("--json goes with `config check`; a config is text that programs read as it is.")
    if args.file:
        raise UsageError(f'"{args.file}" is one name too many; only `config check` takes a FILE.')
    if args.out and Path(args.out).exists() and not args.force:
        raise UsageError(f"{args.out} exists; give --force to replace it, or another --out.")
    checkpoint = {"none": "", _ZOO: None}.get(args.checkpoint, args.checkpoint)
    message = generate_pipeline(
        args.name,
        hardware=args.hardware,
        batch_size=args.batch_size,
        num_steps=args.steps,
        learning_rate=args.learning_rate,
        label_map=args.label_map,
        train_records=args.train_records,
        eval_records=args.eval_records,
        fine_tune_checkpoint=checkpoint,
        fine_tune_type=args.checkpoint_type,
        image_size=args.image_size,
    )
    if args.merge:
        fragment = read_text(args.merge, "a fragment in text format", UsageError)
        merge_text(message, fragment, args.merge)
    for override in args.overrides:
        apply_override(message, override)
    text = described(message, args.name)
    if not args.out:
        print(text, end="")
        print("next: the same with --out FILE, and `tfod-zoo train --pipeline FILE`", file=sys.stderr)
        return 0
    write_text(args.out, text)
    config = message.train_config
    print(
        f"{args.out}: batch {config.batch_size}, {config.num_steps} steps, from "
        f"{config.fine_tune_checkpoint or 'random weights'}"
    )
    if args.label_map:
        classes = ", ".join(item.title for item in read_label_map(args.label_map).items)
        print(f"classes: {classes}")
        if "keypoints" in get_model(args.name).outputs:
            tasks = message.model.center_net.keypoint_estimation_task
            posed = ", ".join(task.keypoint_class_name for task in tasks)
            print(f"keypoints of: {posed}" if posed else "keypoints: none in the label map, so it learns boxes alone")
    print(f"next: {_next_step(message, args)}")
    return 0


def _next_step(message: Any, args: argparse.Namespace) -> str:
    train = f"tfod-zoo train --pipeline {args.out} --model-dir runs/{Path(args.out).stem}"
    if any(PLACEHOLDER in finding for finding in check_pipeline(message)):
        return f"fill in the paths that `tfod-zoo config check {args.out}` names"
    from_zoo = args.label_map and args.checkpoint in (None, _ZOO)
    if from_zoo and not is_downloaded(args.name):
        return f"tfod-zoo download {args.name}, then {train}"
    return train


def _check(file: str | None, as_json: bool) -> int:
    if not file:
        raise UsageError("config check needs the FILE to look over.")
    findings = check_pipeline(read_pipeline(Path(file)))
    if as_json:
        print(json.dumps({"file": file, "ok": not findings, "findings": findings}, indent=2))
        return 1 if findings else 0
    for finding in findings:
        print(f"{file}: {finding}")
    if not findings:
        print(f"{file}: nothing wrong found")
        print(f"next: tfod-zoo train --pipeline {file} --model-dir runs/{Path(file).stem}", file=sys.stderr)
    return 1 if findings else 0
