"""tfod-zoo train: train or fine-tune a detector from a pipeline config."""

from __future__ import annotations

import argparse
import dataclasses
import functools
import logging
import os
import shlex
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from tfod_zoo.errors import UsageError

if TYPE_CHECKING:
    from tfod_zoo.training.run import TrainingResult

HELP = "train or fine-tune a detector from a pipeline config"
EXAMPLE = """\
tfod-zoo train --pipeline cells.config --model-dir runs/cells --steps 2000 --eval-every 500
  tfod-zoo train --pipeline cells.config --dry-run"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the flags of `tfod-zoo train`."""
    parser.add_argument("--pipeline", required=True, metavar="FILE", help="the pipeline.config to train")
    parser.add_argument("--model-dir", metavar="DIR", help="where checkpoints go; a run that stopped there goes on")
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
        "--dry-run", action="store_true", help="show shapes, memory and time a step, and write nothing"
    )
    add_run_arguments(parser)
    parser.add_argument(
        "--schedule",
        choices=("joint", "alternating"),
        default="joint",
        help="of a Faster R-CNN: both stages at once, or the four phases of its paper, each of so many steps",
    )
    parser.add_argument(
        "--compare-with", metavar="DIR", help="with --schedule alternating: a joint run to evaluate beside it"
    )


def add_run_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the flags that say how a run goes, not what it trains; see `run_options`."""
    parser.add_argument(
        "--seed", type=int, metavar="S", help="of weights, data order and augmentation (default: 0; or as begun)"
    )
    parser.add_argument(
        "--eval-every", type=int, metavar="N", help="evaluate every N steps and at the end; keep the best checkpoint"
    )
    parser.add_argument("--best-metric", metavar="NAME", help="what the best checkpoint has most of (default: box AP)")
    parser.add_argument(
        "--early-stop", type=int, metavar="N", help="end after N evaluations in a row without a better one"
    )
    parser.add_argument("--checkpoint-every", type=int, metavar="N", help="steps between checkpoints (default: 1000)")
    parser.add_argument("--keep", type=int, metavar="N", help="how many of the newest checkpoints stay (default: 5)")
    parser.add_argument(
        "--device",
        choices=("auto", "cpu", "gpu", "tpu"),
        default="auto",
        help="default: TPU, else all GPUs, else CPU; TF_CONFIG makes this machine one of several",
    )
    parser.add_argument(
        "--replicas", type=int, metavar="N", help="use N of the GPUs; or try N devices on one CPU, divided (slow)"
    )
    parser.add_argument(
        "--precision",
        choices=("float32", "bfloat16", "float16"),
        help="of the network; its variables and losses are float32 (default: as train_config.use_bfloat16 says)",
    )
    parser.add_argument(
        "--sync-batch-norm", action="store_true", help="batch norm sees the global batch, not each device its share"
    )
    parser.add_argument(
        "--recompute", action="store_true", help="compute activations twice to save memory (hourglass networks)"
    )
    parser.add_argument("--xla", action="store_true", help="compile the train step with XLA (often slower on a CPU)")
    parser.add_argument(
        "--deterministic", action="store_true", help="kernels that add up in a fixed order; a run repeats to the bit"
    )
    parser.add_argument(
        "--json", action="store_true", help="print checkpoint, metrics, losses and pace as JSON, and nothing else"
    )


def run(args: argparse.Namespace) -> int:
    """Trains; returns 0."""
    from tfod_zoo.config.pipeline import apply_override, read_pipeline

    if args.compare_with and args.schedule != "alternating":
        raise UsageError("--compare-with goes with --schedule alternating; add that, or leave it out.")
    if args.json and args.dry_run:
        raise UsageError("--json gives the results of a run, and --dry-run has none; leave one of them out.")
    if not args.model_dir and not args.dry_run:
        raise UsageError("give --model-dir DIR, where the run goes, or --dry-run.")
    pipeline = read_pipeline(args.pipeline)
    for override in args.overrides:
        apply_override(pipeline, override)
    check_checkpoint_type(pipeline)

    quiet_tensorflow()
    from tfod_zoo.training.alternating import train_alternating
    from tfod_zoo.training.dry_run import dry_run
    from tfod_zoo.training.progress import ProgressDisplay
    from tfod_zoo.training.run import train

    run_schedule: Callable[..., TrainingResult] = train
    if args.schedule == "alternating":
        run_schedule = functools.partial(train_alternating, compare_with=args.compare_with)

    strategy = prepare_devices(args)
    with ProgressDisplay() as display:
        for line in plan(pipeline, args.steps, args.model_dir, strategy):
            display.say(line)
        if args.dry_run:
            dry_run(
                pipeline,
                strategy,
                steps=args.steps or pipeline.train_config.num_steps,
                precision=args.precision,
                sync_batch_norm=args.sync_batch_norm,
                xla=args.xla,
                recompute=args.recompute,
                say=display.say,
            )
            return 0
        result = run_schedule(
            pipeline,
            args.model_dir,
            steps=args.steps,
            strategy=strategy,
            say=display.say,
            on_progress=display.show,
            **run_options(args),
        )
        summarize(result, args.model_dir, display.say)
    args.result = as_json(result) | {"model_dir": args.model_dir}
    return 0


def check_checkpoint_type(pipeline: Any) -> None:
    """Refuses a `fine_tune_checkpoint_type` that no checkpoint can be restored by, before TensorFlow takes its seconds.

    Raises:
      UsageError: it names the type to write.
    """
    from tfod_zoo.config.generate import restore_problem

    family, config = pipeline.model.WhichOneof("model"), pipeline.train_config
    if not family or not config.fine_tune_checkpoint or not config.fine_tune_checkpoint_type:
        return
    extractor = getattr(pipeline.model, family).feature_extractor.type
    problem = restore_problem(config.fine_tune_checkpoint_type, extractor)
    if problem:
        raise UsageError(f"train_config.fine_tune_checkpoint_type: {problem}")


def quiet_tensorflow() -> None:
    """TensorFlow's runtime and absl log about their own internals, such as a CPU machine's lack of CUDA; what goes
    wrong comes as an exception all the same. To be called before TensorFlow is imported."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    logging.getLogger("absl").setLevel(logging.ERROR)


def prepare_devices(args: argparse.Namespace) -> Any:
    """The strategy of the flags of `add_run_arguments`; makes TensorFlow deterministic where they ask for it."""
    import tensorflow as tf

    from tfod_zoo.training.devices import make_strategy

    if args.deterministic:
        tf.config.experimental.enable_op_determinism()
    return make_strategy(args.device, args.replicas)


def run_options(args: argparse.Namespace) -> dict[str, Any]:
    """The flags of `add_run_arguments` as arguments of `tfod_zoo.training.run.train`, without device and replicas."""
    from tfod_zoo.training.run import CHECKPOINT_EVERY, KEPT_CHECKPOINTS

    return {
        "seed": args.seed,
        "eval_every": args.eval_every,
        "best_metric": args.best_metric,
        "early_stop": args.early_stop,
        "checkpoint_every": CHECKPOINT_EVERY if args.checkpoint_every is None else args.checkpoint_every,
        "keep": KEPT_CHECKPOINTS if args.keep is None else args.keep,
        "precision": args.precision,
        "sync_batch_norm": args.sync_batch_norm,
        "xla": args.xla,
        "recompute": args.recompute,
    }


def plan(pipeline: Any, steps: int | None, model_dir: str | None, strategy: Any) -> list[str]:
    """What is about to happen, in a few lines."""
    from tfod_zoo.training.devices import described

    config = pipeline.train_config
    family = pipeline.model.WhichOneof("model")
    model: Any = getattr(pipeline.model, family) if family else None
    network = f"{model.feature_extractor.type}, {model.num_classes} classes" if family else "no model"
    records = ", ".join(pipeline.train_input_reader.tf_record_input_reader.input_path)
    optimizer = (config.optimizer.WhichOneof("optimizer") or "none").removesuffix("_optimizer")
    source = f"checkpoint {config.fine_tune_checkpoint}" if config.fine_tune_checkpoint else "random weights"
    return [
        f"train {network}, from {source}",
        f"data {records}; batch {config.batch_size} on {described(strategy)}",
        f"to step {steps or config.num_steps} with {optimizer}" + (f"; into {model_dir}" if model_dir else ""),
    ]


def as_json(result: TrainingResult) -> dict[str, Any]:
    """All of a run's result but the model itself, which is in its folder."""
    return {field.name: getattr(result, field.name) for field in dataclasses.fields(result) if field.name != "model"}


def summarize(result: TrainingResult, model_dir: str, say: Callable[[str], None]) -> None:
    """What a run left, how fast it was, and the next step."""
    from tfod_zoo.training.evaluation import main_figures
    from tfod_zoo.training.progress import spoken_duration

    say(f"step {result.step}: saved {result.checkpoint}")
    if result.steps_per_second:
        per_step = 1.0 / result.steps_per_second
        say(f"{per_step:.2f} s a step; 1000 steps take {spoken_duration(1000 * per_step)} here")
    if result.metrics:
        say(f"{main_figures(result.metrics)} on the eval reader; the best checkpoint is in {model_dir}/best")
    folder = shlex.quote(model_dir)  # to be pasted, spaces and all
    say(f"curves: tensorboard --logdir {folder}")
    say(f"next: tfod-zoo eval --model-dir {folder}, or tfod-zoo detect {folder} IMAGES")
