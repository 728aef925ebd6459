"""tfod-zoo train: train or fine-tune a detector from a pipeline config."""

from __future__ import annotations

import argparse
import functools
import logging
import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from tfod_zoo.errors import UsageError

if TYPE_CHECKING:
    from tfod_zoo.training.run import TrainingResult

HELP = "train or fine-tune a detector from a pipeline config"
EXAMPLE = "tfod-zoo train --pipeline cells.config --model-dir runs/cells --steps 2000 --eval-every 500"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the flags of `tfod-zoo train`."""
    parser.add_argument("--pipeline", required=True, metavar="FILE", help="the pipeline.config to train")
    parser.add_argument(
        "--model-dir", required=True, metavar="DIR", help="where checkpoints go; a run that stopped there goes on"
    )
    parser.add_argument("--steps", type=int, metavar="N", help="step to end at (default: train_config.num_steps)")
    parser.add_argument(
        "--set",
        dest="overrides",
        action="append",
        default=[],
        metavar="FIELD=VALUE",
        help="change one field of the config, such as train_config.batch_size=8; may be repeated",
    )
    parser.add_argument(
        "--seed", type=int, metavar="S", help="of weights, data order and augmentation (default: 0; or as begun)"
    )
    parser.add_argument(
        "--eval-every", type=int, metavar="N", help="evaluate every N steps and at the end (default: do not)"
    )
    parser.add_argument("--checkpoint-every", type=int, metavar="N", help="steps between checkpoints (default: 1000)")
    parser.add_argument(
        "--recompute", action="store_true", help="compute activations twice to save memory (hourglass networks)"
    )
    parser.add_argument(
        "--schedule",
        choices=("joint", "alternating"),
        default="joint",
        help="of a Faster R-CNN: both stages at once, or the four phases of its paper, each of so many steps",
    )
    parser.add_argument(
        "--compare-with", metavar="DIR", help="with --schedule alternating: a joint run to evaluate beside it"
    )
    parser.add_argument("--xla", action="store_true", help="compile the train step with XLA (often slower on a CPU)")


def run(args: argparse.Namespace) -> int:
    """Trains; returns 0."""
    from tfod_zoo.config.pipeline import apply_override, read_pipeline

    if args.compare_with and args.schedule != "alternating":
        raise UsageError("--compare-with goes with --schedule alternating; add that, or leave it out.")
    pipeline = read_pipeline(args.pipeline)
    for override in args.overrides:
        apply_override(pipeline, override)

    # TensorFlow's runtime and absl log about their own internals, such as a CPU machine's lack of CUDA; what goes wrong
    # comes as an exception all the same.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    logging.getLogger("absl").setLevel(logging.ERROR)
    from tfod_zoo.training.alternating import train_alternating
    from tfod_zoo.training.progress import ProgressDisplay, spoken_duration
    from tfod_zoo.training.run import CHECKPOINT_EVERY, default_strategy, main_figures, train

    run_schedule: Callable[..., TrainingResult] = train
    if args.schedule == "alternating":
        run_schedule = functools.partial(train_alternating, compare_with=args.compare_with)

    strategy = default_strategy()
    with ProgressDisplay() as display:
        for line in _plan(pipeline, args, strategy.num_replicas_in_sync):
            display.say(line)
        result = run_schedule(
            pipeline,
            args.model_dir,
            steps=args.steps,
            seed=args.seed,
            eval_every=args.eval_every,
            checkpoint_every=CHECKPOINT_EVERY if args.checkpoint_every is None else args.checkpoint_every,
            xla=args.xla,
            recompute=args.recompute,
            strategy=strategy,
            say=display.say,
            on_progress=display.show,
        )
        display.say(f"step {result.step}: saved {result.checkpoint}")
        if result.steps_per_second:
            per_step = 1.0 / result.steps_per_second
            display.say(f"{per_step:.2f} s a step; 1000 steps take {spoken_duration(1000 * per_step)} here")
        if result.metrics:
            display.say(f"{main_figures(result.metrics)} on the eval reader")
        display.say(f"curves: tensorboard --logdir {args.model_dir}")
        display.say(f"next: tfod-zoo eval --model-dir {args.model_dir}")
    return 0


def _plan(pipeline: Any, args: argparse.Namespace, replicas: int) -> list[str]:
    """What is about to happen, in a few lines."""
    import tensorflow as tf

    config = pipeline.train_config
    family = pipeline.model.WhichOneof("model")
    model: Any = getattr(pipeline.model, family) if family else None
    network = f"{model.feature_extractor.type}, {model.num_classes} classes" if family else "no model"
    device = "GPU" if tf.config.list_physical_devices("GPU") else "CPU"
    records = ", ".join(pipeline.train_input_reader.tf_record_input_reader.input_path)
    optimizer = (config.optimizer.WhichOneof("optimizer") or "none").removesuffix("_optimizer")
    source = f"checkpoint {config.fine_tune_checkpoint}" if config.fine_tune_checkpoint else "random weights"
    return [
        f"train {network}, from {source}",
        f"data {records}; batch {config.batch_size} on {replicas} {device}{'s' if replicas > 1 else ''}",
        f"to step {args.steps or config.num_steps} with {optimizer}; into {args.model_dir}",
    ]
