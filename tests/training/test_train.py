"""Whole training runs of a small detector: curves, resuming, and every way in which a run ends badly."""

import os
import resource
import signal

import numpy as np
import pytest
import tensorflow as tf
import tf_keras

import tfod_zoo
from tfod_zoo.config.generate import generate_pipeline
from tfod_zoo.config.pipeline import merge_text, read_pipeline
from tfod_zoo.data.shapes import prepare_shapes
from tfod_zoo.errors import UsageError, ZooError
from tfod_zoo.training import run
from tfod_zoo.training.batch_norm import BatchNormRamp
from tfod_zoo.training.devices import make_strategy
from tfod_zoo.training.dry_run import dry_run
from tfod_zoo.training.run import train
from tfod_zoo.training.task import TOTAL_LOSS, DetectionTask

BATCH = 2


@pytest.fixture(scope="session")
def pipeline(tmp_path_factory):
    """MobileNetV2-FPN on 64x64 images of shapes."""
    folder = tmp_path_factory.mktemp("shapes")
    training, validation, label_map = prepare_shapes(
        folder, train=16, validation=4, image_size=64, seed=3, keypoint_classes=("star",)
    )
    return generate_pipeline(
        "centernet_mobilenetv2fpn_512x512_coco17_od",
        hardware="cpu",
        batch_size=BATCH,
        num_steps=6,
        learning_rate=1e-3,
        label_map=label_map,
        train_records=training,
        eval_records=validation,
        fine_tune_checkpoint="",
        image_size=64,
    )


def changed(pipeline, text):
    copied = type(pipeline)()
    copied.CopyFrom(pipeline)
    return merge_text(copied, text)


def fine_tuning(pipeline, checkpoint, kind, version="V2"):
    return changed(
        pipeline,
        f'train_config {{ fine_tune_checkpoint: "{checkpoint}" fine_tune_checkpoint_type: "{kind}"'
        f" fine_tune_checkpoint_version: {version} }}",
    )


@pytest.fixture(scope="session")
def finished(pipeline, tmp_path_factory):
    """Six steps in one go, every step a point of the curve."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(run, "SUMMARY_EVERY", 1)
        folder = tmp_path_factory.mktemp("finished")
        return folder, train(pipeline, folder, seed=5, say=lambda line: None)


@pytest.fixture
def every_step(monkeypatch):
    monkeypatch.setattr(run, "SUMMARY_EVERY", 1)


def test_a_resumed_run_is_the_uninterrupted_one(pipeline, finished, every_step, tmp_path):
    _, whole = finished
    lines = []
    first = train(pipeline, tmp_path, steps=3, seed=5, say=lines.append)
    second = train(pipeline, tmp_path, steps=6, say=lines.append)  # the seed is remembered
    # The first three also say that one seed gives one curve.
    assert first.losses + second.losses == whole.losses
    for one, other in zip(whole.model.variables, second.model.variables, strict=True):
        np.testing.assert_array_equal(one, other)
    assert any("going on from" in line for line in lines)


def test_the_folder_holds_what_was_promised(pipeline, finished):
    folder, result = finished
    assert result.step == 6 and result.checkpoint == str(folder / "ckpt-6")
    assert read_pipeline(folder / "pipeline.config").train_config.num_steps == 6
    keys = {key for key, _ in tf.train.list_variables(result.checkpoint)}
    assert {f"{key}/.ATTRIBUTES/VARIABLE_VALUE" for key in ("step", "save_counter", "optimizer/iter")} <= keys
    slot = "model/_feature_extractor/_base_model/layer_with_weights-0/kernel/.OPTIMIZER_SLOT/optimizer/m"
    assert f"{slot}/.ATTRIBUTES/VARIABLE_VALUE" in keys
    restored = tfod_zoo.load(folder)
    for one, other in zip(result.model.variables, restored.variables, strict=True):
        np.testing.assert_array_equal(one, other)


def test_tensorboard_has_losses_rate_pace_and_pictures(finished):
    folder, result = finished
    tags: dict[str, list[float]] = {}
    pictures = {}
    for file in sorted((folder / "train").glob("events*")):
        for event in tf.compat.v1.train.summary_iterator(str(file)):
            for value in event.summary.value:
                content = tf.make_ndarray(value.tensor)
                if content.dtype == object:  # width and height in pixels as text, then PNGs
                    pictures[value.tag] = tf.io.decode_png(content[2]).shape
                else:
                    tags.setdefault(value.tag, []).append(float(content))
    assert {"Loss/object_center", TOTAL_LOSS, "learning_rate", "steps_per_sec"} <= set(tags)
    assert pictures == {f"train_input_images_{index}": (64, 64, 3) for index in range(BATCH)}
    assert tags[TOTAL_LOSS] == pytest.approx([loss for _, loss in result.losses])


def test_another_seed_or_model_is_refused_and_nothing_is_touched(pipeline, finished):
    folder, result = finished
    before = sorted(os.listdir(folder))
    with pytest.raises(UsageError, match="begun with seed 5, not 6"):
        train(pipeline, folder, steps=9, seed=6)
    other = changed(pipeline, "model { center_net { num_classes: 7 } }")
    with pytest.raises(ZooError, match="another model"):
        train(other, folder, steps=9)
    assert sorted(os.listdir(folder)) == before


def test_a_dry_run_says_what_a_run_would_be_and_writes_nothing(pipeline, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    lines = []
    dry_run(pipeline, make_strategy("cpu"), steps=600, say=lines.append)
    text = "\n".join(lines)
    for part in (f"images [{BATCH}, 64, 64, 3] float32 on 1 CPU", "parameters", "random_horizontal_flip",
                 "adam_optimizer, cosine_decay", "s a step; memory at its peak", "600 steps would take about"):
        assert part in text
    assert not list(tmp_path.iterdir())


def test_fields_without_effect_are_named(pipeline, tmp_path):
    lines = []
    ignored = "replicas_to_aggregate: 8 startup_delay_steps: 0 summarize_gradients: true"
    config = changed(pipeline, f"train_config {{ {ignored} }}")
    with pytest.raises(UsageError, match="divide"):
        train(changed(config, "train_config { batch_size: 0 }"), tmp_path, say=lines.append)
    with pytest.raises(UsageError, match="recompute|hourglass"):
        train(config, tmp_path, recompute=True, say=lines.append)
    assert "note: without effect in train_config: replicas_to_aggregate, summarize_gradients" in lines


def test_recomputation_learns_the_same(pipeline, every_step, tmp_path):
    hourglass = changed(pipeline, 'model { center_net { feature_extractor { type: "hourglass_10" } } }')
    plain = train(hourglass, tmp_path / "plain", steps=3, say=lambda line: None)
    leaner = train(hourglass, tmp_path / "leaner", steps=3, recompute=True, say=lambda line: None)
    assert [loss for _, loss in leaner.losses] == pytest.approx([loss for _, loss in plain.losses], rel=1e-4)
    with pytest.raises(UsageError, match="only hourglass networks"):
        train(pipeline, tmp_path / "other", recompute=True)


def test_keypoint_tasks_need_their_keypoints(pipeline, tmp_path):
    other = changed(pipeline, "train_input_reader { num_keypoints: 3 }")
    other.model.center_net.keypoint_label_map_path = pipeline.train_input_reader.label_map_path
    task = other.model.center_net.keypoint_estimation_task.add(task_name="star_pose", keypoint_class_name="star")
    task.loss.localization_loss.l1_localization_loss.SetInParent()
    task.loss.classification_loss.penalty_reduced_logistic_focal_loss.SetInParent()
    with pytest.raises(UsageError, match=r"train_input_reader.num_keypoints is 3, but .* have 5"):
        train(other, tmp_path)
    assert not list(tmp_path.iterdir())


def test_no_steps_and_settings_of_tf1_are_refused(pipeline, tmp_path):
    with pytest.raises(UsageError, match="number of steps"):
        train(pipeline, tmp_path, steps=0)
    for version, kind, sentence in (
        ("V1", "full", "version: V2"),
        ("V2", "fine_tune", "dropped"),
        ("V2", "all", "one of"),
        ("V2", "full", "not exist"),
    ):
        with pytest.raises(ZooError, match=sentence):
            train(fine_tuning(pipeline, "x/ckpt-0", kind, version), tmp_path)
    assert not os.listdir(tmp_path)


def test_fine_tuning_starts_from_the_checkpoint_and_says_so(pipeline, finished, tmp_path):
    _, result = finished
    lines = []
    tuned = train(fine_tuning(pipeline, result.checkpoint, "detection"), tmp_path, steps=1, say=lines.append)
    assert any(line.startswith("restored ") and "new: " in line for line in lines)
    assert tuned.step == 1  # the step is never taken over


def test_a_loss_that_is_not_finite_ends_the_run_with_step_and_checkpoint(pipeline, tmp_path):
    rate = "learning_rate { constant_learning_rate { learning_rate: 1e30 } }"
    text = f"train_config {{ optimizer {{ adam_optimizer {{ {rate} }} }} }}"
    with pytest.raises(ZooError, match=r"(nan|inf) at step \d .*ckpt-0 is kept"):
        train(changed(pipeline, text), tmp_path, say=lambda line: None)
    assert tf.train.latest_checkpoint(str(tmp_path)).endswith("ckpt-0")


def test_weights_that_are_not_finite_are_not_saved(pipeline, tmp_path):
    """The loss of a step is of the weights before its update, so that it may look well."""
    rate = "learning_rate { constant_learning_rate { learning_rate: inf } }"
    text = f"train_config {{ optimizer {{ adam_optimizer {{ {rate} }} }} }}"
    with pytest.raises(ZooError, match=r"the weights are not finite .* at step 1 .*ckpt-0 is kept"):
        train(changed(pipeline, text), tmp_path, checkpoint_every=1, say=lambda line: None)
    assert tf.train.latest_checkpoint(str(tmp_path)).endswith("ckpt-0")


def test_a_full_disk_keeps_the_checkpoints_there_were(pipeline, tmp_path):
    def fill_disk(progress):
        # The largest file a process may write stands in for the space left.
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, resource.RLIM_INFINITY))

    try:
        with pytest.raises(ZooError, match=r"step 2 could not be written .*ckpt-0 is kept"):
            train(pipeline, tmp_path, steps=2, say=lambda line: None, on_progress=fill_disk)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    assert {name for name in os.listdir(tmp_path) if name.startswith("ckpt")} == {
        "ckpt-0.index",
        "ckpt-0.data-00000-of-00001",
    }
    tfod_zoo.load(tmp_path)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_saves_and_says_how_to_go_on(pipeline, tmp_path, number):
    before = signal.getsignal(number)
    lines, steps = [], []

    def interrupt(progress):
        # On this thread, so that its handler has run when this returns; `os.kill` may choose another thread, and a
        # second signal would come while the first waits. The second one is not caught.
        if not steps:
            signal.raise_signal(number)
        steps.append(progress.step)

    with pytest.raises(KeyboardInterrupt):
        train(
            pipeline,
            tmp_path,
            steps=100,
            say=lines.append,
            on_progress=interrupt,
        )
    assert "run the same command to go on" in lines[-1]
    assert steps == [1]
    assert tf.train.latest_checkpoint(str(tmp_path)).endswith("ckpt-1")
    assert signal.getsignal(number) is before


@pytest.mark.slow
def test_memory_stays_through_two_thousand_steps(pipeline, tmp_path):
    resident = {}

    def note(progress):
        with open("/proc/self/statm") as file:
            resident[progress.step] = int(file.read().split()[1])

    train(pipeline, tmp_path, steps=2000, eval_every=400, say=lambda line: None, on_progress=note)
    # Behind the first evaluation, which traces; medians, because a moment's batch in flight says nothing.
    early = np.median([pages for step, pages in resident.items() if 400 < step <= 800])
    late = np.median([pages for step, pages in resident.items() if step > 1600])
    assert late < 1.05 * early


def test_the_train_step_compiles_with_xla_to_the_same_losses(pipeline):
    losses = []
    for xla in (False, True):
        tf_keras.utils.set_random_seed(0)
        task = DetectionTask(pipeline, xla=xla)
        model, optimizer = task.build_model(), run.build_optimizer(pipeline.train_config.optimizer)
        step = tf.function(task.train_step)
        batch = next(iter(task.build_inputs()))
        losses.append([float(step(batch, model, optimizer)[TOTAL_LOSS]) for _ in range(2)])
    assert losses[0] == pytest.approx(losses[1], rel=1e-3)


def test_every_batch_norm_of_the_detector_is_ramped(finished):
    _, result = finished
    layers = [
        layer for layer in result.model._flatten_layers() if isinstance(layer, tf_keras.layers.BatchNormalization)
    ]
    assert len(layers) == 55  # 52 of the MobileNetV2 body, 3 of the pyramid
    with BatchNormRamp(result.model).at(tf.constant(0)):
        assert all(tf.is_tensor(layer.momentum) for layer in layers)
