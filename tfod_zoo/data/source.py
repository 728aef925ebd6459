"""Where records come from: an input reader's `input_path`s, resolved; the one place that knows their syntax.

  RECORDS                         TFRecord files of tf.Example: a path or a glob
  tfds:NAME[/CONFIG]:SPLIT[@DIR]  a TensorFlow Datasets data set, e.g. tfds:coco/2017:validation or
                                  tfds:voc/2007:train[:80%]@/data/tfds; without @DIR it lies in the folder that the
                                  environment variable TFOD_ZOO_DATA names, else in TFDS's default
"""

from __future__ import annotations

import functools
import math
import re
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tensorflow as tf
from google.protobuf.message import DecodeError

from tfod_zoo.data.errors import DataError
from tfod_zoo.data.mixture import Source, as_one_structure
from tfod_zoo.data.tf_example import ClassTable, Tensors, parse_example

_TFDS = re.compile(r"tfds:(?P<name>[^:@]+):(?P<split>[^@]+)(?:@(?P<folder>.+))?")
# TFRecord framing: length (8 bytes), its checksum (4), the record, its checksum (4).
_HEADER, _FOOTER = 12, 4
MAX_OPEN_FILES = 16
_RECORDS_LOOKED_AT = 100  # for one with keypoints, to check their number before anything long begins


@dataclass(frozen=True)
class TfdsPath:
    """A parsed `tfds:` path; `name` includes the config."""

    name: str
    split: str
    folder: str | None

    def __str__(self) -> str:
        return f"tfds:{self.name}:{self.split}" + (f"@{self.folder}" if self.folder else "")


def parse_tfds_path(path: str) -> TfdsPath:
    """Parses `tfds:NAME[/CONFIG]:SPLIT[@DIR]`.

    Raises:
        DataError: it is spelt otherwise.
    """
    match = _TFDS.fullmatch(path)
    if not match:
        raise DataError(f"{path!r} does not name a TFDS data set; write tfds:NAME[/CONFIG]:SPLIT[@DIR].")
    return TfdsPath(match["name"], match["split"], match["folder"])


def open_sources(
    paths: Sequence[str],
    label_map: object | None,
    num_readers: int = MAX_OPEN_FILES,
    num_keypoints: int = 0,
    weights: Sequence[float] = (),
    block_length: int = 32,
) -> list[Source]:
    """Resolves the `input_path`s of a reader.

    Args:
      paths: record globs and `tfds:` paths.
      label_map: LabelMap, or None.
      num_readers: files that a shuffled epoch reads side by side, shared among the sources by their weights.
      num_keypoints: keypoints of an object in the records; 0 reads none.
      weights: how often each path is drawn from, one a path; none if the paths are one data set.
      block_length: records read from a file before the next one's turn.

    Returns:
      with weights a source for each path that has a weight above 0; without, one for all record files and one for each
      TFDS data set. Indices run on from source to source, and all have raws and parsed fields of one structure.

    Raises:
      DataError: nothing there, a file that is not TFRecord or was cut off, weights that fit no paths, or another number
        of keypoints.
    """
    if not paths or any(not path or "PATH_TO_BE_CONFIGURED" in path for path in paths):
        raise DataError(
            "The input reader names no data (tf_record_input_reader.input_path); give it a record glob or "
            "tfds:NAME:SPLIT."
        )
    classes = ClassTable(label_map)

    def open_group(group: Sequence[str], readers: int) -> Source:
        if group[0].startswith("tfds:"):
            from tfod_zoo.data.tfds_source import open_tfds

            num_records, dataset, parse = open_tfds(parse_tfds_path(group[0]), label_map, num_keypoints)
            return Source(num_records, lambda _: dataset.enumerate(), parse)
        return _open_files(group, functools.partial(parse_example, classes=classes, num_keypoints=num_keypoints),
                           num_keypoints, readers, block_length)

    if weights:
        shares = used_weights(paths, weights)
        sources = [open_group([path], math.ceil(num_readers * share)) for path, share in shares]
    else:
        files = [path for path in paths if not path.startswith("tfds:")]
        groups = [*([files] if files else []), *([path] for path in paths if path.startswith("tfds:"))]
        sources = [open_group(group, num_readers) for group in groups]
    return as_one_structure(sources)


def used_weights(paths: Sequence[str], weights: Sequence[float]) -> list[tuple[str, float]]:
    """The paths that are drawn from, each with its share of the draws.

    Raises:
      DataError: not one weight a path, or weights that cannot be.
    """
    field = "sample_from_datasets_weights"
    if len(weights) != len(paths):
        raise DataError(f"{field} has {len(weights)} weights for {len(paths)} input_paths; give one for each.")
    total = sum(weights)
    if not 0 < total < math.inf or min(weights) < 0:
        raise DataError(f"{field} is {list(weights)}; give numbers of 0 or more, not all of them 0.")
    return [(path, weight / total) for path, weight in zip(paths, weights, strict=True) if weight]


def _open_files(
    paths: Sequence[str], parse: Callable[[Any], Tensors], num_keypoints: int, num_readers: int, block_length: int
) -> Source:
    files = record_files(paths)
    counts = [count_records(file) for file in files]
    if not sum(counts):
        raise DataError(f"{', '.join(paths)}: {len(files)} files without a single record; write them again.")
    if num_keypoints:
        _check_keypoints(files, num_keypoints)
    readers = max(1, min(num_readers, len(files), MAX_OPEN_FILES))
    return Source(sum(counts), _file_reader(files, counts, readers, max(block_length, 1)), parse)


def _check_keypoints(files: list[str], num_keypoints: int) -> None:
    """Refuses data whose first record with keypoints has another number of them: no record could be read."""
    for raw in tf.data.TFRecordDataset(files).take(_RECORDS_LOOKED_AT):
        try:
            fields = tf.train.Example.FromString(raw.numpy()).features.feature
        except DecodeError:
            continue  # the input pipeline counts it
        values = len(fields["image/object/keypoint/x"].float_list.value)
        objects = len(fields["image/object/bbox/xmin"].float_list.value)
        if objects and values:
            if values != objects * num_keypoints:
                raise DataError(
                    f"The records of {files[0]} have {values // objects} keypoints an object, but num_keypoints of the "
                    f"input reader is {num_keypoints}; set it to the records' number."
                )
            return


def record_files(paths: Sequence[str]) -> list[str]:
    """The files that globs match, sorted, each once.

    Raises:
      DataError: a glob matches none.
    """
    found: set[str] = set()
    for path in paths:
        matches = tf.io.gfile.glob(path)
        if not matches:
            raise DataError(f"No file matches {path} (tf_record_input_reader.input_path); check the path.")
        found.update(matches)
    return sorted(found)


def count_records(file: str) -> int:
    """Number of records of a TFRecord file, found by hopping from header to header.

    Raises:
      DataError: the file cannot be read, is not TFRecord, or ends inside a record.
    """
    if not Path(file).exists():  # gs:// and other remote files: read through, seeking costs a request each
        try:
            return int(tf.data.TFRecordDataset(file).reduce(tf.constant(0, tf.int64), lambda n, _: n + 1))
        except tf.errors.OpError as error:
            raise DataError(f"{file} cannot be read as TFRecord: {error.message}; write it again.") from error
    try:
        size = Path(file).stat().st_size
        with open(file, "rb") as stream:
            count = position = 0
            while position < size:
                stream.seek(position)
                header = stream.read(_HEADER)
                whole = len(header) == _HEADER
                position += _HEADER + struct.unpack("<Q", header[:8])[0] + _FOOTER if whole else 0
                if not whole or position > size:
                    kind = "is not a TFRecord file" if count == 0 else f"ends inside record {count}"
                    raise DataError(f"{file} {kind}; write it again.")
                count += 1
            return count
    except OSError as error:
        raise DataError(f"{file} cannot be read: {error.strerror}.") from error


def _file_reader(
    files: list[str], counts: list[int], readers: int, block_length: int
) -> Callable[[tf.Tensor | None], tf.data.Dataset]:
    starts = [sum(counts[:position]) for position in range(len(files))]

    def records(epoch: tf.Tensor | None) -> tf.data.Dataset:
        shards = tf.data.Dataset.from_tensor_slices((files, tf.constant(starts, tf.int64)))

        def read(file: tf.Tensor, start: tf.Tensor) -> tf.data.Dataset:
            return tf.data.TFRecordDataset(file).enumerate(start)

        if epoch is None:
            return shards.flat_map(read)
        shards = shards.shuffle(len(files), seed=epoch)
        return shards.interleave(read, cycle_length=readers, block_length=block_length)

    return records
