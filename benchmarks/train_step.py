"""What a training step costs, in units (`units.py`), beside TFOD's own.

    python benchmarks/train_step.py [MODEL]

One step as `tfod-zoo train` runs it, with the recipe's optimizer, on given images with 100 padded boxes of which 5 are
real; random weights. Exits 1 where a step takes more units or memory than its bound.
"""

import sys
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from units import cost_of, run_each


@dataclass(frozen=True)
class Step:
    """A model's batch, the units and GB that TFOD's own step took (2 CPU cores, the same unit), and our bound."""

    batch: int
    tfod_units: float
    tfod_gb: float
    most_units: float


STEPS = {
    "centernet_mobilenetv2fpn_512x512_coco17_od": Step(2, 11.1, 2.4, 8.0),
    "faster_rcnn_resnet50_v1_640x640_coco17_tpu-8": Step(1, 27.0, 2.6, 21.0),
}
ROUNDS = 15
OBJECTS, PADDED = 5, 100  # in a training image
GB_IN_GIB = 1e9 / 2**30


def train_step(name: str, batch: int) -> Callable[[], object]:
    """One step on given images, losses in host memory."""
    import tensorflow as tf

    import tfod_zoo
    from tfod_zoo.training.optimizer import build_optimizer
    from tfod_zoo.training.task import DetectionTask

    pipeline = tfod_zoo.generate_pipeline(name, hardware="cpu", batch_size=batch)
    pipeline.train_config.fine_tune_checkpoint = ""
    task = DetectionTask(pipeline)
    model = task.build_model()
    optimizer = build_optimizer(pipeline.train_config.optimizer)
    rng = np.random.default_rng(0)
    height, width = model.input_shape_hw
    corner = rng.uniform(0.0, 0.5, (batch, OBJECTS, 2))
    boxes = np.zeros((batch, PADDED, 4), np.float32)
    boxes[:, :OBJECTS] = np.concatenate([corner, corner + rng.uniform(0.1, 0.5, (batch, OBJECTS, 2))], -1)
    there = np.tile(np.arange(PADDED)[None] < OBJECTS, [batch, 1])
    features = {
        "image": tf.random.uniform([batch, height, width, 3], maxval=255.0),
        "true_image_shape": tf.constant([[height, width, 3]] * batch),
    }
    groundtruth = {
        "boxes": tf.constant(boxes),
        "classes": tf.zeros([batch, PADDED], tf.int32),
        "weights": tf.constant(there, tf.float32),
        "is_crowd": tf.zeros([batch, PADDED], tf.bool),
        "num_boxes": tf.constant([OBJECTS] * batch),
    }
    step = tf.function(lambda: task.train_step((features, groundtruth), model, optimizer), autograph=False)
    return lambda: [value.numpy() for value in step().values()]


def measure(name: str) -> int:
    """Prints one line; 0 if it is within the bounds."""
    bound = STEPS[name]
    cost = cost_of(train_step(name, bound.batch), ROUNDS)
    print(
        f"{name}, batch {bound.batch}: {cost} (at most {bound.most_units:g}, and less than TFOD's "
        f"{bound.tfod_gb:g} GB; TFOD: {bound.tfod_units:g} units)",
        flush=True,
    )
    return 0 if cost.units <= bound.most_units and cost.peak_gib < bound.tfod_gb * GB_IN_GIB else 1


if __name__ == "__main__":
    sys.exit(run_each(__file__, list(STEPS), measure))
