"""From a pipeline config's input reader to batches that a detector takes (pipeline spec, section 4).

The order of the examples and every random draw are functions of the seed and the example's position in the endless
stream, never of timing or of earlier draws. So a run that resumes at position n sees exactly what it would have seen.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorflow as tf

from tfod_zoo.data.augmentation import augmenter
from tfod_zoo.data.errors import UNREADABLE, DataError, DataProblems
from tfod_zoo.data.groundtruth import check_groundtruth, pad_groundtruth, reframe_to_canvas
from tfod_zoo.data.image_decoding import decode_rgb, or_else
from tfod_zoo.data.mixture import Source, by_weight, in_turn
from tfod_zoo.data.source import open_sources, used_weights
from tfod_zoo.modeling.image_resizer import canvas_size, resize_and_pad

Tensors = dict[str, tf.Tensor]
_ENDLESS = np.iinfo(np.int64).max
# In training an unreadable record's place is taken by the last readable one before it (with other augmentation), so
# that positions stay what they are. This many records before the start are read to know it.
_LEAD_IN = 32
# What the graph says, as a tf.errors.InvalidArgumentError, when none of them can be read.
NOTHING_READABLE = "none of the first records of the training data could be read"


def build_dataset(
    pipeline: Any,
    *,
    training: bool,
    batch_size: int | None = None,
    seed: int = 0,
    skip_examples: int = 0,
    input_context: tf.distribute.InputContext | None = None,
    problems: DataProblems | None = None,
) -> tf.data.Dataset:
    """Batches of `(features, groundtruth)` with static shapes from the train reader, or the first eval reader.

    Training is endless, shuffled (`train_input_reader.shuffle`) and augmented; evaluation is one pass in stored order,
    and its last batch may be smaller. An image without objects stays, as a negative. Objects that cannot be used are
    dropped and counted, unreadable records likewise (`problems`), with a warning.

    Args:
      pipeline: TrainEvalPipelineConfig message.
      training: which reader, and whether to repeat, shuffle and augment.
      batch_size: global batch size; default train_config.batch_size or eval_config.batch_size.
      seed: of order and augmentation.
      skip_examples: start this far (in examples of the global stream) into the training stream, without decoding what
        is passed over.
      input_context: one host's share of the input: batches are per replica, hosts take turns record by record.
      problems: counts what was wrong with records; default a new one, which only warns.

    Returns:
      features: image `[B, H, W, 3]` float32 in 0..255, resized and padded; true_image_shape `[B, 3]` int32 before
        padding; original_shape `[B, 2]` int32; source_id `[B]` string.
      groundtruth: boxes `[B, M, 4]` float32 yxyx normalised to the padded image; classes `[B, M]` int32 0-based;
        weights `[B, M]` float32; is_crowd `[B, M]` bool; area `[B, M]` float32 in original px^2 (0 = unknown);
        num_boxes `[B]` int32; where the reader's num_keypoints K is above 0, keypoints `[B, M, K, 2]` float32 (y, x)
        normalised to the padded image, NaN where not labelled. M is the reader's max_number_of_boxes; rows beyond
        num_boxes are zero, their keypoints NaN.

    Raises:
      DataError: no data, or an option that is not supported.
    """
    setup = _setup(pipeline, training)
    batch_size = batch_size or setup.default_batch_size
    problems = problems or DataProblems()
    batch_size = _per_replica(batch_size, input_context)
    examples = _positions(setup, seed, skip_examples, input_context) if training else _one_pass(setup, input_context)
    read = functools.partial(_read, setup=setup, problems=problems)
    examples = examples.map(read, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)
    if training:
        lead_in = _lead_in(setup, skip_examples, input_context)
        nothing = {**_empty_example(setup.num_keypoints), "classes": tf.zeros([0], tf.int32)}  # 0-based by then
        examples = examples.scan(nothing, _fill_holes).skip(lead_in)
    else:
        examples = examples.filter(lambda position, example: example["readable"])
    finish = functools.partial(_finish, setup=setup, seed=seed)
    examples = examples.map(finish, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)
    dataset = examples.batch(batch_size, drop_remainder=training).prefetch(tf.data.AUTOTUNE)
    options = tf.data.Options()
    options.experimental_distribute.auto_shard_policy = tf.data.experimental.AutoShardPolicy.OFF
    return dataset.with_options(options)


def count_examples(pipeline: Any, training: bool) -> int | None:
    """How many examples an epoch of the train reader, or a pass of the first eval reader, has.

    Raises:
      DataError: no data.
    """
    setup = _setup(pipeline, training)
    return setup.epoch_size


@dataclass(frozen=True)
class _Setup:
    """What a config says about one reader."""

    sources: list[Source]
    shares: list[float]  # of the draws, by source; none if the sources are one data set
    sample: int
    shuffle_buffer: int
    default_batch_size: int
    max_boxes: int
    num_keypoints: int
    num_classes: int
    resizer: Any
    augment: Any

    @property
    def epoch_size(self) -> int:
        return sum(self.sampled_sizes)

    @property
    def sampled_sizes(self) -> list[int]:
        """Examples of an epoch, by source."""
        ends = np.cumsum([0, *(source.num_records for source in self.sources)])
        multiples = -(-ends // self.sample)  # of sample_1_of_n_examples, below each end
        return np.diff(multiples).tolist()

    def groundtruth_of(self, example: Tensors) -> Tensors:
        """The part of an example that describes its objects."""
        keys = ("boxes", "classes", "weights", "is_crowd", "area", *(("keypoints",) if self.num_keypoints else ()))
        return {key: example[key] for key in keys}


def _setup(pipeline: Any, training: bool) -> _Setup:
    if training:
        reader, default_batch = pipeline.train_input_reader, pipeline.train_config.batch_size
    else:
        if not pipeline.eval_input_reader:
            raise DataError("The config has no eval_input_reader; add one, or generate it with evaluation data.")
        reader, default_batch = pipeline.eval_input_reader[0], pipeline.eval_config.batch_size
    name = "train_input_reader" if training else "eval_input_reader"
    if reader.WhichOneof("input_reader") == "external_input_reader":
        raise DataError(f"{name}.external_input_reader is not supported; use tf_record_input_reader.")
    if reader.num_additional_channels:
        raise DataError(f"{name}.num_additional_channels is not supported; remove it (the networks take RGB).")
    _refuse(reader, name, pipeline.train_config if training else None)
    if reader.max_number_of_boxes < 1:
        raise DataError(f"{name}.max_number_of_boxes is {reader.max_number_of_boxes}; give 1 or more.")
    label_map = None
    if reader.label_map_path:
        from tfod_zoo.config.label_map import read_label_map

        label_map = read_label_map(reader.label_map_path)
    family = getattr(pipeline.model, pipeline.model.WhichOneof("model"))
    canvas_size(family.image_resizer)  # refuses what has no fixed size before any file is opened
    keypoints = reader.num_keypoints
    augment = augmenter(pipeline.train_config.data_augmentation_options, keypoints) if training else None
    paths, weights = list(reader.tf_record_input_reader.input_path), list(reader.sample_from_datasets_weights)
    return _Setup(
        sources=open_sources(paths, label_map, reader.num_readers, keypoints, weights, reader.read_block_length),
        shares=[share for _, share in used_weights(paths, weights)] if weights else [],
        sample=max(reader.sample_1_of_n_examples, 1),
        shuffle_buffer=max(reader.shuffle_buffer_size, 1) if training and reader.shuffle else 0,
        default_batch_size=default_batch,
        max_boxes=reader.max_number_of_boxes,
        num_keypoints=keypoints,
        num_classes=family.num_classes,
        resizer=family.image_resizer,
        augment=augment,
    )


def _refuse(reader: Any, name: str, train_config: Any | None) -> None:
    """Fields that would change what is learned, and that nothing here honours."""
    fields = {
        f"{name}.input_type": reader.input_type == 2,  # TF_SEQUENCE_EXAMPLE
        f"{name}.expand_labels_hierarchy": reader.expand_labels_hierarchy,
        f"{name}.keypoint_type_weight": any(weight != 1 for weight in reader.keypoint_type_weight),
        f"{name}.load_multiclass_scores": reader.load_multiclass_scores,
    }
    if train_config is not None:
        fields["train_config.use_multiclass_scores"] = train_config.use_multiclass_scores
        fields["train_config.merge_multiple_label_boxes"] = train_config.merge_multiple_label_boxes
    for field, is_set in fields.items():
        if is_set:
            raise DataError(f"{field} is not supported, and without it another model would be trained; remove it.")


def _per_replica(batch_size: int, context: tf.distribute.InputContext | None) -> int:
    replicas = context.num_replicas_in_sync if context else 1
    if batch_size < 1 or batch_size % replicas:
        raise DataError(f"batch_size {batch_size} cannot be shared by {replicas} replicas; make it a multiple of that.")
    return batch_size // replicas


def _hosts(context: tf.distribute.InputContext | None) -> tuple[int, int]:
    """(number of input pipelines, index of this one)."""
    return (context.num_input_pipelines, context.input_pipeline_id) if context else (1, 0)


def _records(setup: _Setup, epoch: tf.Tensor | None, seed: int, only: int | None = None) -> tf.data.Dataset:
    """One epoch of (record index, raw), in stored order if `epoch` is None or the reader does not shuffle.

    `only` picks one of the sources; otherwise it is all of them.
    """
    shuffled = epoch is not None and setup.shuffle_buffer > 0
    order = _epoch_seed(epoch, seed) if shuffled else None
    chosen = [only] if only is not None else list(range(len(setup.sources)))
    parts = [setup.sources[number].records(order) for number in chosen]
    if setup.sample > 1:
        parts = [part.filter(lambda index, raw: index % setup.sample == 0) for part in parts]
    if not shuffled:
        return functools.reduce(lambda one, other: one.concatenate(other), parts)
    records = in_turn(parts, [setup.sampled_sizes[number] for number in chosen], order)
    return records.shuffle(setup.shuffle_buffer, seed=order)


def _epoch_seed(epoch: tf.Tensor, seed: int) -> tf.Tensor:
    # A prime keeps the epochs of neighbouring seeds apart (seed 0's second epoch is not seed 1's first).
    return epoch + np.int64(seed) * 1_000_003 + 1


def _lead_in(setup: _Setup, skip: int, context: tf.distribute.InputContext | None) -> int:
    """Examples that this host reads before its first one: some in stored order, and those just before the position."""
    hosts, _ = _hosts(context)
    return min(_LEAD_IN, setup.epoch_size) + min(_LEAD_IN, skip // hosts)


def _positions(
    setup: _Setup, seed: int, skip: int, context: tf.distribute.InputContext | None
) -> tf.data.Dataset:
    """This host's (position, (record index, raw)): the lead-in, then the endless stream from `skip` on."""
    hosts, host = _hosts(context)
    if skip % hosts:
        raise DataError(f"skip_examples {skip} is no multiple of the {hosts} hosts; skip whole batches.")
    start = skip - min(_LEAD_IN, skip // hosts) * hosts
    if setup.shares:
        numbers = range(len(setup.sources))
        opened = [functools.partial(_endless, setup, seed + number, only=number) for number in numbers]
        stream = by_weight(opened, setup.shares, seed, start)
    else:
        stream = _endless(setup, seed, start)
    stream = tf.data.Dataset.zip((tf.data.Dataset.range(start, _ENDLESS), stream)).shard(hosts, host)
    first = _records(setup, None, seed).take(_LEAD_IN)
    return first.map(lambda index, raw: (np.int64(-1), (index, raw))).concatenate(stream)


def _endless(setup: _Setup, seed: int, start: int, only: int | None = None) -> tf.data.Dataset:
    """Epoch after epoch of (record index, raw), of one source or all, from a position on."""
    size = setup.epoch_size if only is None else setup.sampled_sizes[only]
    if not size:
        raise DataError(f"sample_1_of_n_examples {setup.sample} leaves nothing of a source; make it smaller.")
    epoch, rest = divmod(start, size)

    def one_epoch(number: tf.Tensor) -> tf.data.Dataset:
        # Of this function's graph alone: the order must not depend on the process's own global seed, and TensorFlow
        # cannot mix a global seed of 0 with a seed that is a tensor.
        tf.random.set_seed(1)
        return _records(setup, number, seed, only)

    return tf.data.Dataset.range(epoch, _ENDLESS).flat_map(one_epoch).skip(rest)


def _one_pass(setup: _Setup, context: tf.distribute.InputContext | None) -> tf.data.Dataset:
    return _records(setup, None, 0).enumerate().shard(*_hosts(context))


def _empty_example(num_keypoints: int) -> Tensors:
    return {
        "record": tf.constant(-1, tf.int64),
        "readable": tf.constant(False),
        "image": tf.zeros([0, 0, 3], tf.uint8),
        "source_id": tf.constant(""),
        "boxes": tf.zeros([0, 4]),
        "classes": tf.zeros([0], tf.int64),
        "weights": tf.zeros([0]),
        "is_crowd": tf.zeros([0], tf.bool),
        "area": tf.zeros([0]),
        **({"keypoints": tf.zeros([0, num_keypoints, 2])} if num_keypoints else {}),
    }


def _read(position: tf.Tensor, indexed: Any, *, setup: _Setup, problems: DataProblems) -> tuple[tf.Tensor, Tensors]:
    """Parses and decodes one record, drops what cannot be used, and reports it."""
    index, raw = indexed

    def parse(record: Any) -> Tensors:
        fields = setup.sources[0].parse(record)
        image = decode_rgb(fields.pop("encoded"))
        return {"record": index, "readable": tf.size(image) > 0, "image": image, **fields}

    example = or_else(parse, raw, _empty_example(setup.num_keypoints))
    groundtruth, counts = check_groundtruth(setup.groundtruth_of(example), setup.num_classes, setup.max_boxes)
    counts = tf.tensor_scatter_nd_update(counts, [[UNREADABLE]], [tf.cast(~example["readable"], tf.int64)])

    def report(record: np.ndarray, name: bytes, values: np.ndarray) -> np.int64:
        label = f"image {name.decode(errors='replace')!r}" if name else f"record {int(record)}"
        problems.add(int(record), label, values.tolist())
        return np.int64(0)

    def tell() -> tf.Tensor:
        return tf.numpy_function(report, [index, example["source_id"], counts], tf.int64)

    told = tf.cond(tf.reduce_any(counts > 0), tell, lambda: tf.constant(0, tf.int64))
    with tf.control_dependencies([told]):
        readable = tf.identity(example["readable"])
    return position, {**example, **groundtruth, "readable": readable}


def _fill_holes(last: Tensors, item: Any) -> tuple[Tensors, Any]:
    position, example = item
    chosen = tf.cond(example["readable"], lambda: example, lambda: last)
    known = tf.debugging.Assert(
        chosen["readable"] | (position < 0),
        [NOTHING_READABLE, position],
    )
    with tf.control_dependencies([known] if known is not None else []):
        position = tf.identity(position)
    return chosen, (position, chosen)


def _finish(position: tf.Tensor, example: Tensors, *, setup: _Setup, seed: int) -> tuple[Tensors, Tensors]:
    """Augments, resizes and pads one example."""
    image = example["image"]
    original_shape = tf.shape(image)[:2]
    groundtruth = setup.groundtruth_of(example)
    if setup.augment is not None:
        root = tf.constant([seed % 2**31, seed // 2**31 % 2**31], tf.int32)
        key = tf.random.fold_in(root, tf.cast(position, tf.int32))
        image, groundtruth = setup.augment(image, groundtruth, key)
    canvas, true_shape = resize_and_pad(image, setup.resizer)
    groundtruth = reframe_to_canvas(groundtruth, true_shape, canvas_size(setup.resizer))
    features = {
        "image": canvas,
        "true_image_shape": true_shape,
        "original_shape": original_shape,
        "source_id": example["source_id"],
    }
    return features, pad_groundtruth(groundtruth, setup.max_boxes)
