"""The schema: the readable .proto and the compiled file agree, and neither meets an installed object_detection."""

import subprocess
import sys
from importlib.resources import files

import pytest
from google.protobuf import descriptor_pb2, descriptor_pool

from tfod_zoo.config import schema

PIPELINE = schema.message_class("TrainEvalPipelineConfig")


def compiled():
    return descriptor_pb2.FileDescriptorSet.FromString(
        files("tfod_zoo.config").joinpath("pipeline_descriptor.pb").read_bytes()
    )


def test_the_compiled_schema_is_that_of_the_proto(tmp_path):
    folder = files("tfod_zoo.config")
    fresh = tmp_path / "fresh.pb"
    subprocess.run(
        [
            sys.executable,
            "-m",
            "grpc_tools.protoc",
            "-I",
            str(folder),
            f"--descriptor_set_out={fresh}",
            "pipeline.proto",
        ],
        check=True,
    )
    assert descriptor_pb2.FileDescriptorSet.FromString(fresh.read_bytes()) == compiled()


def test_nothing_is_registered_in_the_default_pool():
    # In a process of its own: another test's libraries may bring the same names.
    program = (
        "from google.protobuf import descriptor_pool\n"
        "from tfod_zoo.config import schema\n"
        "schema.message_class('TrainEvalPipelineConfig')\n"
        "try: descriptor_pool.Default().FindMessageTypeByName('object_detection.protos.TrainEvalPipelineConfig')\n"
        "except KeyError: print('private')\n"
    )
    done = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)
    assert done.stdout == "private\n"


def test_a_second_pool_of_the_same_names_does_no_harm():
    other = descriptor_pool.DescriptorPool()
    for file in compiled().file:
        other.Add(file)
    assert other.FindMessageTypeByName("object_detection.protos.TrainConfig") is not PIPELINE.DESCRIPTOR
    assert (
        PIPELINE.FromString(PIPELINE(train_config={"batch_size": 3}).SerializeToString()).train_config.batch_size == 3
    )


# TFOD's numbers: a serialized message means the same to TFOD.
@pytest.mark.parametrize(
    "message, field, number",
    [
        ("TrainEvalPipelineConfig", "eval_input_reader", 5),
        ("DetectionModel", "center_net", 4),
        ("TrainConfig", "fine_tune_checkpoint_type", 22),
        ("TrainConfig", "fine_tune_checkpoint_version", 28),
        ("InputReader", "tf_record_input_reader", 8),
        ("InputReader", "drop_remainder", 35),
        ("EvalConfig", "parameterized_metric", 31),
        ("StringIntLabelMapItem", "keypoints", 4),
    ],
)
def test_field_numbers(message, field, number):
    assert schema.message_class(message).DESCRIPTOR.fields_by_name[field].number == number


def test_defaults_that_users_trip_over():
    pipeline = PIPELINE()
    assert pipeline.train_config.batch_size == 32
    assert pipeline.train_config.fine_tune_checkpoint_version == 1  # V1, an error in TF2 unless it is set
    assert pipeline.train_config.unpad_groundtruth_tensors is True
    assert pipeline.train_config.optimizer.use_moving_average is True
    assert pipeline.train_config.optimizer.adam_optimizer.epsilon == pytest.approx(1e-8)
    reader = pipeline.train_input_reader
    assert reader.shuffle is True and reader.drop_remainder is True and reader.max_number_of_boxes == 100
    centers = pipeline.model.center_net.object_center_params
    assert centers.heatmap_bias_init == pytest.approx(-2.19) and centers.max_box_predictions == 100
    assert pipeline.model.center_net.keypoint_estimation_task.add().score_distance_offset == 1.0
    assert pipeline.model.faster_rcnn.number_of_stages == 2
