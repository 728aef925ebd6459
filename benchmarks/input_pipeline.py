"""What the input pipeline alone gives, beside what a train step takes from it.

    python benchmarks/input_pipeline.py [SECONDS]

JPEG TFRecords of 640x480 are made on the spot from the synthetic shapes, and read by the published recipes with all
their augmentation. A train step takes the units that `train_step.py` allows it. Exits 1 where the pipeline is not at
least 3 times as fast as the step.
"""

import io
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
from PIL import Image
from units import make_unit, seconds_of

import tfod_zoo
from tfod_zoo.benchmark.machine import describe_machine, machine_line
from tfod_zoo.config.label_map import write_label_map
from tfod_zoo.data.input_pipeline import build_dataset
from tfod_zoo.data.record_writer import write_shards
from tfod_zoo.data.shapes import CLASSES, draw_example, shapes_label_map
from tfod_zoo.data.tf_example import ExampleObject, encode_example

RECIPES = (  # model, batch, units of a train step
    ("centernet_mobilenetv2fpn_512x512_coco17_od", 2, 8.0),
    ("faster_rcnn_resnet50_v1_640x640_coco17_tpu-8", 1, 21.0),
)
TIMES_THE_STEP = 3.0
SECONDS = 10.0  # a recipe
IMAGES, HEIGHT, WIDTH = 64, 480, 640


def records() -> Iterator[bytes]:
    """Examples as a COCO import writes them."""
    for number in range(IMAGES):
        pixels, shapes = draw_example(HEIGHT, WIDTH, f"benchmark/{number}")
        height, width = pixels.shape[:2]
        stream = io.BytesIO()
        Image.fromarray(pixels).save(stream, "JPEG", quality=90)
        objects = [
            ExampleObject(tuple(item.box / [height, width, height, width]),
                          CLASSES[item.label], item.label + 1, float(item.area))
            for item in shapes
        ]
        yield encode_example(stream.getvalue(), "jpeg", height, width, objects, source_id=str(number))


def seconds_a_batch(name: str, batch: int, paths: str, label_map: Path, seconds: float) -> float:
    """The pace of a recipe's batches once its buffers are full."""
    pipeline = tfod_zoo.generate_pipeline(name, hardware="cpu", batch_size=batch)
    reader = pipeline.train_input_reader
    reader.label_map_path = str(label_map)
    reader.tf_record_input_reader.input_path[:] = [paths]
    batches = iter(build_dataset(pipeline, training=True))
    for _ in range(10):
        next(batches)
    start, count = time.perf_counter(), 0
    while time.perf_counter() - start < seconds:
        next(batches)
        count += 1
    return (time.perf_counter() - start) / count


def main() -> int:
    unit = make_unit()
    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else SECONDS
    print(machine_line(describe_machine()), flush=True)
    fast = True
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        paths = write_shards(records(), folder, "train", 4)
        label_map = folder / "label_map.pbtxt"
        write_label_map(shapes_label_map(()), label_map)
        for name, batch, units in RECIPES:
            before = np.median([seconds_of(unit) for _ in range(7)])
            taken = seconds_a_batch(name, batch, paths, label_map, seconds)
            after = np.median([seconds_of(unit) for _ in range(7)])
            step = units * (before + after) / 2
            fast &= step / taken >= TIMES_THE_STEP
            print(
                f"{name}, batch {batch}: {batch / taken:.1f} examples/s, {1e3 * taken:.0f} ms a batch; a step of "
                f"{units:g} units takes {1e3 * step:.0f} ms: {step / taken:.1f} times as fast (at least "
                f"{TIMES_THE_STEP:g})",
                flush=True,
            )
    return 0 if fast else 1


if __name__ == "__main__":
    sys.exit(main())
