"""From a pipeline config, a zoo name or a folder to a model."""

import os
from typing import Any

from etils.epath import Path

from tfod_zoo.config.generate import generate_pipeline
from tfod_zoo.config.pipeline import read_pipeline
from tfod_zoo.errors import UsageError, ZooError
from tfod_zoo.modeling.center_net.model import CenterNet
from tfod_zoo.modeling.checkpoint import newest_checkpoint
from tfod_zoo.modeling.detection_model import DetectionModel
from tfod_zoo.modeling.faster_rcnn.model import FasterRCNN
from tfod_zoo.modeling.sliding_window.model import SlidingWindow
from tfod_zoo.zoo.registry import BASELINE, get_model, list_models
from tfod_zoo.zoo.store import checkpoint_prefix, download

_FAMILIES = ("center_net", "faster_rcnn")


def build(pipeline: Any, training: bool = False, deterministic_sampling: bool = False) -> DetectionModel:
    """Builds the network of a pipeline config with random weights.

    Example:
      >>> pipeline = tfod_zoo.generate_pipeline("centernet_mobilenetv2fpn_512x512_coco17_od", image_size=128)
      >>> model = tfod_zoo.build(pipeline)
      >>> model.input_shape_hw, model.num_classes
      ((128, 128), 90)
      >>> model.save_checkpoint("fresh/ckpt-0")
      >>> model.restore_checkpoint("fresh/ckpt-0").missing
      ()

    Args:
      pipeline: TrainEvalPipelineConfig message (`read_pipeline`, `generate_pipeline`).
      training: builds the training form: batch norm that follows the batch, and the paths of Faster R-CNN that its
        config has for training. For CenterNet both forms are one.
      deterministic_sampling: replaces the random samplers by the first in index order; CenterNet has none.

    Raises:
      ZooError: the config names a network or a part that does not exist here.
    """
    family = pipeline.model.WhichOneof("model")
    if family not in _FAMILIES:
        raise ZooError(
            f"model.{family or '...'} has no network here; there is {', '.join('model.' + name for name in _FAMILIES)}."
        )
    if pipeline.model.faster_rcnn.feature_extractor.type == BASELINE:
        return SlidingWindow(pipeline, deterministic_sampling)
    if family == "faster_rcnn":
        return FasterRCNN(pipeline, training, deterministic_sampling)
    return CenterNet(pipeline)


def load(
    name_or_folder: str | os.PathLike[str], weights: str = "zoo", store: str | os.PathLike[str] | None = None
) -> DetectionModel:
    """Builds a model and gives it weights.

    Example:
      >>> model = tfod_zoo.load("centernet_mobilenetv2fpn_512x512_coco17_od", weights="random")  # "zoo" finds things
      >>> model.detect(np.zeros([480, 640, 3], np.uint8)).size
      (480, 640)
      >>> detector = tfod_zoo.load("runs/cells")  # doctest: +SKIP

    Args:
      name_or_folder: a zoo model's name, or a folder with a `pipeline.config` and checkpoints (an unpacked archive, or
        the `--model-dir` of a training run, whose newest checkpoint is taken).
      weights: "zoo" (the published ones, downloaded when the store lacks them; for a folder, its own), "random", or a
        checkpoint prefix, all restored in full.
      store: where archives are kept; see `tfod_zoo.download`.

    Raises:
      UsageError: neither a model's name nor a folder with a `pipeline.config`.
      ZooError: the network does not exist here, or the checkpoint does not fit.
    """
    folder = Path(name_or_folder)
    if str(name_or_folder) in list_models():
        return _load_zoo_model(str(name_or_folder), weights, store)
    if not (folder / "pipeline.config").is_file():
        if folder.is_dir():
            raise UsageError(f"{folder} has no pipeline.config; give a training folder or an unpacked zoo archive.")
        get_model(str(name_or_folder))  # raises with the nearest names
    # That there is none is known before the network is built, which takes seconds.
    checkpoint = newest_checkpoint(folder) if weights == "zoo" else weights
    model = build(read_pipeline(folder / "pipeline.config"))
    model.folder = folder
    if weights != "random":
        model.restore_checkpoint(checkpoint)
    return model


def _load_zoo_model(name: str, weights: str, store) -> DetectionModel:
    if weights != "zoo":
        model = build(generate_pipeline(name))
        if weights != "random":
            model.restore_checkpoint(weights)
        return model
    download(name, store=store)
    model = build(generate_pipeline(name))
    model.restore_checkpoint(checkpoint_prefix(name, store))
    return model
