"""How much of the network's own throughput `tfod-zoo detect` keeps, reading, drawing and writing beside it.

    python benchmarks/detect.py [IMAGES] [MODEL]

JPEG files of 640x480 are made on the spot, and looked at with random weights; whatever they find is drawn: 20 or 100
detections an image, more than a photograph has. The whole way takes turns with the network alone, by one image a call
and in the same batches, so that other work on the machine slows all. Prints what each does, and the memory at the
beginning and the end; exits 1 where the whole way does less than 0.9 of what the network does by one image a call.
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
from tfod_zoo.pictures.stream import batch_size_for

MODEL = "centernet_mobilenetv2fpn_512x512_coco17_od"
IMAGES = 200
A_TURN = 48  # of which the first image is waited for, and the last drawing
WANTED = 0.9


def write_images(folder: Path, count: int) -> None:
    """Photograph-like pictures, each shifted by another amount."""
    pixels = photograph_like()
    for number in range(count):
        Image.fromarray(np.roll(pixels, 13 * number, axis=1)).save(folder / f"{number:05}.jpg", quality=90)


def look(model: tfod_zoo.DetectionModel, images: tf.Tensor, times: int) -> None:
    for _ in range(times):
        for value in model.detect(images).values():
            value.numpy()


def main() -> int:
    count = int(sys.argv[1]) if len(sys.argv) > 1 else IMAGES
    count = -(-count // A_TURN) * A_TURN
    tf_keras.utils.set_random_seed(0)
    model = tfod_zoo.load(sys.argv[2] if len(sys.argv) > 2 else MODEL, weights="random")
    batch_size = batch_size_for(model, A_TURN)
    image, batch = (tf.constant(np.stack([photograph_like()] * rows)) for rows in (1, batch_size))
    with tempfile.TemporaryDirectory() as scratch:
        (Path(scratch) / "in").mkdir()
        write_images(Path(scratch) / "in", count)
        inputs = find_inputs([f"{scratch}/in"])
        places = picture_paths(inputs, Path(scratch) / "out")
        with Results(Path(scratch) / "out", {}) as results:
            detector = FileDetector(model, places, results, 0.0, lambda label, total: nullcontext(lambda done: None))
            ways = {
                "one by one": lambda turn: look(model, image, len(turn)),
                f"by {batch_size}": lambda turn: look(model, batch, len(turn) // batch_size),
                "whole": detector.look_at,
            }
            for way in ways.values():
                way(inputs[:batch_size])
            memory = peak_memory_bytes()
            seconds = dict.fromkeys(ways, 0.0)
            for start in range(0, count, A_TURN):
                for name, way in ways.items():
                    began = time.perf_counter()
                    way(inputs[start : start + A_TURN])
                    seconds[name] += time.perf_counter() - began
    whole = seconds.pop("whole")
    print(machine_line(describe_machine()))
    kept = ", ".join(f"{name} {count / alone:.1f} ({alone / whole:.2f} kept)" for name, alone in seconds.items())
    print(f"{count} images: detect {count / whole:.1f} images/s; the network alone {kept}; peak memory "
          f"{memory / 2**20:.0f} MiB at the start, {peak_memory_bytes() / 2**20:.0f} at the end")  # fmt: skip
    return 0 if seconds["one by one"] / whole >= WANTED else 1


if __name__ == "__main__":
    sys.exit(main())
