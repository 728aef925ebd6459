"""Several sources of records as one stream whose every position is known: by weight, or each record once an epoch."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorflow as tf

from tfod_zoo.data.errors import DataError

Tensors = dict[str, tf.Tensor]
_DRAWS = 1 << 16  # made at a time, so that those before a position are counted fast
_ENDLESS = np.iinfo(np.int64).max


@dataclass(frozen=True)
class Source:
    """Records in a fixed order.

    Attributes:
      num_records: how many.
      records: `epoch -> dataset of (index, raw)`; `epoch` is an int64 scalar that seeds the order of the files, or None
        for the order in which they lie; index is the record's int64 place in the unshuffled data set.
      parse: raw -> what `tf_example.parse_example` returns.
    """

    num_records: int
    records: Callable[[tf.Tensor | None], tf.data.Dataset]
    parse: Callable[[Any], Tensors]


def as_one_structure(sources: Sequence[Source]) -> list[Source]:
    """The same sources with indices that run on from one to the next, and raws that can follow each other in one data
    set: where they differ, a raw has the number of its source and a raw of each, all but one of them blank.

    Raises:
      DataError: a TFDS data set whose records have no fixed form.
    """
    starts = np.cumsum([0, *(source.num_records for source in sources)])[:-1]
    # Record files share a form, and a parser but for its arguments.
    specs = [source.records(None).element_spec[1] for source in sources]
    alike = all(isinstance(spec, tf.TensorSpec) for spec in specs)
    if len(sources) > 1 and not alike:
        for spec in tf.nest.flatten(specs):
            if not isinstance(spec, tf.TensorSpec):
                raise DataError("A TFDS data set with ragged features cannot be mixed with others; name it alone.")

    def moved(number: int, source: Source) -> Source:
        def records(epoch: tf.Tensor | None) -> tf.data.Dataset:
            def place(index: tf.Tensor, raw: Any) -> tuple[tf.Tensor, Any]:
                if not alike:
                    blanks = [tf.nest.map_structure(_blank, spec) for spec in specs]
                    raws = tuple([*blanks[:number], raw, *blanks[number + 1 :]])
                    raw = {"source": tf.constant(number), "raws": raws}
                return index + starts[number], raw

            return source.records(epoch).map(place)

        return Source(source.num_records, records, source.parse if alike else parse)

    def parse(raw: Any) -> Tensors:
        pairs = zip(sources, raw["raws"], strict=True)
        return tf.switch_case(raw["source"], [functools.partial(source.parse, its) for source, its in pairs])

    return [moved(number, source) for number, source in enumerate(sources)] if len(sources) > 1 else list(sources)


def _blank(spec: tf.TensorSpec) -> tf.Tensor:
    return tf.zeros([side or 0 for side in spec.shape], spec.dtype)


def in_turn(parts: Sequence[tf.data.Dataset], counts: Sequence[int], seed: tf.Tensor) -> tf.data.Dataset:
    """One epoch of several parts, every element once, in an order of the parts that `seed` (int64 scalar) decides."""
    if len(parts) == 1:
        return parts[0]
    turns = tf.repeat(tf.range(len(parts), dtype=tf.int64), tf.constant(counts))
    turns = tf.random.experimental.stateless_shuffle(turns, tf.stack([seed, tf.constant(0, tf.int64)]))
    return tf.data.Dataset.choose_from_datasets(
        list(parts), tf.data.Dataset.from_tensor_slices(turns), stop_on_empty_dataset=False
    )


def by_weight(
    open_at: Sequence[Callable[[int], tf.data.Dataset]], shares: Sequence[float], seed: int, start: int
) -> tf.data.Dataset:
    """The endless mixture of endless streams, from a position on; each element's stream is drawn by the shares.

    Args:
      open_at: for each stream, `position -> the stream from there on`.
      shares: of the draws, adding up to 1.
      seed: of the draws.
      start: position in the mixture.
    """
    limits = np.cumsum(shares).astype(np.float32)
    limits[-1] = 2.0  # rounding must leave no draw without a stream

    def draws(block: Any) -> tf.Tensor:
        numbers = tf.random.stateless_uniform([_DRAWS], tf.stack([tf.cast(seed % 2**62, tf.int64), block]))
        return tf.searchsorted(limits, numbers, side="right", out_type=tf.int64)

    block, rest = divmod(start, _DRAWS)
    passed = np.zeros(len(shares), np.int64)
    for number in range(block):
        passed += np.bincount(draws(np.int64(number)).numpy(), minlength=len(shares))
    passed += np.bincount(draws(np.int64(block)).numpy()[:rest], minlength=len(shares))
    streams = [open_one(int(position)) for open_one, position in zip(open_at, passed, strict=True)]
    blocks = tf.data.Dataset.range(block, _ENDLESS)
    chosen = blocks.flat_map(lambda number: tf.data.Dataset.from_tensor_slices(draws(number))).skip(rest)
    return tf.data.Dataset.choose_from_datasets(streams, chosen, stop_on_empty_dataset=False)
