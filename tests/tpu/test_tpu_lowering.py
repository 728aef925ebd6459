"""The program that `tpu check` compiles: one core's part of the train step, with what the cores exchange in it."""

import re

import numpy as np
import pytest
import tensorflow as tf
import tf_keras

from tfod_zoo.config.generate import generate_pipeline
from tfod_zoo.config.pipeline import apply_override
from tfod_zoo.errors import UsageError
from tfod_zoo.modeling.factory import build
from tfod_zoo.tpu import lowering
from tfod_zoo.tpu.check import batch_per_core
from tfod_zoo.tpu.replica import OneReplicaOfMany
from tfod_zoo.tpu.topology import TOPOLOGIES, get_topology

OVERRIDES = (
    'model.center_net.feature_extractor.type="hourglass_10"',
    "model.center_net.num_classes=3",
    "model.center_net.image_resizer.keep_aspect_ratio_resizer.min_dimension=64",
    "model.center_net.image_resizer.keep_aspect_ratio_resizer.max_dimension=64",
    "train_input_reader.max_number_of_boxes=5",
)


def small_pipeline(*overrides):
    pipeline = generate_pipeline("centernet_hg104_512x512_coco17_tpu-8")
    for override in (*OVERRIDES, *overrides):
        apply_override(pipeline, override)
    return pipeline


@pytest.fixture(scope="module")
def program():
    return lowering.TrainStep(small_pipeline(), cores=8).lower(batch_per_core=2)


def all_reduced(text):
    """The types of what is summed over all eight cores."""
    return re.findall(
        r'"stablehlo\.all_reduce".*?replica_groups = dense<\[\[0, 1, 2, 3, 4, 5, 6, 7\]\]>.*?: \((tensor<[^>]*>)\) ->',
        text, re.DOTALL,
    )


def test_every_gradient_is_summed_over_the_cores(program):
    model = build(small_pipeline(), training=True)
    gradients = sorted("x".join(map(str, [*variable.shape, "f32"])) for variable in model.trainable_variables)
    summed = [kind.removeprefix("tensor<").removesuffix(">") for kind in all_reduced(program.text)]
    assert not set(gradients) - set(summed)
    # The hourglass's batch norm is synchronised, so that there are more sums than gradients.
    assert len(summed) > len(gradients)


def test_its_share_of_the_batch_is_what_a_core_sees(program):
    main = re.search(r"func\.func @main\(.*?\{\n", program.text, re.DOTALL)[0]
    assert "tensor<2x64x64x3xf32>" in main and "tensor<2x5x4xf32>" in main
    assert (program.cores, program.batch_per_core) == (8, 2)


def test_variables_are_updated_in_place(program):
    model = build(small_pipeline(), training=True)
    # Adam: every trainable variable, its two moments, the step; and the averages of batch norm.
    assert program.text.count("parameter_number") == 3 * len(model.trainable_variables) + 1 + len(
        model.non_trainable_variables
    )


def test_no_dialect_that_jax_cannot_read(program):
    assert not re.search(r"^\s*(%\S+ = )?\"?mhlo\.", program.text, re.MULTILINE)


def test_gradient_clipping_and_moving_averages_lower_too(program):
    pipeline = small_pipeline(
        "train_config.gradient_clipping_by_norm=1.0", "train_config.optimizer.use_moving_average=true"
    )
    averaged = lowering.TrainStep(pipeline, cores=8).lower(batch_per_core=2)
    assert averaged.text.count("parameter_number") > program.text.count("parameter_number")


def test_replica_sums_and_means():
    strategy = OneReplicaOfMany(4)

    def of_a_replica(value):
        context = tf.distribute.get_replica_context()
        return (
            context.all_reduce("sum", value),
            context.all_reduce("mean", value),
            tf.cast(context.replica_id_in_sync_group, tf.int32),
        )

    @tf.function(jit_compile=True)
    def program(value):
        return strategy.run(of_a_replica, args=(value,))

    with strategy.scope():
        assert strategy.num_replicas_in_sync == 4
        ir = program.experimental_get_compiler_ir(tf.TensorSpec([3], tf.float32))
        text = ir(stage="stablehlo", platform_name="CPU")
    assert text.count('"stablehlo.all_reduce"') in (1, 2)  # XLA may merge the two
    assert "stablehlo.divide" in text and "stablehlo.replica_id" in text


def test_synchronised_batch_norm_is_part_of_the_program():
    def sums(synchronized):
        strategy = OneReplicaOfMany(8)
        with strategy.scope():
            layer = tf_keras.layers.BatchNormalization(synchronized=synchronized)
            layer.build([2, 4, 4, 3])

        @tf.function(jit_compile=True)
        def program(value):
            return strategy.run(lambda images: layer(images, training=True), args=(value,))

        with strategy.scope():
            ir = program.experimental_get_compiler_ir(tf.TensorSpec([2, 4, 4, 3], tf.float32))
            return ir(stage="stablehlo", platform_name="CPU").count('"stablehlo.all_reduce"')

    assert sums(False) == 0 < sums(True)


def test_tables_of_booleans_are_written_one_to_a_byte():
    table = np.random.default_rng(0).random((300, 7)) < 0.5
    text = lowering._stablehlo(lambda x: tf.where(table, x, 0.0), [tf.TensorSpec([300, 7])], "a table")
    written = re.search(r'dense<"0x([0-9A-F]+)"> : tensor<300x7xi1>', text)
    assert np.array_equal(np.frombuffer(bytes.fromhex(written[1]), np.uint8).reshape(300, 7), table)


def test_what_xla_lacks_is_named():
    def crops(images):
        return tf.image.crop_and_resize(images, tf.zeros([2, 4]), tf.zeros([2], tf.int32), [7, 7])

    with pytest.raises(lowering.LoweringError, match=r"^detect: XLA has no CropAndResize.*; a TPU cannot run it\.$"):
        lowering._stablehlo(crops, [tf.TensorSpec([1, 32, 32, 3])], "detect")


def test_detect_is_of_one_core_and_one_photograph():
    program = lowering.lower_detect(small_pipeline())
    assert "tensor<1x480x640x3xui8>" in program.text and "all_reduce" not in program.text
    assert (program.name, program.cores, program.batch_per_core) == ("detect", 1, 1)


@pytest.mark.parametrize("topology", TOPOLOGIES.values(), ids=str)
def test_the_global_batch_is_shared(topology):
    pipeline = small_pipeline("train_config.batch_size=96")
    assert batch_per_core(pipeline, topology) * topology.cores == 96


def test_a_batch_that_cores_cannot_share_is_refused():
    with pytest.raises(UsageError, match=r"batch_size is 12, .*train_config.batch_size=8\."):
        batch_per_core(small_pipeline("train_config.batch_size=12"), get_topology("v3-8"))
