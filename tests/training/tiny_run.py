"""A short training of a tiny detector, here or in a process of its own, where devices can be divided and it can die.

    python tiny_run.py FOLDER '{"kind": "center_net", "replicas": 2, "steps": 20}'

Its losses, a point a step, and its variables go to FOLDER/result.npz; with TF_CONFIG it is one of several workers.
"""

import json
import os
import sys
from functools import partial
from pathlib import Path

import numpy as np
import tensorflow as tf

from tfod_zoo.config.generate import generate_pipeline
from tfod_zoo.config.pipeline import merge_text
from tfod_zoo.data.shapes import prepare_shapes
from tfod_zoo.training import run
from tfod_zoo.training.devices import make_strategy, worker_index

SIZE = 64
# Momentum, so that one step's rounding is carried to the next.
_OPTIMIZER = """
train_config { optimizer { use_moving_average: false momentum_optimizer { momentum_optimizer_value: 0.9 learning_rate {
  constant_learning_rate { learning_rate: %g } } } } }
"""
# Slow enough that rounding does not grow over the steps, fast enough that weights move.
_RATES = {"center_net": 4e-6, "faster_rcnn": 1e-4}
_TINY = {
    "center_net": 'model { center_net { feature_extractor { type: "hourglass_10" } } }',
    # Its samplers choose at random, by a seed of the image's, and its gradients are large enough to be clipped.
    "faster_rcnn": """model { faster_rcnn { first_stage_max_proposals: 12 second_stage_batch_size: 4 } }
        train_config { gradient_clipping_by_norm: 1.0 }""",
}
_ZOO_MODEL = {
    "center_net": "centernet_mobilenetv2fpn_512x512_coco17_od",
    "faster_rcnn": "faster_rcnn_resnet50_v1_640x640_coco17_tpu-8",
}


def tiny_shapes(folder: Path):
    """Training and validation data and their label map; made at the first call."""
    return prepare_shapes(folder, train=16, validation=4, image_size=SIZE, seed=3)


def tiny_pipeline(shapes: Path, kind: str, batch: int = 4):
    training, validation, label_map = tiny_shapes(shapes)
    pipeline = generate_pipeline(
        _ZOO_MODEL[kind],
        hardware="cpu",
        batch_size=batch,
        label_map=label_map,
        train_records=training,
        eval_records=validation,
        fine_tune_checkpoint="",
        image_size=SIZE,
    )
    pipeline.train_config.optimizer.Clear()
    return merge_text(merge_text(pipeline, _TINY[kind]), _OPTIMIZER % _RATES[kind])


def tiny_train(folder: Path, *, kind: str, batch: int = 4, strategy=None, say=print, **options):
    """Trains; data lie in `shapes` beside the folder. Options are those of `train`."""
    summary_every, run.SUMMARY_EVERY = run.SUMMARY_EVERY, 1
    try:
        pipeline = tiny_pipeline(folder.parent / "shapes", kind, batch)
        result = run.train(pipeline, folder, seed=1, strategy=strategy, say=say, **options)
    finally:
        run.SUMMARY_EVERY = summary_every
    variables = {key: value.numpy() for key, value in result.model.keyed_variables.items()}
    return {"losses": np.array([loss for _, loss in result.losses]), **variables}


def main(folder: Path, *, replicas: int | None = None, deterministic: bool = False, **options) -> None:
    if deterministic:
        tf.config.experimental.enable_op_determinism()
    strategy = make_strategy("cpu", replicas)
    result = tiny_train(folder, strategy=strategy, say=partial(print, flush=True), **options)
    if worker_index(strategy) == 0:
        np.savez(folder / "result.part.npz", **result)
        os.replace(folder / "result.part.npz", folder / "result.npz")


if __name__ == "__main__":
    main(Path(sys.argv[1]), **json.loads(sys.argv[2]))
