"""`tfod-zoo eval`: COCO metrics of a trained model."""

from __future__ import annotations

import argparse
import json
from typing import Any

from etils.epath import Path

from tfod_zoo.errors import UsageError, ZooError

HELP = "COCO metrics (boxes, and keypoints where the model has them) on a trained model's evaluation data"
EXAMPLE = """\
tfod-zoo eval --model-dir runs/cells
  tfod-zoo eval --model-dir runs/cells --follow
  tfod-zoo eval --model-dir runs/cells --dataset 'cells/test.record-*' --per-category
  tfod-zoo eval --pipeline pipeline.config --checkpoint runs/cells/ckpt-2000 --dataset tfds:coco/2017:validation"""

# TFOD's words for what is measured here; a config of its own may ask for others.
_METRICS_SETS = ("coco_detection_metrics", "coco_keypoint_metrics")
_NOT_DEFINED = -1.0
# Narrow enough for every terminal and, unlike a table fitted to the terminal, the same in a log.
_NAME_WIDTH = 42


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--model-dir", metavar="DIR",
                        help="a training folder: pipeline.config and its newest checkpoint")
    parser.add_argument("--pipeline", metavar="FILE",
                        help="a pipeline.config, with --checkpoint, in place of --model-dir")
    parser.add_argument("--checkpoint", metavar="PREFIX", help="checkpoint prefix, such as runs/cells/ckpt-2000")
    parser.add_argument("--follow", action="store_true",
                        help="evaluate every new checkpoint of a run that goes on elsewhere, and keep the best one")
    parser.add_argument("--timeout", type=float, metavar="S",
                        help="with --follow: seconds without a new checkpoint to end after (default 3600)")
    parser.add_argument("--dataset", metavar="RECORDS",
                        help="a glob, or tfds:NAME[/CONFIG]:SPLIT, in place of the config's")
    parser.add_argument("--label-map", metavar="FILE", help="the data's label map, in place of the config's")
    parser.add_argument("--set", dest="overrides", metavar="FIELD=VALUE", action="append", default=[],
                        help="change a field of the config first; may be repeated")
    parser.add_argument("--limit", type=int, metavar="N", help="evaluate the first N images only")
    parser.add_argument("--batch-size", type=int, metavar="N", help="images a batch (default 8); no effect on metrics")
    parser.add_argument("--per-category", action="store_true", help="AP of each category as well")
    parser.add_argument("--json", action="store_true", help="print JSON in place of the table")


def run(args: argparse.Namespace) -> int:
    if bool(args.model_dir) == bool(args.pipeline):
        raise UsageError("Give --model-dir DIR, or --pipeline FILE with --checkpoint PREFIX.")
    if args.pipeline and not args.checkpoint:
        raise UsageError("--pipeline needs --checkpoint PREFIX, such as runs/cells/ckpt-2000.")
    if args.follow and (args.pipeline or args.checkpoint or args.limit or args.per_category or args.json):
        raise UsageError("--follow goes with --model-dir, and with --dataset, --label-map, --set and --timeout alone.")
    if args.timeout is not None and not args.follow:
        raise UsageError("--timeout goes with --follow; add that, or leave it out.")
    for flag, value in (("--limit", args.limit), ("--batch-size", args.batch_size)):
        if value is not None and value < 1:
            raise UsageError(f"{flag} {value} is not a number of images; give 1 or more.")

    from tfod_zoo.config.pipeline import apply_override, read_pipeline
    from tfod_zoo.evaluation.pipeline_data import (
        DEFAULT_BATCH_SIZE,
        eval_label_map,
        evaluate_pipeline,
        with_eval_data,
    )

    if args.follow:
        return _follow(args)
    config = Path(args.pipeline) if args.pipeline else Path(args.model_dir) / "pipeline.config"
    if not config.is_file():
        raise UsageError(f"{config} does not exist; --model-dir is a training folder, --pipeline a pipeline.config.")
    pipeline = read_pipeline(config)
    for override in args.overrides:
        apply_override(pipeline, override)
    pipeline = with_eval_data(pipeline, args.dataset, args.label_map)
    eval_label_map(pipeline)  # refuses one that cannot be read

    # From here on TensorFlow is needed, which takes seconds to import: wrong use has been refused by now.
    import tfod_zoo
    from tfod_zoo.data.errors import DataProblems
    from tfod_zoo.data.input_pipeline import count_examples
    from tfod_zoo.evaluation.moving_average import restore_for_evaluation
    from tfod_zoo.evaluation.progress import ImageProgress
    from tfod_zoo.modeling.checkpoint import newest_checkpoint

    checkpoint = args.checkpoint or newest_checkpoint(args.model_dir)
    model = tfod_zoo.build(pipeline)
    report = restore_for_evaluation(model, str(checkpoint), pipeline)
    data = ", ".join(pipeline.eval_input_reader[0].tf_record_input_reader.input_path)
    total = count_examples(pipeline, training=False)
    total = args.limit if total is None else min(total, args.limit or total)
    images, problems = 0, DataProblems()
    with ImageProgress("eval", total) as progress:

        def on_progress(done: int) -> None:
            nonlocal images
            images = done
            progress(done)

        metrics = evaluate_pipeline(
            model, pipeline, batch_size=args.batch_size or DEFAULT_BATCH_SIZE, limit=args.limit,
            per_category=args.per_category, on_progress=on_progress, problems=problems,
        )
    result = {"checkpoint": str(checkpoint), "dataset": data, "images": images, "metrics": metrics}
    written = _write(result, Path(args.model_dir) / "eval.json") if args.model_dir else None
    if args.json:
        print(json.dumps(result, indent=2))
        return 0
    print(f"{report.summary()}\n{images} images of {data}")
    for line in problems.summary():
        print(f"data: {line}")
    print(metrics_table(metrics))
    others = [name for name in pipeline.eval_config.metrics_set if name not in _METRICS_SETS]
    if others:
        print(f"note: eval_config.metrics_set names {', '.join(others)}, which is not measured here; these are COCO's")
    if written:
        print(f"written: {written}")
    model_argument = args.model_dir or "MODEL_DIR"
    print(f"next: tfod-zoo benchmark {model_argument} --dataset config")
    return 0


def _follow(args: argparse.Namespace) -> int:
    from tfod_zoo.cli.train_command import quiet_tensorflow
    from tfod_zoo.config.pipeline import apply_override, read_pipeline
    from tfod_zoo.evaluation.pipeline_data import with_eval_data

    folder, pipeline = Path(args.model_dir), None
    if args.dataset or args.label_map or args.overrides:
        if not (folder / "pipeline.config").is_file():
            raise UsageError(f"{folder} has no pipeline.config yet to change; start the training first.")
        pipeline = read_pipeline(folder / "pipeline.config")
        for override in args.overrides:
            apply_override(pipeline, override)
        pipeline = with_eval_data(pipeline, args.dataset, args.label_map)
    quiet_tensorflow()
    from tfod_zoo.training.follow import TIMEOUT, follow

    print(f"follow {folder}", flush=True)
    timeout = TIMEOUT if args.timeout is None else args.timeout
    metrics = follow(folder, pipeline, timeout=timeout, say=lambda text: print(text, flush=True))
    print(metrics_table(metrics))
    print(f"next: tfod-zoo eval --model-dir {folder}/best")
    return 0


def metrics_table(metrics: dict[str, Any]) -> str:
    """TFOD's names and the values in 0..1, one a line; what is -1 is explained."""
    from tfod_zoo.evaluation.coco_keypoints import RECALL_NOTE

    rows = {name: value for name, value in metrics.items() if name != "per_category"}
    rows |= {f"AP of {name}": value for name, value in metrics.get("per_category", {}).items()}
    width = max(_NAME_WIDTH, *map(len, rows))
    lines = [f"{name:<{width}} {value:7.4f}" for name, value in rows.items()]
    if _NOT_DEFINED in rows.values():
        lines.append("-1: the data have no ground truth of that size or category.")
    if any(name.startswith("Keypoints_") for name in rows):
        lines.append(RECALL_NOTE)
    return "\n".join(lines)


def _write(result: dict[str, Any], path: Path) -> Path:
    try:
        path.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    except OSError as error:
        raise ZooError(f"Cannot write {path}: {error.strerror}; the metrics were {result['metrics']}.") from error
    return path
