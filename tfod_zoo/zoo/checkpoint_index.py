"""What is in a checkpoint, read from its `.index`: key, type, shape, place and checksum of each tensor. No TensorFlow.

The entries are messages (BundleHeaderProto under the empty key, BundleEntryProto under each tensor's) of so few fields
that they are decoded here.
"""

from __future__ import annotations

import dataclasses
import math
import os
import struct
from collections.abc import Iterator
from pathlib import Path

from tfod_zoo.errors import ZooError
from tfod_zoo.zoo.table import MAX_TABLE_BYTES, TableError, read_table, read_varint, unmask_crc

# TensorFlow's DataType: number -> (name, bytes an element; 0 = not fixed).
_DTYPES = {
    1: ("float32", 4), 2: ("float64", 8), 3: ("int32", 4), 4: ("uint8", 1), 5: ("int16", 2), 6: ("int8", 1),
    7: ("string", 0), 8: ("complex64", 8), 9: ("int64", 8), 10: ("bool", 1), 14: ("bfloat16", 2), 17: ("uint16", 2),
    18: ("complex128", 16), 19: ("float16", 2), 22: ("uint32", 4), 23: ("uint64", 8),
}  # fmt: skip
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_MAX_RANK = 254  # TensorFlow's own bound
_MAX_SHARDS = 10_000


class CheckpointIndexError(ZooError):
    """A file is not a whole checkpoint index."""


@dataclasses.dataclass(frozen=True)
class TensorEntry:
    """One tensor of a checkpoint.

    Attributes:
      key: its name in the checkpoint.
      dtype: numpy's name of its type, or "string".
      shape: () for a scalar.
      shard: number of its data file.
      offset, size: where its bytes lie in that file.
      crc32c: of those bytes (for strings: of their lengths and contents).
    """

    key: str
    dtype: str
    shape: tuple[int, ...]
    shard: int
    offset: int
    size: int
    crc32c: int


@dataclasses.dataclass(frozen=True)
class CheckpointIndex:
    """A checkpoint's tensors in the order of their keys, and the number of its data files."""

    tensors: tuple[TensorEntry, ...]
    num_shards: int

    def data_files(self, prefix: Path) -> list[Path]:
        """The data files that belong to it, in order."""
        total = self.num_shards
        return [prefix.with_name(f"{prefix.name}.data-{shard:05d}-of-{total:05d}") for shard in range(total)]


def read_index(prefix: str | os.PathLike[str]) -> CheckpointIndex:
    """Reads `PREFIX.index`.

    Args:
      prefix: a checkpoint's prefix (`.../ckpt-0`); the index file itself will do.

    Raises:
      CheckpointIndexError: it is not there, or is damaged.
    """
    path = Path(prefix)
    if path.suffix != ".index":
        path = path.with_name(path.name + ".index")
    try:
        with open(path, "rb") as file:
            data = file.read(MAX_TABLE_BYTES + 1)
    except OSError as error:
        raise CheckpointIndexError(
            f"Cannot read {path} ({error.strerror or error}); give a checkpoint's prefix, such as .../ckpt-0."
        ) from error
    try:
        return parse_index(data)
    except TableError as error:
        raise CheckpointIndexError(f"{path} is not a whole checkpoint index: {error}; get it anew.") from error


def parse_index(data: bytes) -> CheckpointIndex:
    """The index in these bytes; TableError says what is wrong with them."""
    entries = read_table(data)
    if not entries or entries[0][0] != b"":
        raise TableError("it has no header")
    num_shards = _read_header(entries[0][1])
    return CheckpointIndex(tuple(_read_entry(key, value, num_shards) for key, value in entries[1:]), num_shards)


def _read_header(message: bytes) -> int:
    shards, big_endian = 1, 0
    for number, value in _fields(message):
        if number == 1:
            shards = _number(value)
        elif number == 2:
            big_endian = _number(value)
    if big_endian:
        raise TableError("its numbers are big-endian, as no zoo checkpoint's are")
    if not 0 < shards <= _MAX_SHARDS:
        raise TableError(f"it claims {shards} data files")
    return shards


def _read_entry(key: bytes, message: bytes, num_shards: int) -> TensorEntry:
    try:
        name = key.decode()
    except UnicodeDecodeError as error:
        raise TableError("a key is not text") from error
    numbers = {1: 0, 3: 0, 4: 0, 5: 0, 6: 0}
    shape: tuple[int, ...] = ()
    for number, value in _fields(message):
        if number == 2:
            shape = _read_shape(value, name)
        elif number == 7:
            raise TableError(f"{name} is a partitioned variable, as no zoo checkpoint has")
        elif number in numbers:
            numbers[number] = _number(value)
    dtype, shard, offset, size, crc = numbers.values()
    if dtype not in _DTYPES:
        raise TableError(f"{name} has type {dtype}, which is not known")
    label, width = _DTYPES[dtype]
    count = math.prod(shape)
    # Strings: a length of one byte at least for each, and the checksum of the lengths.
    if shard >= num_shards or offset >= 2**63 or (size != count * width if width else size < count + 4):
        raise TableError(f"{name} has {size} bytes at {offset} of file {shard}, which cannot be {label}{list(shape)}")
    return TensorEntry(name, label, shape, shard, offset, size, unmask_crc(crc))


def _read_shape(message: int | bytes, name: str) -> tuple[int, ...]:
    sizes = []
    for number, value in _fields(_message(message)):
        if number == 2:
            size = next((_number(size) for field, size in _fields(_message(value)) if field == 1), 0)
            sizes.append(size)
            if len(sizes) > _MAX_RANK or size >= 2**63:
                raise TableError(f"{name} has a shape that no tensor has")
        elif number == 3 and _number(value):
            raise TableError(f"{name} has no known shape")
    return tuple(sizes)


def _fields(message: bytes) -> Iterator[tuple[int, int | bytes]]:
    """(field number, value) of a protobuf message, its unknown fields too."""
    at = 0
    while at < len(message):
        tag, at = read_varint(message, at)
        kind = tag & 7
        value: int | bytes
        if kind == _VARINT:
            value, at = read_varint(message, at)
        elif kind in (_FIXED32, _FIXED64):
            width = 4 if kind == _FIXED32 else 8
            if at + width > len(message):
                raise TableError("an entry is cut off")
            value = struct.unpack("<I" if width == 4 else "<Q", message[at : at + width])[0]
            at += width
        elif kind == _BYTES:
            length, at = read_varint(message, at)
            if at + length > len(message):
                raise TableError("an entry is cut off")
            value = message[at : at + length]
            at += length
        else:
            raise TableError("an entry is not a message")
        yield tag >> 3, value


def _number(value: int | bytes) -> int:
    if isinstance(value, bytes):
        raise TableError("an entry has a field of another type")
    return value


def _message(value: int | bytes) -> bytes:
    if isinstance(value, int):
        raise TableError("an entry has a field of another type")
    return value
