"""Every model that has a network learns from the fine-tuning config that the package generates for it."""

import numpy as np
import pytest
import tensorflow as tf

from tfod_zoo.config.generate import generate_pipeline, size_multiple
from tfod_zoo.data.shapes import prepare_shapes
from tfod_zoo.training.optimizer import build_optimizer
from tfod_zoo.training.task import TOTAL_LOSS, DetectionTask
from tfod_zoo.zoo.registry import get_model, list_models


@pytest.fixture(scope="module")
def shapes(tmp_path_factory):
    folder = tmp_path_factory.mktemp("shapes")
    return prepare_shapes(folder, train=4, validation=1, image_size=64, keypoint_classes=("triangle", "star"))


# Hourglass-104 takes minutes and gigabytes: one of its four configs trains it, the others train a smaller hourglass.
WHOLE_HOURGLASS = "centernet_hg104_512x512_kpts_coco17_tpu-32"


@pytest.mark.parametrize("name", list_models())
def test_training_from_the_generated_config(name, shapes):
    training, validation, label_map = shapes
    zoo_model = get_model(name)
    one_stage = zoo_model.family == "center_net"
    pipeline = generate_pipeline(
        name,
        hardware="cpu",
        batch_size=1,
        label_map=label_map,
        train_records=training,
        eval_records=validation,
        fine_tune_checkpoint="",
        image_size=max(size_multiple(zoo_model.backbone, zoo_model.family), 64 if one_stage else 128),
    )
    if zoo_model.backbone == "hourglass_104" and name != WHOLE_HOURGLASS:
        pipeline.model.center_net.feature_extractor.type = "hourglass_20"
    task = DetectionTask(pipeline)
    model = task.build_model()
    optimizer = build_optimizer(pipeline.train_config.optimizer)
    before = [variable.numpy() for variable in model.trainable_variables]
    step = tf.function(lambda batch: task.train_step(batch, model, optimizer), autograph=False)
    for batch in task.build_inputs().take(2):  # some recipes warm up from a rate of 0
        losses = {key: float(value) for key, value in step(batch).items()}
    assert all(np.isfinite(value) for value in losses.values())
    total = losses.pop(TOTAL_LOSS)
    assert total == pytest.approx(sum(losses.values()), rel=1e-5)
    posed = {key for key in losses if "keypoint" in key}
    assert len(posed) == (6 if "keypoints" in zoo_model.outputs else 0)  # of two classes
    moved = [not np.array_equal(old, new) for old, new in zip(before, model.trainable_variables, strict=True)]
    # At this size the hourglass's innermost maps are a single cell, which batch norm over one image makes zero.
    assert sum(moved) > 0.7 * len(moved)
