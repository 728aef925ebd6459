"""`tfod-zoo quickstart`: train, evaluate and benchmark a detector on synthetic data, to see the package at work."""

from __future__ import annotations

import argparse
import logging

HELP = "from nothing to a trained, benchmarked detector in minutes, without a network"
EXAMPLE = "tfod-zoo quickstart --out quickstart"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the flags of `tfod-zoo quickstart`."""
    parser.add_argument(
        "--out", default="quickstart", metavar="DIR", help="folder of its results (default quickstart/)"
    )
    parser.add_argument("--steps", type=int, metavar="N", help="training steps (default 600, minutes on 2 cores)")
    parser.add_argument(
        "--seed", type=int, default=0, metavar="S", help="of data, weights and augmentation (default: 0)"
    )


def run(args: argparse.Namespace) -> int:
    """Runs the quickstart and says what it did and what to do next; returns 0."""
    logging.getLogger("absl").setLevel(logging.ERROR)
    from tfod_zoo.benchmark.report import markdown_table
    from tfod_zoo.quickstart import STEPS, quickstart
    from tfod_zoo.training.progress import ProgressDisplay

    with ProgressDisplay() as display:
        result = quickstart(
            args.out, steps=args.steps or STEPS, seed=args.seed, say=display.say, on_progress=display.show
        )
        display.say("")
        display.say(markdown_table([result.row]))
        display.say("")
        display.say(f"box AP {result.metrics['DetectionBoxes_Precision/mAP']:.3f} on the validation shapes")
        display.say(f"all of it is in {result.folder}/: pipeline.config, model/ (checkpoints, curves), benchmark/")
        display.say(f"next: tfod-zoo eval --model-dir {result.folder}/model")
        display.say("      tfod-zoo list, then the README's tour for your own images")
    return 0
