"""The paper's four phases: what learns in each, from where, and that a run goes on where it stopped."""

import numpy as np
import pytest
import tensorflow as tf

import tfod_zoo
from tfod_zoo.config.generate import generate_pipeline
from tfod_zoo.config.pipeline import merge_text
from tfod_zoo.data.shapes import prepare_shapes
from tfod_zoo.errors import UsageError, ZooError
from tfod_zoo.training import alternating
from tfod_zoo.training.alternating import BACKBONE, DETECTOR, PHASES, PROPOSAL_NETWORK, train_alternating
from tfod_zoo.training.run import train

STEPS = 2


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory):
    """Faster R-CNN ResNet-50 on 128x128 images of shapes, with few proposals."""
    training, validation, label_map = prepare_shapes(
        tmp_path_factory.mktemp("shapes"), train=8, validation=2, image_size=128, seed=3
    )
    generated = generate_pipeline(
        "faster_rcnn_resnet50_v1_640x640_coco17_tpu-8",
        hardware="cpu",
        batch_size=1,
        num_steps=STEPS,
        learning_rate=1e-3,
        label_map=label_map,
        train_records=training,
        eval_records=validation,
        fine_tune_checkpoint="",
        image_size=128,
    )
    return merge_text(
        generated, "model { faster_rcnn { first_stage_max_proposals: 12 second_stage_batch_size: 4 } }"
    )


def changed(pipeline, text):
    copied = type(pipeline)()
    copied.CopyFrom(pipeline)
    return merge_text(copied, text)


@pytest.fixture(scope="module")
def whole(pipeline, tmp_path_factory):
    """A run interrupted before its third phase and one that goes on: (folder, result, the second one's lines)."""
    folder = tmp_path_factory.mktemp("alternating")

    def interrupt(line):
        if line.startswith("phase 3"):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train_alternating(pipeline, folder, say=interrupt)
    lines = []
    return folder, train_alternating(pipeline, folder, say=lines.append), lines


def moved(before, after):
    """The parts of the network in which two checkpoints differ, be it in a moving average."""
    one, other = (tf.train.load_checkpoint(str(prefix)) for prefix in (before, after))
    parts = set()
    for name, prefixes in (("backbone", BACKBONE), ("proposals", PROPOSAL_NETWORK), ("detector", DETECTOR)):
        keys = [
            key for key in one.get_variable_to_shape_map() if key.startswith(prefixes) and ".OPTIMIZER_SLOT" not in key
        ]
        assert keys
        if not all(np.array_equal(one.get_tensor(key), other.get_tensor(key)) for key in keys):
            parts.add(name)
    return parts


@pytest.mark.slow
def test_each_phase_trains_its_part_and_nothing_else(whole):
    """Moving averages are in the checkpoints too, so a fixed backbone is fixed to the last bit."""
    folder, result, _ = whole
    ends = [folder / phase.folder / f"ckpt-{STEPS}" for phase in PHASES]
    assert result.checkpoint == str(ends[3])
    start = folder / "phase1" / "ckpt-0"
    assert moved(start, ends[0]) == {"backbone", "proposals"}
    assert moved(start, folder / "phase2" / "ckpt-0") == set()  # from the same weights as phase 1
    assert moved(start, ends[1]) == {"backbone", "detector"}
    assert moved(ends[1], ends[2]) == {"proposals"}
    assert moved(ends[2], ends[3]) == {"detector"}


@pytest.mark.slow
def test_an_interrupted_run_goes_on_and_the_result_is_in_the_model_folder(whole):
    folder, result, lines = whole
    assert [line[:17] for line in lines if line.startswith("phase")] == [
        "phase 1 of 4 is d", "phase 2 of 4 is d", "phase 3 of 4: the", "phase 4 of 4: the"
    ]  # fmt: skip
    loaded = tfod_zoo.load(folder).keyed_variables
    for key, variable in result.model.keyed_variables.items():
        np.testing.assert_array_equal(variable, loaded[key])


@pytest.mark.slow
def test_the_second_phase_learns_on_the_proposals_of_the_first(pipeline, whole):
    folder, _, _ = whole
    options = {"seed": 0, "phase": PHASES[1], "say": lambda line: None}
    task = alternating.PhaseTask(pipeline, proposer=str(folder / "phase1" / f"ckpt-{STEPS}"), **options)
    model = task.build_model()
    features, groundtruth = next(iter(task.build_inputs()))
    inputs, shapes = model.normalize(features["image"]), features["true_image_shape"]
    learned_from = []

    class Recorded(type(model)):
        def compute_losses(self, predictions, groundtruth, true_image_shapes):
            learned_from.append(predictions["proposal_boxes"].numpy())
            return super().compute_losses(predictions, groundtruth, true_image_shapes)

    model.__class__ = Recorded
    losses = task.compute_losses(model, inputs, shapes, groundtruth)
    assert set(losses) == set(alternating.DETECTOR_LOSSES)
    proposed = tfod_zoo.load(folder / "phase1")(inputs, shapes)["proposal_boxes"].numpy()
    own = model(inputs, shapes)["proposal_boxes"].numpy()
    for box in learned_from[0][0]:
        assert np.abs(proposed[0] - box).max(-1).min() < 1e-3
    assert np.abs(own - proposed).max() > 1


@pytest.mark.slow
def test_the_report_compares_with_joint_training(pipeline, whole, tmp_path):
    folder, _, _ = whole
    train(pipeline, tmp_path / "joint", say=lambda line: None)
    lines = []
    train_alternating(pipeline, folder, compare_with=tmp_path / "joint", say=lines.append)
    line = next(line for line in lines if line.startswith("alternating AP"))
    assert f"(4 x {STEPS} steps of 1 images); joint AP" in line and f"({STEPS} steps of 1 images)" in line
    assert line in (folder / alternating.REPORT).read_text()


@pytest.mark.slow
def test_another_number_of_steps_is_refused(pipeline, whole):
    folder, _, _ = whole
    with pytest.raises(UsageError, match=f"begun with {STEPS} steps a phase, not 5"):
        train_alternating(pipeline, folder, steps=5)


def test_one_stage_is_refused(pipeline, tmp_path):
    with pytest.raises(UsageError, match="number_of_stages is 1"):
        train_alternating(changed(pipeline, "model { faster_rcnn { number_of_stages: 1 } }"), tmp_path / "run")
    center_net = generate_pipeline("centernet_mobilenetv2fpn_512x512_coco17_od")
    with pytest.raises(UsageError, match="model.center_net has one"):
        train_alternating(center_net, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_folder_of_another_training_is_refused(pipeline, tmp_path):
    tf.train.Checkpoint(step=tf.Variable(0)).save(str(tmp_path / "ckpt"))
    with pytest.raises(ZooError, match="another training"):
        train_alternating(pipeline, tmp_path)


def test_a_joint_run_on_other_data_is_refused(pipeline, tmp_path):
    joint = tmp_path / "joint"
    with pytest.raises(UsageError, match="no training run"):
        train_alternating(pipeline, tmp_path / "run", compare_with=joint)
    tf.train.Checkpoint(step=tf.Variable(0)).save(str(joint / "ckpt"))
    other = changed(pipeline, 'train_input_reader { tf_record_input_reader { input_path: "more.tfrecord" } }')
    tfod_zoo.write_pipeline(other, joint / "pipeline.config")
    with pytest.raises(UsageError, match="differs from yours in train_input_reader"):
        train_alternating(pipeline, tmp_path / "run", compare_with=joint)
