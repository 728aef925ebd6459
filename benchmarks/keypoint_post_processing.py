"""What decoding boxes and keypoints costs beside the network itself, at the zoo's size (512x512, batch 1).

    python benchmarks/keypoint_post_processing.py

Random weights, one image, the network alone and with post-processing in turn, so that a busy machine slows both; of
three calls the fastest counts, and the median of the ratios is what is said. Exits 1 where it is a tenth or more.
"""

import os
import sys
import time
from collections.abc import Callable

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
import tensorflow as tf

import tfod_zoo
from tfod_zoo.benchmark.machine import describe_machine, machine_line
from tfod_zoo.benchmark.picture import photograph_like

MODELS = ("centernet_resnet50_v2_512x512_kpts_coco17_tpu-8", "centernet_mobilenetv2fpn_512x512_coco17_kpts")
PAIRS = 20
TRIES = 3  # what else the machine does comes in bursts
ALLOWED_SHARE = 0.10  # of the network's own time


def measure(name: str) -> tuple[float, float]:
    """Seconds of the network alone, and the share that post-processing adds."""
    model = tfod_zoo.load(name, weights="random")
    inputs, shapes = model.preprocess(photograph_like()[None])

    @tf.function
    def network(inputs: tf.Tensor, shapes: tf.Tensor) -> dict:
        return model(inputs, shapes, training=False)

    @tf.function
    def whole(inputs: tf.Tensor, shapes: tf.Tensor) -> dict:
        return model.postprocess(model(inputs, shapes, training=False), shapes)

    def seconds(function: Callable) -> float:
        start = time.perf_counter()
        tf.nest.map_structure(lambda tensor: tensor.numpy(), function(inputs, shapes))
        return time.perf_counter() - start

    def pair() -> tuple[float, float]:
        both = [(seconds(network), seconds(whole)) for _ in range(TRIES)]
        return min(alone for alone, _ in both), min(together for _, together in both)

    pair()  # traces and warms up
    pairs = [pair() for _ in range(PAIRS)]
    share = float(np.median([together / alone for alone, together in pairs])) - 1
    return float(np.median([alone for alone, _ in pairs])), share


def main() -> int:
    print(machine_line(describe_machine()))
    worst = 0.0
    for name in MODELS:
        alone, share = measure(name)
        worst = max(worst, share)
        print(f"{name}: network {1e3 * alone:.1f} ms, post-processing {share:+.1%}")
    return 0 if worst < ALLOWED_SHARE else 1


if __name__ == "__main__":
    sys.exit(main())
