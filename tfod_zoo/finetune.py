"""Fine-tuning of a zoo model on a folder of images, from data to a measured detector."""

from __future__ import annotations

import gc
import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import tensorflow as tf

from tfod_zoo.config.generate import FINE_TUNE_STEPS, generate_pipeline
from tfod_zoo.config.label_map import read_label_map
from tfod_zoo.config.pipeline import apply_override, read_pipeline
from tfod_zoo.config.recipes import RECIPES
from tfod_zoo.data.check import Part, read_images
from tfod_zoo.data.folder import DataSet, find_data
from tfod_zoo.errors import UsageError, ZooError
from tfod_zoo.evaluation.moving_average import restore_for_evaluation
from tfod_zoo.export.saved_model import export_saved_model
from tfod_zoo.modeling.checkpoint import newest_checkpoint
from tfod_zoo.modeling.factory import build
from tfod_zoo.training.checkpoints import BEST
from tfod_zoo.training.devices import described, device_kind, make_strategy, worker_index
from tfod_zoo.training.run import DoesNotFitError, TrainingResult, train

_NOTES = "finetune.json"
_HARDWARE = {"CPU": "cpu", "GPU": "gpu", "TPU": "tpu-8"}  # of `generate_pipeline`
EXPORT = "export"
_EXPORT_IMAGES = 4  # that the export is compared on
_EVALUATIONS = 4  # over a run, where the user does not say


def finetune(
    name: str,
    data: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    steps: int | None = None,
    batch_size: int | None = None,
    learning_rate: float | None = None,
    image_size: int | None = None,
    checkpoint: str | None = None,
    overrides: Sequence[str] = (),
    eval_every: int | None = None,
    strategy: tf.distribute.Strategy | None = None,
    say: Callable[[str], None] = print,
    on_import: Callable[[int], None] = lambda done: None,
    **options: Any,
) -> TrainingResult:
    """Imports the data, writes the config, restores the model's zoo checkpoint, trains, evaluates and exports.

    The same call goes on where it stopped: with the data imported once, and the config of the beginning.

    Args:
      name: a zoo model.
      data: folder of images and annotations.
      out: the training folder; gets the records under `data/` and the best checkpoint's SavedModel under `export/`.
      steps: length of the schedule; default 2000.
      batch_size: global; default what the recipe has a core, bounded by what a CPU or a GPU is good for. One that does
        not fit into memory is halved, and the learning rate with it.
      learning_rate: default the recipe's, scaled to the batch.
      image_size: side of the network's input in pixels; default the published one.
      checkpoint: prefix to start from, "" for random weights; None for the zoo's, downloaded where it is missing.
      overrides: `FIELD=VALUE` for the generated config.
      eval_every: steps between evaluations; default a quarter of the steps.
      strategy: None for `make_strategy()`.
      say: takes lines for the user.
      on_import: called with the number of images imported.
      options: the others of `tfod_zoo.training.run.train`.

    Raises:
      UsageError: `out` belongs to the fine-tuning of another model or other data, or an option cannot be.
      DataError: the data cannot be used.
      ZooError: see `train`.
    """
    if "://" in str(out):
        raise UsageError(
            f"--out {out} cannot take the records; fine-tune into a folder of this machine, or bring the records there "
            "and use tfod-zoo config and tfod-zoo train --model-dir."
        )
    out, strategy = Path(out), strategy or make_strategy()
    begun = _begun(out, name, Path(data))
    if begun:
        pipeline = read_pipeline(out / "pipeline.config")
        steps = steps or pipeline.train_config.num_steps
    else:
        steps = steps or FINE_TUNE_STEPS
        # What cannot be is said before anything that takes long: numbers, data, a download, the import.
        generate_pipeline(
            name, batch_size=batch_size, num_steps=steps, learning_rate=learning_rate, image_size=image_size
        )
        found = find_data(Path(data), besides=out)
        if checkpoint is None:
            _bring_checkpoint(name, say)
        records = found.import_to(out / "data", on_import)
        say(records.description)
        for line in records.report.lines()[1:]:
            say(f"  {line}")
        pipeline = generate_pipeline(
            name,
            hardware=_HARDWARE[device_kind(strategy)],
            batch_size=batch_size or _batch(name, records, strategy),
            num_steps=steps,
            learning_rate=learning_rate,
            label_map=records.label_map,
            train_records=records.train_records,
            eval_records=records.eval_records,
            fine_tune_checkpoint=checkpoint,
            image_size=image_size,
        )
        for override in overrides:
            apply_override(pipeline, override)
        say(_reasons(name, pipeline, strategy))
        _note(out, name, Path(data))
    options["eval_every"] = eval_every or max(steps // _EVALUATIONS, 1)
    while True:
        try:
            result = train(pipeline, out, steps=steps, strategy=strategy, say=say, **options)
            break
        except DoesNotFitError as error:
            halved = pipeline.train_config.batch_size // 2
            if halved < strategy.num_replicas_in_sync:
                raise
            pipeline.train_config.batch_size = halved - halved % strategy.num_replicas_in_sync
            scale_learning_rate(pipeline.train_config.optimizer, 0.5)
            say(
                f"a batch of {2 * halved} did not fit into the memory of {described(strategy)}: halved to "
                f"{pipeline.train_config.batch_size}, the learning rate with it, and on from step {error.step}"
            )
        gc.collect()  # the graph of the step that did not fit
    if worker_index(strategy) == 0:
        _export(out, say)
    return result


def scale_learning_rate(optimizer: Any, factor: float) -> None:
    """Multiplies every rate of an Optimizer message's schedule."""
    message = getattr(optimizer, optimizer.WhichOneof("optimizer")).learning_rate
    schedule = getattr(message, message.WhichOneof("learning_rate"))
    for part in (schedule, *getattr(schedule, "schedule", ())):
        for field in part.DESCRIPTOR.fields:
            if "learning_rate" in field.name:
                setattr(part, field.name, getattr(part, field.name) * factor)


def _export(out: Path, say: Callable[[str], None]) -> None:
    """Exports the best checkpoint, or the newest where none was evaluated, beside the run."""
    folder = out / BEST if (out / BEST / "checkpoint").is_file() else out
    pipeline, checkpoint = read_pipeline(out / "pipeline.config"), newest_checkpoint(folder)
    model = build(pipeline)
    restore_for_evaluation(model, checkpoint, pipeline)
    reader = pipeline.eval_input_reader[0]
    part = Part("eval", tuple(reader.tf_record_input_reader.input_path), read_label_map(reader.label_map_path))
    images = [record["image"] for record in read_images(part, set(range(_EXPORT_IMAGES)))]
    export_saved_model(
        model, out / EXPORT, [image for image in images if image.size], made_of=str(checkpoint), say=say
    )


def _begun(out: Path, name: str, data: Path) -> bool:
    """Whether the folder has a checkpoint of this fine-tuning."""
    if tf.train.latest_checkpoint(str(out)) is None:
        return False
    notes = out / _NOTES
    known = json.loads(notes.read_text()) if notes.is_file() else {}
    if known != {"model": name, "data": str(data.resolve())}:
        what = f"the fine-tuning of {known['model']} on {known['data']}" if known else "another training"
        raise UsageError(f"{out} holds {what}; give another --out, or what it was begun with.")
    return True


def _note(out: Path, name: str, data: Path) -> None:
    try:
        out.mkdir(parents=True, exist_ok=True)
        (out / _NOTES).write_text(json.dumps({"model": name, "data": str(data.resolve())}) + "\n")
    except OSError as error:
        raise ZooError(f"{out} cannot be written to ({error.strerror}); give another --out.") from error


def _bring_checkpoint(name: str, say: Callable[[str], None]) -> None:
    from tfod_zoo.zoo.registry import get_model
    from tfod_zoo.zoo.store import download, is_downloaded

    if get_model(name).date is None or is_downloaded(name):
        return  # never published: the generator says what to do
    say(f"fetching the zoo's checkpoint of {name} (or begin with --checkpoint none)")
    download(name)


def _batch(name: str, records: DataSet, strategy: tf.distribute.Strategy) -> int:
    """What the generator takes for one device, times the devices, and not more than the recipe's own."""
    kind, replicas = device_kind(strategy), strategy.num_replicas_in_sync
    recipe = RECIPES[name]
    if kind == "TPU":
        return max(recipe.batch_size * replicas // recipe.cores, replicas)
    single = generate_pipeline(
        name,
        hardware=_HARDWARE[kind],
        label_map=records.label_map,
        train_records=records.train_records,
        eval_records=records.eval_records,
        fine_tune_checkpoint="",
    ).train_config.batch_size
    if kind == "CPU":  # parts of one CPU share its memory
        return max(single // replicas, 1) * replicas
    return max(min(single * replicas, recipe.batch_size) // replicas, 1) * replicas


def _reasons(name: str, pipeline: Any, strategy: tf.distribute.Strategy) -> str:
    recipe, config = RECIPES[name], pipeline.train_config
    rate = base_learning_rate(config.optimizer)
    law = "in proportion to" if recipe.optimizer == "momentum" else "with the square root of"
    return (
        f"batch {config.batch_size} on {described(strategy)} (the recipe: {recipe.batch_size} on {recipe.cores} cores)"
        f", learning rate {rate:.3g} (the recipe: {recipe.learning_rate:g}, which goes {law} the batch), "
        f"{config.num_steps} steps"
    )


def base_learning_rate(optimizer: Any) -> float:
    """The rate that an Optimizer message's schedule starts from, after any warm-up."""
    message = getattr(optimizer, optimizer.WhichOneof("optimizer")).learning_rate
    schedule = getattr(message, message.WhichOneof("learning_rate"))
    names = ("learning_rate_base", "initial_learning_rate", "learning_rate")
    return float(next(getattr(schedule, name) for name in names if hasattr(schedule, name)))
