"""What a call and a training step of Faster R-CNN ResNet-50 at 640x640 cost, in units that hold on any machine.

    python benchmarks/faster_rcnn.py [detect|train]

A unit is one float32 matrix product of 2048x2048 by 2048x2048 (17.2 GFLOP), timed in turn with what is measured, in the
same process. TFOD's own model took 17.8 units and 3.2 GB for a call on a 900x1352 photograph, whose arithmetic alone
is 12.25 units, and 27.0 units for a training step at batch 1. Random weights, whose detections cost as much as trained
ones: nothing is under the zoo's score threshold of 0. Exits 1 where a call takes more than 14.5 units or 2 GiB, or a
step more than 23 units.
"""

import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
from PIL import Image

from tfod_zoo.benchmark.machine import describe_machine, machine_line
from tfod_zoo.benchmark.picture import photograph_like

NAME = "faster_rcnn_resnet50_v1_640x640_coco17_tpu-8"
SIZE = 2048  # of the unit's matrices
PHOTOGRAPH = (1352, 900)  # width, height
ROUNDS = 15
MOST_UNITS = {"detect": 14.5, "train": 23.0}
MOST_MEMORY_GIB = {"detect": 2.0, "train": float("inf")}
OBJECTS, PADDED = 5, 100  # in the training image


def detect_call() -> Callable[[], object]:
    """A call of `detect`, from a photograph to detections in host memory."""
    import tensorflow as tf

    import tfod_zoo

    model = tfod_zoo.load(NAME, weights="random")
    photograph = np.asarray(Image.fromarray(photograph_like()).resize(PHOTOGRAPH))
    images = tf.constant(photograph[None])
    return lambda: [value.numpy() for value in model.detect(images).values()]


def train_step() -> Callable[[], object]:
    """One step of the recipe's optimizer on a given image, losses in host memory."""
    import tensorflow as tf

    import tfod_zoo
    from tfod_zoo.training.optimizer import build_optimizer
    from tfod_zoo.training.task import DetectionTask

    pipeline = tfod_zoo.generate_pipeline(NAME, hardware="cpu", batch_size=1)
    pipeline.train_config.fine_tune_checkpoint = ""
    task = DetectionTask(pipeline)
    model = task.build_model()
    optimizer = build_optimizer(pipeline.train_config.optimizer)
    rng = np.random.default_rng(0)
    height, width = model.input_shape_hw
    corner = rng.uniform(0.0, 0.5, (OBJECTS, 2))
    boxes = np.zeros((1, PADDED, 4), np.float32)
    boxes[0, :OBJECTS] = np.hstack([corner, corner + rng.uniform(0.1, 0.5, (OBJECTS, 2))])
    there = np.arange(PADDED)[None] < OBJECTS
    features = {
        "image": tf.random.uniform([1, height, width, 3], maxval=255.0),
        "true_image_shape": tf.constant([[height, width, 3]]),
    }
    groundtruth = {
        "boxes": tf.constant(boxes),
        "classes": tf.zeros([1, PADDED], tf.int32),
        "weights": tf.constant(there, tf.float32),
        "is_crowd": tf.zeros([1, PADDED], tf.bool),
        "num_boxes": tf.constant([OBJECTS]),
    }
    step = tf.function(lambda: task.train_step((features, groundtruth), model, optimizer), autograph=False)
    return lambda: [value.numpy() for value in step().values()]


def measure(kind: str) -> int:
    """Prints one line; 0 if it is within the bounds."""
    import tensorflow as tf

    call = {"detect": detect_call, "train": train_step}[kind]()
    matrix = tf.random.normal([SIZE, SIZE])
    product = tf.function(lambda: tf.reduce_sum(tf.matmul(matrix, matrix)))

    def seconds(function: Callable[[], object]) -> float:
        start = time.perf_counter()
        function()
        return time.perf_counter() - start

    def unit() -> float:
        return seconds(lambda: product().numpy())

    for _ in range(3):
        call()
        unit()
    pairs = [(np.mean([unit(), unit()]), seconds(call)) for _ in range(ROUNDS)]
    ratios = [taken / one for one, taken in pairs]
    low, units, high = np.percentile(ratios, [25, 50, 75])
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(
        f"{kind}: {units:.1f} units (quartiles {low:.1f} to {high:.1f}; bound {MOST_UNITS[kind]}), a unit "
        f"{1e3 * np.median([one for one, _ in pairs]):.0f} ms, peak {memory:.2f} GiB",
        flush=True,
    )
    return 0 if units <= MOST_UNITS[kind] and memory <= MOST_MEMORY_GIB[kind] else 1


def main() -> int:
    if len(sys.argv) > 1:
        return measure(sys.argv[1])
    print(machine_line(describe_machine()), flush=True)
    # Each in a process of its own, for the memory.
    return max(subprocess.run([sys.executable, __file__, kind], check=False).returncode for kind in MOST_UNITS)


if __name__ == "__main__":
    sys.exit(main())
