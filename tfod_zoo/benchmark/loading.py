"""An entry's model with its weights, and its export where another runtime is to run it.

    echo '{"model": ...}' | python -m tfod_zoo.benchmark.loading FOLDER

exports in a process of its own, whose memory is then none of the runtime's; a failure is one line on standard error.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tfod_zoo.benchmark.death import death_reason
from tfod_zoo.benchmark.entry import Entry
from tfod_zoo.errors import UsageError, ZooError

if TYPE_CHECKING:
    import numpy as np

_REFUSED = 3  # exit code with a sentence for the user; Python's own for a trace is 1
_IMAGES = 32  # of the data set, that an export is fitted to and compared on


def load_model(entry: Entry) -> Any:
    """The model with the entry's weights and canvas."""
    import tfod_zoo
    from tfod_zoo.benchmark.input_size import set_input_size
    from tfod_zoo.modeling.checkpoint import newest_checkpoint

    weights = entry.weights
    if weights not in ("zoo", "random") and Path(weights).is_dir():
        weights = newest_checkpoint(weights)
    model = tfod_zoo.load(entry.model, weights=weights, store=entry.store)
    if entry.input_size is None or tuple(model.input_shape_hw) == entry.input_size:
        return model
    resized = tfod_zoo.build(set_input_size(model.pipeline, entry.input_size))
    # Same network, another canvas: its variables do not depend on the canvas.
    resized.set_weights(model.get_weights())
    return resized


def export_apart(entry: Entry, folder: Path) -> Path:
    """The model as files for `entry.runtime`, in a folder under `folder`.

    Raises:
      ZooError: it cannot be exported; why, in one sentence.
    """
    command = [sys.executable, "-m", "tfod_zoo.benchmark.loading", str(folder)]
    done = subprocess.run(command, input=json.dumps(asdict(entry)), text=True, capture_output=True, check=False)
    if done.returncode == _REFUSED:
        raise ZooError(done.stderr.strip().splitlines()[-1])
    if done.returncode:
        raise ZooError(death_reason("exporting", done.returncode, done.stderr))
    return next(folder.iterdir())


def _export(entry: Entry, folder: str) -> None:
    from tfod_zoo.export.agreement import QUANTIZED
    from tfod_zoo.export.exported import export_networks

    trained = entry.weights != "random"
    if entry.precision == "int8" and trained and not entry.dataset:
        raise UsageError("int8 is fitted to data; add --dataset.")
    model = load_model(entry)
    # With a data set, the row itself will say what quantising costs.
    lenient = not trained or (bool(entry.dataset) and entry.precision in QUANTIZED)
    export_networks(
        model, folder, _images(model, entry), format=entry.runtime, precision=entry.precision,
        made_of=entry.weights_name, lenient=lenient,
    )  # fmt: skip


def _images(model: Any, entry: Entry) -> Sequence[np.ndarray]:
    """What the export is compared on, uint8 `[H, W, 3]` each: of the data set where there is one."""
    if not entry.dataset:
        from tfod_zoo.benchmark.picture import photograph_like
        from tfod_zoo.certification.certificate import generated_images

        return [photograph_like(), *generated_images()]
    from tfod_zoo.evaluation.pipeline_data import first_images, with_eval_data

    dataset = None if entry.dataset == "config" else entry.dataset
    return first_images(with_eval_data(model.pipeline, dataset, entry.label_map), _IMAGES)


def main() -> int:
    """Exports the entry on standard input."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    entry = Entry.from_json(json.load(sys.stdin))
    try:
        _export(entry, sys.argv[1])
    except ZooError as error:
        print(error, file=sys.stderr)
        return _REFUSED
    return 0


if __name__ == "__main__":
    sys.exit(main())
