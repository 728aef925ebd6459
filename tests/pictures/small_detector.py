"""A real detector small enough for tests: an hourglass on 64x64 with person keypoints, and a folder with one."""

import functools
from pathlib import Path

import numpy as np
import tf_keras
from PIL import Image

import tfod_zoo
import tfod_zoo.modeling.factory
from tfod_zoo.config.label_map import LabelMap, LabelMapItem, write_label_map
from tfod_zoo.config.pipeline import write_pipeline

POSED = "centernet_resnet50_v2_512x512_kpts_coco17_tpu-8"
LABELS = LabelMap((
    LabelMapItem(1, "cell", keypoints=tuple((index, f"point_{index}") for index in range(17))), LabelMapItem(2, "dot"),
))  # fmt: skip
LOW = ["--min-score", "0.05"]  # random weights are not sure of anything


def build(classes: int = 2, seed: int = 0, label_map: Path | None = None):
    """With random weights whose boxes have an area."""
    tf_keras.utils.set_random_seed(seed)
    pipeline = tfod_zoo.generate_pipeline(POSED)
    center_net = pipeline.model.center_net
    center_net.feature_extractor.type, center_net.num_classes = "hourglass_10", classes
    center_net.image_resizer.fixed_shape_resizer.height = center_net.image_resizer.fixed_shape_resizer.width = 64
    if label_map:
        center_net.keypoint_estimation_task[0].keypoint_class_name = "cell"
        center_net.keypoint_label_map_path = str(label_map)
        pipeline.eval_input_reader[0].label_map_path = str(label_map)
    model = tfod_zoo.build(pipeline)
    model.heads["box/scale"][0].layers[-1].bias.assign([6.0, 6.0])
    return model


def folder_with_model(folder: Path) -> Path:
    """As training leaves it: pipeline.config, a checkpoint, and the label map."""
    folder.mkdir(parents=True)
    write_label_map(LABELS, folder / "label_map.pbtxt")
    model = build(label_map=folder / "label_map.pbtxt")
    write_pipeline(model.pipeline, folder / "pipeline.config")
    model.save_checkpoint(folder / "ckpt-0")
    return folder


@functools.cache
def load_once(folder: str, weights: str = "zoo", store=None):
    """`tfod_zoo.load`, which takes seconds to trace a network, once for all tests."""
    return tfod_zoo.modeling.factory.load(folder, weights, store)


def pixels(seed: int = 0, height: int = 48, width: int = 80) -> np.ndarray:
    """Noise, uint8 RGB."""
    return np.random.default_rng(seed).integers(0, 256, [height, width, 3], dtype=np.uint8)


def write_images(folder: Path, count: int, **size: int) -> list[Path]:
    """JPEG files image00.jpg, image01.jpg, ... of different pixels."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"image{index:02}.jpg" for index in range(count)]
    for index, path in enumerate(paths):
        Image.fromarray(pixels(index, **size)).save(path)
    return paths
