"""Reading, merging, overriding and writing pipeline.config."""

import errno
import os
import struct
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tfod_zoo.config import schema
from tfod_zoo.config.pipeline import (
    PipelineError,
    apply_override,
    merge_text,
    pipeline_text,
    read_pipeline,
    write_pipeline,
)

PIPELINE = schema.message_class("TrainEvalPipelineConfig")

# Every way of writing that TFOD's files use.
EVERY_SYNTAX = """# a comment
model: {   # with a colon
  center_net {
    num_classes: 3
    feature_extractor {
      type: 'resnet_v1_50_fpn'  # single quotes
      channel_means: [1, 2.5, .04]
      channel_stds: 1e-3
      channel_stds: 2
    }
    object_center_params { heatmap_bias_init: -2.19 classification_loss {} }
    keypoint_estimation_task {
      keypoint_label_to_std { key: "nose" value: 0.26 }
      keypoint_label_to_std: { key: 'left_eye', value: 0.25 }
    }
  }
}
train_config {
  batch_size: 8;
  num_steps: 10,
  fine_tune_checkpoint_version: V2
  optimizer < use_moving_average: false >
  data_augmentation_options { random_horizontal_flip {} }
  data_augmentation_options { random_adjust_hue {} }
}
eval_config { metrics_set: "coco_" "detection_metrics" }
"""


def test_every_way_of_writing_is_read():
    pipeline = read_pipeline(EVERY_SYNTAX)
    network = pipeline.model.center_net
    assert network.num_classes == 3 and network.feature_extractor.type == "resnet_v1_50_fpn"
    assert list(network.feature_extractor.channel_means) == [1.0, 2.5, pytest.approx(0.04)]
    assert list(network.feature_extractor.channel_stds) == [pytest.approx(1e-3), 2.0]
    assert network.object_center_params.heatmap_bias_init == pytest.approx(-2.19)
    assert dict(network.keypoint_estimation_task[0].keypoint_label_to_std) == {
        "nose": pytest.approx(0.26), "left_eye": 0.25,
    }
    train = pipeline.train_config
    assert (train.batch_size, train.num_steps, train.fine_tune_checkpoint_version) == (8, 10, 2)
    assert train.optimizer.use_moving_average is False
    kinds = [step.WhichOneof("preprocessing_step") for step in train.data_augmentation_options]
    assert kinds == ["random_horizontal_flip", "random_adjust_hue"]
    assert list(pipeline.eval_config.metrics_set) == ["coco_detection_metrics"]
    assert read_pipeline(pipeline_text(pipeline)) == pipeline


def test_a_path_a_text_and_a_path_object_are_told_apart(tmp_path):
    file = tmp_path / "p.config"
    file.write_text(EVERY_SYNTAX)
    assert read_pipeline(file) == read_pipeline(str(file)) == read_pipeline(EVERY_SYNTAX)
    assert read_pipeline("") == PIPELINE()
    with pytest.raises(PipelineError, match=r"nowhere/p\.config cannot be read"):
        read_pipeline("nowhere/p.config")
    with pytest.raises(PipelineError, match="cannot be read"):
        read_pipeline(tmp_path)
    (tmp_path / "model.pb").write_bytes(b"\x80\xff")
    with pytest.raises(PipelineError, match="not a text file"):
        read_pipeline(tmp_path / "model.pb")


@pytest.mark.parametrize(
    "text, line, column, hint",
    [
        ("train_config {\n  batch_sise: 8\n}", 2, 3, '"batch_size"'),
        ("train_confg {\n}", 1, 1, '"train_config"'),
        ("train_config {\n  fine_tune_checkpoint_version: V9\n}", 2, 33, "V1"),
        ("model { faster_rcnn { second_stage_post_processing {\n  score_converter: SOFTMX } } }", 2, 20, '"SOFTMAX"'),
        ("model {\n  center_net {\n    num_clases: 3\n  }\n}", 3, 5, '"num_classes"'),
        ("train_config {\n  batch_size: many\n}", 2, 15, "many"),
        ("train_config {\n  batch_size: 'a'\n}", 2, 15, "integer"),
    ],
)
def test_an_error_names_the_place_and_the_nearest_name(tmp_path, text, line, column, hint):
    file = tmp_path / "p.config"
    file.write_text(text)
    for source, where in ((file, str(file)), (text + "\n", "the text")):
        with pytest.raises(PipelineError) as caught:
            read_pipeline(source)
        assert f"{where}, line {line}, column {column}: " in str(caught.value)
        assert hint in str(caught.value) and "\n" not in str(caught.value)


def test_a_nearest_name_is_one_of_the_block_it_stands_in():
    # "max_total_detections" is nearer among all names, but no field of this block.
    with pytest.raises(PipelineError, match='"max_box_predictions"'):
        read_pipeline("model { center_net { object_center_params { max_box_detections: 20 } } }")


def test_the_right_name_in_the_wrong_block_is_sent_to_its_own():
    with pytest.raises(PipelineError, match='no field "num_steps"; it is a field of TrainConfig'):
        read_pipeline("num_steps: 10\n")


def test_a_block_left_open_is_an_error():
    with pytest.raises(PipelineError, match="line 2, .* is a block left open"):
        read_pipeline("train_config {\n  batch_size: 8\n")


def test_merging_overwrites_scalars_merges_blocks_and_appends_to_lists():
    pipeline = read_pipeline(EVERY_SYNTAX)
    merge_text(
        pipeline,
        "train_config { batch_size: 1 batch_size: 2 data_augmentation_options { random_adjust_contrast {} } }"
        " model { center_net { feature_extractor { channel_means: 9 } keypoint_estimation_task {"
        " keypoint_label_to_std { key: 'nose' value: 1 } } } }",
    )
    assert pipeline.train_config.batch_size == 2 and pipeline.train_config.num_steps == 10
    assert len(pipeline.train_config.data_augmentation_options) == 3
    assert pipeline.model.center_net.feature_extractor.channel_means[-1] == 9
    assert len(pipeline.model.center_net.keypoint_estimation_task) == 2


def test_another_member_of_a_oneof_replaces_the_first():
    pipeline = read_pipeline(EVERY_SYNTAX)
    merge_text(pipeline, "model { faster_rcnn { num_classes: 4 } }")
    assert pipeline.model.WhichOneof("model") == "faster_rcnn" and not pipeline.model.HasField("center_net")


def test_a_fragment_that_does_not_parse_changes_nothing():
    pipeline = read_pipeline(EVERY_SYNTAX)
    with pytest.raises(PipelineError, match="extra.txt, line 2"):
        merge_text(pipeline, "train_config { batch_size: 99 }\nnonsense", "extra.txt")
    assert pipeline == read_pipeline(EVERY_SYNTAX)


@pytest.mark.parametrize(
    "assignment, text",
    [
        ("train_config.batch_size=16", "train_config { batch_size: 16 }"),
        (" train_config.num_steps = 5 ", "train_config { num_steps: 5 }"),
        ("train_config.fine_tune_checkpoint_version=V1", "train_config { fine_tune_checkpoint_version: V1 }"),
        ("train_config.use_bfloat16=true", "train_config { use_bfloat16: true }"),
        ("train_config.gradient_clipping_by_norm=1e1", "train_config { gradient_clipping_by_norm: 10 }"),
        ("train_config.fine_tune_checkpoint=a/b c=d", "train_config { fine_tune_checkpoint: 'a/b c=d' }"),
        ('train_config.fine_tune_checkpoint="a/b"', "train_config { fine_tune_checkpoint: 'a/b' }"),
        ("train_config.fine_tune_checkpoint=", "train_config { fine_tune_checkpoint: '' }"),
        ("train_input_reader.label_map_path=m.pbtxt", "train_input_reader { label_map_path: 'm.pbtxt' }"),
    ],
)
def test_an_override_sets_one_field(assignment, text):
    pipeline, expected = read_pipeline(EVERY_SYNTAX), read_pipeline(EVERY_SYNTAX)
    apply_override(pipeline, assignment)
    assert pipeline == merge_text(expected, text)


def test_overrides_of_lists():
    pipeline = read_pipeline("eval_input_reader { name: 'a' }\neval_input_reader { name: 'b' }")
    apply_override(pipeline, "eval_input_reader[1].shuffle=false")
    assert [reader.shuffle for reader in pipeline.eval_input_reader] == [True, False]
    apply_override(pipeline, "eval_input_reader[0].tf_record_input_reader.input_path=[x, 'y']".replace("x", "'x'"))
    assert list(pipeline.eval_input_reader[0].tf_record_input_reader.input_path) == ["x", "y"]
    apply_override(pipeline, "eval_input_reader[0].tf_record_input_reader.input_path[1]=z")
    assert list(pipeline.eval_input_reader[0].tf_record_input_reader.input_path) == ["x", "z"]
    apply_override(pipeline, "eval_input_reader[0].tf_record_input_reader.input_path=only")
    assert list(pipeline.eval_input_reader[0].tf_record_input_reader.input_path) == ["only"]


@pytest.mark.parametrize(
    "assignment, sentence",
    [
        ("train_config.batch_sise=8", 'did you mean "batch_size"'),
        ("train_confg.batch_size=8", 'did you mean "train_config"'),
        ("train_config.batch_size=many", "whole number"),
        ("train_config.batch_size=-1", "whole number"),
        ("train_config.batch_size=", "whole number"),
        ("train_config.use_bfloat16=perhaps", "true or false"),
        ("train_config.fine_tune_checkpoint_version=V7", "UNKNOWN, V1, V2"),
        ("train_config=8", "is a block"),
        ("train_config.batch_size.more=8", "not a block"),
        ("train_config.batch_size", "path.to.field=value"),
        ("=8", "path.to.field=value"),
        ("eval_input_reader.shuffle=false", r"eval_input_reader\[0\]"),
        ("eval_input_reader[5].shuffle=false", r"no \[5\]"),
        ("train_config.batch_size[0]=8", r"no \[0\]"),
    ],
)
def test_a_wrong_override_changes_nothing_and_says_what_fits(assignment, sentence):
    text = "eval_input_reader { name: 'a' }\neval_input_reader { name: 'b' }\ntrain_config { batch_size: 2 }"
    pipeline = read_pipeline(text)
    with pytest.raises(PipelineError, match=sentence) as caught:
        apply_override(pipeline, assignment)
    assert "\n" not in str(caught.value)
    assert pipeline == read_pipeline(text)


def test_writing_replaces_in_one_step(tmp_path):
    path = tmp_path / "deep" / "pipeline.config"
    write_pipeline(read_pipeline(EVERY_SYNTAX), path)
    write_pipeline(read_pipeline("train_config { batch_size: 3 }"), path)
    assert read_pipeline(path).train_config.batch_size == 3
    assert os.listdir(path.parent) == ["pipeline.config"]


def test_a_full_disk_loses_nothing(tmp_path, monkeypatch):
    path = tmp_path / "pipeline.config"
    write_pipeline(read_pipeline(EVERY_SYNTAX), path)

    def full(fd):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(PipelineError, match="No space left on device"):
        write_pipeline(PIPELINE(), path)
    assert read_pipeline(path) == read_pipeline(EVERY_SYNTAX)
    assert os.listdir(tmp_path) == ["pipeline.config"]


def test_a_folder_that_is_a_file_gets_a_sentence(tmp_path):
    (tmp_path / "runs").write_text("")
    with pytest.raises(PipelineError, match="could not be written"):
        write_pipeline(PIPELINE(), tmp_path / "runs" / "pipeline.config")


def test_floats_are_as_short_as_float32_allows():
    text = pipeline_text(read_pipeline("train_config { gradient_clipping_by_norm: 0.10000000149011612 }"))
    assert "gradient_clipping_by_norm: 0.1\n" in text


@given(st.floats(width=32, allow_nan=False))
def test_floats_round_trip(value):
    pipeline = PIPELINE()
    pipeline.train_config.gradient_clipping_by_norm = value
    again = read_pipeline(pipeline_text(pipeline)).train_config.gradient_clipping_by_norm
    assert struct.pack("f", again) == struct.pack("f", value)


_SCALARS = {
    "TYPE_BOOL": st.booleans(),
    "TYPE_FLOAT": st.floats(width=32, allow_nan=False),
    "TYPE_DOUBLE": st.floats(allow_nan=False),
    "TYPE_INT32": st.integers(-(2**31), 2**31 - 1),
    "TYPE_UINT32": st.integers(0, 2**32 - 1),
    "TYPE_INT64": st.integers(-(2**63), 2**63 - 1),
    "TYPE_STRING": st.text(st.characters(exclude_categories=("Cs",)), max_size=6),
}


def _fill(draw, message, depth):
    """Sets a few random fields of a message, and of the blocks inside it."""
    fields = list(message.DESCRIPTOR.fields)
    some = st.lists(st.sampled_from(fields), max_size=4, unique_by=lambda field: field.name) if fields else st.just([])
    for field in draw(some):
        value = getattr(message, field.name)
        if field.message_type is not None and field.message_type.GetOptions().map_entry:
            key, item = field.message_type.fields_by_name["key"], field.message_type.fields_by_name["value"]
            if item.message_type is None:
                value[draw(_scalar(key))] = draw(_scalar(item))
        elif field.message_type is not None:
            child = value.add() if schema.is_repeated(field) else value
            child.SetInParent()
            if depth:
                _fill(draw, child, depth - 1)
        elif schema.is_repeated(field):
            value.extend(draw(st.lists(_scalar(field), max_size=3)))
        else:
            setattr(message, field.name, draw(_scalar(field)))


def _scalar(field):
    if field.enum_type is not None:
        return st.sampled_from([value.number for value in field.enum_type.values])
    kind = next(name for name in _SCALARS if getattr(type(field), name) == field.type)
    return _SCALARS[kind]


@st.composite
def pipelines(draw):
    message = PIPELINE()
    _fill(draw, message, depth=5)
    return message


@settings(max_examples=60, deadline=None)
@given(pipelines())
def test_any_message_reads_back_equal(message):
    assert read_pipeline(pipeline_text(message) + "\n") == message


def test_paths_may_be_of_any_kind(tmp_path):
    write_pipeline(PIPELINE(), str(tmp_path / "a b {1}.config"))
    assert read_pipeline(Path(tmp_path / "a b {1}.config")) == PIPELINE()
