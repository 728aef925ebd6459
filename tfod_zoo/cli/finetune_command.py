"""tfod-zoo finetune: a zoo model on a folder of images, by one command."""

from __future__ import annotations

import argparse
from pathlib import Path

from tfod_zoo.cli import train_command
from tfod_zoo.errors import UsageError

HELP = "fine-tune a zoo model on a folder of images: data, config, weights, training, evaluation"
EXAMPLE = """\
tfod-zoo finetune centernet_mobilenetv2fpn_512x512_coco17_od --data cells/ --steps 2000
  tfod-zoo finetune centernet_mobilenetv2fpn_512x512_coco17_od --data cells/ --checkpoint none --image-size 256"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", metavar="NAME", help="a model of `tfod-zoo list`")
    parser.add_argument("--data", required=True, metavar="DIR", help="folder of images and annotations")
    parser.add_argument("--out", metavar="DIR", help="where the run goes, and goes on (default: runs/ and DIR's name)")
    parser.add_argument("--steps", type=int, metavar="N", help="length of the training (default: 2000)")
    parser.add_argument(
        "--batch-size", type=int, metavar="N", help="of all devices together (default: by the device; halved if needed)"
    )
    parser.add_argument("--learning-rate", type=float, metavar="R", help="(default: the recipe's, scaled to the batch)")
    parser.add_argument("--image-size", type=int, metavar="N", help="side of the network's input (default: published)")
    parser.add_argument(
        "--checkpoint", metavar="PREFIX", help="what to start from, or none for random weights (default: the zoo's)"
    )
    parser.add_argument(
        "--set", dest="overrides", action="append", default=[], metavar="FIELD=VALUE",
        help="change one field of the generated config; may be repeated",
    )
    train_command.add_run_arguments(parser)


def run(args: argparse.Namespace) -> int:
    from tfod_zoo.zoo.registry import get_model

    get_model(args.name)  # a misspelt name is found out before TensorFlow takes its seconds
    if not Path(args.data).is_dir():
        raise UsageError(f"--data {args.data} is no folder; give the one that holds images and annotations.")
    out = args.out or f"runs/{Path(args.data).resolve().name}"

    train_command.quiet_tensorflow()
    from tfod_zoo.finetune import finetune
    from tfod_zoo.training.progress import ProgressDisplay

    strategy = train_command.prepare_devices(args)
    with ProgressDisplay() as display:
        result = finetune(
            args.name,
            args.data,
            out,
            steps=args.steps,
            batch_size=args.batch_size,
            learning_rate=args.learning_rate,
            image_size=args.image_size,
            checkpoint="" if args.checkpoint == "none" else args.checkpoint,
            overrides=args.overrides,
            strategy=strategy,
            say=display.say,
            on_import=lambda done: display.busy(f"import: {done} images"),
            on_progress=display.show,
            **train_command.run_options(args),
        )
        train_command.summarize(result, out, display.say)
    args.result = train_command.as_json(result) | {"model_dir": out}
    return 0
