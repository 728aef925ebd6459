"""The whole way through the package without a network: data, config, training, evaluation, benchmark."""

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

MODEL = "centernet_mobilenetv2fpn_512x512_coco17_od"

# Small enough to train from random weights in minutes on two CPU cores, large enough for a box mAP well over 0.5.
IMAGE_SIZE = 128
IMAGES = (120, 160)  # largest height and width
TRAIN_EXAMPLES, VALIDATION_EXAMPLES = 1000, 100
BATCH_SIZE = 16
STEPS = 600
LEARNING_RATE = 3e-3
# The recipe's crop and its padding by up to 200 pixels are made for photographs: these images would become specks.
LEFT_OUT = ("random_crop_image", "random_absolute_pad_image")


@dataclass(frozen=True)
class QuickstartResult:
    """What `quickstart` left in its folder: metrics under TFOD's names, the benchmark's row, the files to look at."""

    folder: Path
    metrics: dict[str, Any]
    row: dict[str, Any]
    files: tuple[Path, ...]


def quickstart(
    folder: str | os.PathLike,
    *,
    steps: int = STEPS,
    seed: int = 0,
    say: Callable[[str], None] = print,
    on_progress: Callable[[Any], None] | None = None,
) -> QuickstartResult:
    """Makes the shapes data set, trains a small CenterNet on it from random weights, evaluates and benchmarks it.

    Run again on the same folder, it goes on where it stopped.

    Args:
      folder: takes `data/`, `pipeline.config`, `model/` (checkpoints, TensorBoard curves) and `benchmark/`.
      steps: training steps.
      seed: of data, weights and augmentation.
      say: takes lines for the user.
      on_progress: takes the training's progress.

    Raises:
      ZooError: the folder cannot be written, or was begun with other settings.
    """
    from tfod_zoo.benchmark.report import write_reports
    from tfod_zoo.benchmark.sweep import plan, run_sweep
    from tfod_zoo.config.pipeline import write_pipeline
    from tfod_zoo.data.shapes import prepare_shapes
    from tfod_zoo.errors import ZooError
    from tfod_zoo.training.run import train

    folder = Path(folder)
    say(f"1/4 data: {TRAIN_EXAMPLES} + {VALIDATION_EXAMPLES} images of coloured shapes, in {folder / 'data'}")
    train_path, validation_path, label_map = prepare_shapes(
        folder / "data", train=TRAIN_EXAMPLES, validation=VALIDATION_EXAMPLES, image_size=IMAGES, seed=seed
    )
    pipeline = _pipeline(label_map, train_path, validation_path, steps)
    write_pipeline(pipeline, folder / "pipeline.config")
    say(f"2/4 train: {MODEL} at {IMAGE_SIZE}x{IMAGE_SIZE}, {steps} steps of {BATCH_SIZE} images")
    result = train(pipeline, folder / "model", eval_every=steps, seed=seed, say=say, on_progress=on_progress)
    say("3/4 save: the trained model is a TFOD checkpoint, " + result.checkpoint)
    say("4/4 benchmark: a process of its own, 50 calls and 5 seconds at least")
    entries = plan([str(folder / "model")], dataset="config", weights="zoo")
    rows = run_sweep(entries, folder / "benchmark")
    files = write_reports(rows, folder / "benchmark")
    if rows[0]["status"] != "ok":
        raise ZooError(f"the benchmark of {folder / 'model'} failed: {rows[0]['reason']}")
    return QuickstartResult(folder, result.metrics, rows[0], tuple(files))


def _pipeline(label_map: Path, train_path: str, validation_path: str, steps: int) -> Any:
    from tfod_zoo.config.generate import generate_pipeline

    pipeline = generate_pipeline(
        MODEL,
        hardware="cpu",
        label_map=label_map,
        train_records=train_path,
        eval_records=validation_path,
        fine_tune_checkpoint="",
        image_size=IMAGE_SIZE,
        batch_size=BATCH_SIZE,
        num_steps=steps,
        learning_rate=LEARNING_RATE,
    )
    options = pipeline.train_config.data_augmentation_options
    for index in reversed(range(len(options))):
        if options[index].WhichOneof("preprocessing_step") in LEFT_OUT:
            del options[index]
    return pipeline
