"""Checkpoint keys and shapes of every CenterNet of the zoo against those that the reference writes.

`golden_checkpoint_keys.json` holds, per model, how many entries the reference's checkpoint has (without the object
graph) and the SHA-256 of its sorted "key shape" lines.
"""

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

import tfod_zoo
from tfod_zoo.modeling.checkpoint import SUFFIX, CheckpointError, read_shapes

GOLDEN = json.loads((Path(__file__).parent / "golden_checkpoint_keys.json").read_text())
COUNTER = f"save_counter{SUFFIX}"
# The largest network four times: one of them has the variables of the others, and takes a while by itself.
OTHER_HOURGLASSES = ("hg104_1024x1024", "hg104_512x512_coco17")


def digest(shapes):
    lines = sorted(f"{key} {json.dumps(list(shape))}" for key, shape in shapes.items())
    return {"count": len(lines), "sha256": hashlib.sha256("\n".join(lines).encode()).hexdigest()}


def test_every_center_net_has_a_golden():
    assert sorted(GOLDEN) == sorted(tfod_zoo.list_models("centernet_*"))


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=[pytest.mark.slow] if any(part in name for part in OTHER_HOURGLASSES) else [])
        for name in sorted(GOLDEN)
    ],
)
def test_keys_and_shapes_are_the_reference_s(name):
    model = tfod_zoo.build(tfod_zoo.generate_pipeline(name))
    shapes = {key: variable.shape.as_list() for key, variable in model.keyed_variables.items()}
    assert digest({**shapes, COUNTER: []}) == GOLDEN[name]
    assert len(shapes) == len(model.variables)  # nothing is left out


def keypoint_model(side=64, classes=2, radius=3):
    pipeline = tfod_zoo.generate_pipeline("centernet_resnet50_v2_512x512_kpts_coco17_tpu-8")
    center_net = pipeline.model.center_net
    center_net.feature_extractor.type, center_net.num_classes = "hourglass_10", classes
    center_net.keypoint_estimation_task[0].offset_peak_radius = radius
    resizer = center_net.image_resizer.keep_aspect_ratio_resizer
    resizer.min_dimension = resizer.max_dimension = side
    return tfod_zoo.build(pipeline)


def write(prefix, tensors):
    tf.raw_ops.SaveV2(
        prefix=str(prefix),
        tensor_names=list(tensors),
        shape_and_slices=[""] * len(tensors),
        tensors=[tf.constant(value) for value in tensors.values()],
    )


@pytest.fixture(scope="module")
def stored():
    model = keypoint_model()
    values = {key: variable.numpy() for key, variable in model.keyed_variables.items()}
    return {**values, "_CHECKPOINTABLE_OBJECT_GRAPH": np.array(b"")}


def test_a_keypoint_model_writes_its_keys_and_no_others(tmp_path):
    model = keypoint_model()
    model.save_checkpoint(tmp_path / "ckpt-0")
    shapes = read_shapes(str(tmp_path / "ckpt-0"))
    assert shapes == {**{key: value.shape.as_list() for key, value in model.keyed_variables.items()}, COUNTER: []}
    head = "model/_prediction_head_dict/human_pose.Skeypoint.Sregression/0/layer_with_weights-1/kernel"
    assert shapes[head + SUFFIX] == [1, 1, 256, 34]


def test_a_missing_key_is_named(stored, tmp_path):
    key = f"model/_prediction_head_dict/human_pose.Skeypoint.Soffset/0/layer_with_weights-1/bias{SUFFIX}"
    write(tmp_path / "ckpt", {name: value for name, value in stored.items() if name != key})
    model = keypoint_model()
    with pytest.raises(CheckpointError, match="lacks 1 of .*human_pose.Skeypoint.Soffset/0/layer_with_weights-1/bias"):
        model.restore_checkpoint(tmp_path / "ckpt")
    assert model.restore_checkpoint(tmp_path / "ckpt", mode="detection").missing  # heads stay new


def test_another_shape_is_named(stored, tmp_path):
    key = f"model/_prediction_head_dict/human_pose.Skeypoint.Sheatmap/0/layer_with_weights-1/bias{SUFFIX}"
    write(tmp_path / "ckpt", {**stored, key: np.zeros([5], np.float32)})
    model = keypoint_model()
    before = [variable.numpy() for variable in model.variables]
    with pytest.raises(CheckpointError, match=r"Sheatmap/0/layer_with_weights-1/bias has shape \[5\] there and \[17\]"):
        model.restore_checkpoint(tmp_path / "ckpt")
    for variable, value in zip(model.variables, before, strict=True):
        np.testing.assert_array_equal(variable, value)


def test_surplus_keys_are_counted(stored, tmp_path):
    slots = {
        f"{key.removesuffix(SUFFIX)}/.OPTIMIZER_SLOT/optimizer/{slot}{SUFFIX}": value
        for key, value in stored.items()
        for slot in ("m", "v")
        if key.startswith("model/_prediction_head_dict")
    }
    extra = {f"step{SUFFIX}": np.int64(7), f"optimizer/iter{SUFFIX}": np.int64(7), COUNTER: np.int64(1), **slots}
    write(tmp_path / "ckpt", {**stored, **extra})
    report = keypoint_model().restore_checkpoint(tmp_path / "ckpt")
    assert len(report.restored) == len(stored) - 1 and not report.missing
    assert set(report.unused) == set(extra)
    assert f"not used: {len(extra)} entries" in report.summary()
