"""Reading, merging, overriding and writing pipeline.config."""

import errno
import os

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import tfod_zoo
from tfod_zoo.config import schema
from tfod_zoo.config.pipeline import PipelineError, apply_override, merge_text, pipeline_text

EVERY_SYNTAX = """
# a comment
model: {
  center_net {
    num_classes: 3; feature_extractor { type: 'hourglass_52', bgr_ordering: true channel_means: [1.5, .25, -2e-1] }
    keypoint_estimation_task {
      keypoint_label_to_std { key: "nose" value: 0.26 }
      keypoint_label_to_std { key: "left_eye" value: 0.25 }
    }
  }
}
train_config: { batch_size: 8 batch_size: 16
  data_augmentation_options { random_horizontal_flip {} }
  data_augmentation_options { random_adjust_hue {} }
  fine_tune_checkpoint_version: V2
}
eval_input_reader { shuffle: false }
eval_input_reader { name: "second" }
"""


def test_reads_every_syntax_that_the_published_files_use():
    message = tfod_zoo.read_pipeline(EVERY_SYNTAX)
    center_net = message.model.center_net
    assert center_net.num_classes == 3
    assert center_net.feature_extractor.type == "hourglass_52"
    assert list(center_net.feature_extractor.channel_means) == pytest.approx([1.5, 0.25, -0.2])
    assert dict(center_net.keypoint_estimation_task[0].keypoint_label_to_std) == pytest.approx(
        {"nose": 0.26, "left_eye": 0.25}
    )
    assert message.train_config.batch_size == 16  # the last of a repeated scalar wins
    assert len(message.train_config.data_augmentation_options) == 2
    assert [reader.name for reader in message.eval_input_reader] == ["", "second"]
    assert message.train_config.optimizer.use_moving_average is True  # the schema's default
    assert tfod_zoo.read_pipeline(pipeline_text(message)) == message


@pytest.mark.parametrize("name", tfod_zoo.list_models())
def test_generated_pipelines_survive_writing(name, tmp_path):
    message = tfod_zoo.generate_pipeline(name)
    tfod_zoo.write_pipeline(message, tmp_path / "pipeline.config")
    assert tfod_zoo.read_pipeline(tmp_path / "pipeline.config") == message


@settings(max_examples=50, deadline=None)
@given(
    rate=st.floats(0, 1, width=32),
    text=st.text(st.characters(exclude_categories=["Cs"]), max_size=20),
    batch=st.integers(0, 2**32 - 1),
)
def test_values_survive_writing(rate, text, batch):
    message = schema.message_class("TrainEvalPipelineConfig")()
    message.train_config.batch_size = batch
    message.train_config.fine_tune_checkpoint = text
    message.train_config.optimizer.adam_optimizer.learning_rate.constant_learning_rate.learning_rate = rate
    assert tfod_zoo.read_pipeline(pipeline_text(message) + "\n") == message


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("model {\n  center_nets {}\n}", ["line 2, column 3", "center_nets", 'mean "center_net"']),
        ("train_config { batch_size: 'a' }", ["line 1", "integer"]),
        ("train_config {\n  batch_size: 8\n", ["line 2"]),
        ("train_config { fine_tune_checkpoint_version: V9 }", ["line 1", "V9"]),
    ],
)
def test_an_error_names_the_place(text, parts, tmp_path):
    path = tmp_path / "broken.config"
    path.write_text(text)
    with pytest.raises(PipelineError) as caught:
        tfod_zoo.read_pipeline(path)
    for part in [str(path), *parts]:
        assert part in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_missing_file_is_named():
    with pytest.raises(PipelineError, match="nowhere.config cannot be read"):
        tfod_zoo.read_pipeline("nowhere.config")


def test_merging_appends_to_lists_and_switches_oneofs():
    message = tfod_zoo.read_pipeline("train_config { optimizer { adam_optimizer {} } }")
    merge_text(message, "train_config { optimizer { momentum_optimizer {} } data_augmentation_options {} }")
    merge_text(message, "train_config { data_augmentation_options {} }")
    assert message.train_config.optimizer.WhichOneof("optimizer") == "momentum_optimizer"
    assert len(message.train_config.data_augmentation_options) == 2
    before = pipeline_text(message)
    with pytest.raises(PipelineError):
        merge_text(message, "train_config { batch_size: 4 oops: 1 }")
    assert pipeline_text(message) == before  # a fragment that does not parse changes nothing


def test_overrides():
    message = tfod_zoo.read_pipeline(EVERY_SYNTAX)
    apply_override(message, "train_config.batch_size=4")
    apply_override(message, "eval_input_reader[1].label_map_path=a b/c.pbtxt")
    apply_override(message, "model.center_net.feature_extractor.channel_means=[1, 2]")
    apply_override(message, "train_config.fine_tune_checkpoint_version=V1")
    assert message.train_config.batch_size == 4
    assert message.eval_input_reader[1].label_map_path == "a b/c.pbtxt"
    assert list(message.model.center_net.feature_extractor.channel_means) == [1, 2]
    assert message.train_config.fine_tune_checkpoint_version == 1


@pytest.mark.parametrize(
    ("assignment", "part"),
    [
        ("train_config.batch_sise=8", 'mean "batch_size"'),
        ("train_config.batch_size=many", "a whole number"),
        ("train_config.batch_size", "not an override"),
        ("train_config=3", "is a block"),
        ("eval_input_reader[7].shuffle=true", "there is no [7]"),
        ("eval_input_reader.shuffle=true", "say which"),
        ("train_config.fine_tune_checkpoint_version=V3", "UNKNOWN, V1, V2"),
    ],
)
def test_a_wrong_override_says_why(assignment, part):
    with pytest.raises(PipelineError) as caught:
        apply_override(tfod_zoo.read_pipeline(EVERY_SYNTAX), assignment)
    assert part in str(caught.value)


def test_a_full_disk_leaves_the_earlier_file(tmp_path, monkeypatch):
    path = tmp_path / "pipeline.config"
    tfod_zoo.write_pipeline(tfod_zoo.read_pipeline("train_config { batch_size: 1 }"), path)

    def full(_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(PipelineError, match="No space left"):
        tfod_zoo.write_pipeline(tfod_zoo.read_pipeline("train_config { batch_size: 2 }"), path)
    assert tfod_zoo.read_pipeline(path).train_config.batch_size == 1
    assert [entry.name for entry in tmp_path.iterdir()] == ["pipeline.config"]
