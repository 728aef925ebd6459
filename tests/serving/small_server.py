"""A small real detector with keypoints, images for it, and `tfod-zoo serve` around it in a process of its own."""

import contextlib
import io
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import tf_keras
from PIL import Image

import tfod_zoo
from tfod_zoo.config.pipeline import write_pipeline

NAME = "centernet_mobilenetv2fpn_512x512_coco17_kpts"
_ADDRESS = re.compile(r"http://127\.0\.0\.1:(\d+)/\n")


def write_detector(folder: Path):
    """A training folder: config and a checkpoint of seeded random weights; canvas 64x64."""
    tf_keras.utils.set_random_seed(5)
    pipeline = tfod_zoo.generate_pipeline(NAME, image_size=64)
    folder.mkdir()
    write_pipeline(pipeline, folder / "pipeline.config")
    model = tfod_zoo.build(pipeline)
    model.heads["box/scale"][0].weights[-1].assign([4.0, 6.0])  # boxes of so many cells, not of none
    model.save_checkpoint(folder / "ckpt-3")
    return folder


def picture(height, width, seed=0):
    """uint8 `[height, width, 3]`: dark blocks on a bright ground."""
    random = np.random.default_rng(seed)
    pixels = np.full([height, width, 3], 220, np.uint8)
    for _ in range(4):
        top, left = random.integers(0, height // 2), random.integers(0, width // 2)
        pixels[top : top + height // 3, left : left + width // 3] = random.integers(0, 120, 3)
    return pixels


def encoded(pixels, kind="PNG", **options):
    data = io.BytesIO()
    Image.fromarray(pixels).save(data, kind, **options)
    return data.getvalue()


@contextlib.contextmanager
def serving(model: Path, *flags):
    """(process, port) of a server that answers; it is ended if the test has not done so."""
    process = subprocess.Popen(
        [sys.executable, "-m", "tfod_zoo.cli.main", "serve", str(model), "--port", "0", *flags],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=os.environ | {"PYTHONUNBUFFERED": "1"},
    )
    try:
        printed = ""
        while "stops it" not in printed:
            line = process.stdout.readline()
            printed += line
            assert line, printed
        yield process, int(_ADDRESS.search(printed)[1])
    finally:
        process.kill()
        process.communicate()
