"""One benchmark entry, measured in a process of its own, so that no entry's memory or failure touches another's.

    echo '{"model": ...}' | python -m tfod_zoo.benchmark.worker [MATCHES.npz]

reads an `Entry` as JSON from standard input and writes its row as the last line of standard output, in JSON; lines
before it, {"evaluated": N}, are progress. With a data set, its matches of each image go to MATCHES.npz. Everything else
that is printed on the way goes to standard error.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import tfod_zoo
from tfod_zoo.benchmark.entry import Entry
from tfod_zoo.benchmark.loading import export_apart, load_model
from tfod_zoo.benchmark.runtimes import SAVED_MODEL
from tfod_zoo.errors import ZooError, reason_of
from tfod_zoo.export import formats
from tfod_zoo.export.formats import REPORT


def measure(
    entry: Entry, on_images: Callable[[int], None] = lambda done: None, matches: Path | None = None
) -> dict[str, Any]:
    """The measured fields of the entry's row; `on_images` hears how many images mAP has seen.

    `matches` is a file to keep the matches on each image in (`image_matches`), where boxes are measured.

    Latency is of `detect`, end to end: from uint8 images of `picture.HEIGHT` x `picture.WIDTH` in host memory to
    detections in host memory, resizing and post-processing included. Memory is the whole process's, read before
    operations are counted and mAP is evaluated, which need memory of their own. Another runtime's files are made by a
    process of their own.
    """
    if entry.runtime not in formats.PRECISIONS:
        return _measure(entry, None, on_images, matches)
    with tempfile.TemporaryDirectory() as folder:
        return _measure(entry, export_apart(entry, Path(folder)), on_images, matches)


def _measure(
    entry: Entry, exported: Path | None, on_images: Callable[[int], None], matches: Path | None
) -> dict[str, Any]:
    import numpy as np
    import tensorflow as tf

    from tfod_zoo.benchmark import machine, operations, picture, timing
    from tfod_zoo.benchmark.runtimes import exported as another
    from tfod_zoo.benchmark.runtimes import saved_model, tensorflow

    before = machine.peak_memory_bytes()
    if entry.threads:
        tf.config.threading.set_intra_op_parallelism_threads(entry.threads)
    model = detect_step = None
    if entry.runtime == SAVED_MODEL:
        detect = saved_model.load(entry)
    elif exported is None:
        model = load_model(entry)
        detect, detect_step = tensorflow.load(model, entry.runtime, entry.precision)
    else:
        model = tfod_zoo.build(tfod_zoo.read_pipeline(exported / "pipeline.config"))
        detect, detect_step = another.load(model, exported, entry.threads)
    images = np.repeat(picture.photograph_like()[None], entry.batch_size, axis=0)
    timed = timing.time_calls(
        lambda: detect(images), min_calls=entry.min_calls, min_seconds=entry.min_seconds
    )
    row: dict[str, Any] = {
        "device": _device_name(tf),
        **({"export": json.loads((exported / REPORT).read_text())} if exported else {}),
        "picture": f"uint8 {picture.HEIGHT}x{picture.WIDTH}x3",
        **timed.summary(entry.batch_size),
        "peak_memory_mib": machine.peak_memory_bytes() / 2**20,
        "memory_before_model_mib": before / 2**20,
    }
    if model is not None:
        row["canvas"] = list(model.input_shape_hw)
        row["parameters"] = sum(int(np.prod(variable.shape)) for variable in model.trainable_variables)
        row["gflop"] = operations.network_operations(model) / 1e9
    if entry.dataset:
        row.update(_evaluate(model, detect_step, entry, on_images, matches))
    return row


def _evaluate(
    model: Any, detect_step: Any, entry: Entry, on_images: Callable[[int], None], matches: Path | None
) -> dict[str, Any]:
    from tfod_zoo.benchmark.image_matches import matches_of
    from tfod_zoo.evaluation.pipeline_data import evaluate_pipeline, with_eval_data

    dataset = None if entry.dataset == "config" else entry.dataset
    pipeline = with_eval_data(model.pipeline, dataset, entry.label_map)
    images = 0

    def on_progress(done: int) -> None:
        nonlocal images
        images = done
        on_images(done)

    def keep(evaluator: Any) -> None:
        if matches:
            matches_of(evaluator).save(matches)

    metrics = evaluate_pipeline(
        model,
        pipeline,
        limit=entry.limit,
        per_category=True,
        on_progress=on_progress,
        on_boxes=keep,
        detect_step=detect_step,
    )
    per_category = metrics.pop("per_category", None)  # a model without boxes has none
    by_class = {"per_class_ap": per_category} if per_category else {}
    kept = {"matches": matches.name} if matches and matches.is_file() else {}
    return {"metrics": metrics, "evaluated_images": images, **by_class, **kept}


def _device_name(tf: Any) -> str:
    gpus = tf.config.list_physical_devices("GPU")
    if not gpus:
        return "CPU"
    return tf.config.experimental.get_device_details(gpus[0]).get("device_name", "GPU")


def main() -> int:
    """Measures the entry on standard input; the row tells of a failure, so the exit code is 0 with a row in hand."""
    row_stream = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # whatever libraries print must not mix with the row
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    entry = Entry.from_json(json.load(sys.stdin))
    matches = Path(sys.argv[1]) if len(sys.argv) > 1 else None

    def write(line: dict[str, Any]) -> None:
        row_stream.write(json.dumps(line) + "\n")
        row_stream.flush()

    try:
        row: dict[str, Any] = {"status": "ok", **measure(entry, lambda done: write({"evaluated": done}), matches)}
    except ZooError as error:
        row = {"status": "failed", "reason": str(error)}
    except Exception as error:  # any failure is a row with its reason; the trace goes to the log
        traceback.print_exc()
        row = {"status": "failed", "reason": f"{type(error).__name__}: {reason_of(error)}"}
    write(row)
    row_stream.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
