"""How much of the network's own throughput `tfod-zoo detect` keeps, reading, drawing and writing beside it.

    python benchmarks/detect.py [IMAGES] [MODEL]

JPEG files of 640x480 are made on the spot, and looked at with random weights; whatever they find is drawn: 20 or 100
detections an image, more than a photograph has. The network alone and the whole way take turns, so that other work on
the machine slows both. Prints the ratio and the memory at the beginning and the end; exits 1 below 0.9.
"""

import os
import sys
import tempfile
import time
from contextlib import nullcontext
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
import tensorflow as tf
import tf_keras
from PIL import Image

import tfod_zoo
from tfod_zoo.benchmark.machine import describe_machine, machine_line, peak_memory_bytes
from tfod_zoo.benchmark.picture import photograph_like
from tfod_zoo.pictures.files import FileDetector
from tfod_zoo.pictures.inputs import find_inputs, picture_paths
from tfod_zoo.pictures.results import Results

MODEL = "centernet_mobilenetv2fpn_512x512_coco17_od"
IMAGES = 200
A_TURN = 50  # of which the first image is waited for, and the last drawing
WANTED = 0.9


def write_images(folder: Path, count: int) -> None:
    """Photograph-like pictures, each shifted by another amount."""
    pixels = photograph_like()
    for number in range(count):
        Image.fromarray(np.roll(pixels, 13 * number, axis=1)).save(folder / f"{number:05}.jpg", quality=90)


def main() -> int:
    count = int(sys.argv[1]) if len(sys.argv) > 1 else IMAGES
    tf_keras.utils.set_random_seed(0)
    model = tfod_zoo.load(sys.argv[2] if len(sys.argv) > 2 else MODEL, weights="random")
    image = tf.constant(photograph_like()[None])
    network_seconds = whole_seconds = 0.0
    with tempfile.TemporaryDirectory() as scratch:
        (Path(scratch) / "in").mkdir()
        write_images(Path(scratch) / "in", count)
        inputs = find_inputs([f"{scratch}/in"])
        places = picture_paths(inputs, Path(scratch) / "out")
        with Results(Path(scratch) / "out", {}) as results:
            detector = FileDetector(model, places, results, 0.0, lambda label, total: nullcontext(lambda done: None))
            detector.look_at(inputs[:2])
            memory = peak_memory_bytes()
            for start in range(0, count, A_TURN):
                turn = inputs[start : start + A_TURN]
                began = time.perf_counter()
                for _ in turn:
                    for value in model.detect(image).values():
                        value.numpy()
                between = time.perf_counter()
                detector.look_at(turn)
                network_seconds += between - began
                whole_seconds += time.perf_counter() - between
    ratio = network_seconds / whole_seconds
    print(machine_line(describe_machine()))
    print(f"{count} images: network alone {count / network_seconds:.1f} images/s, detect {count / whole_seconds:.1f}, "
          f"{ratio:.2f} of it; peak memory {memory / 2**20:.0f} MiB after 2 images, {peak_memory_bytes() / 2**20:.0f} "
          "at the end")  # fmt: skip
    return 0 if ratio >= WANTED else 1


if __name__ == "__main__":
    sys.exit(main())
