"""Reading a sorted string table, the container of a checkpoint's `.index`: sorted keys in blocks with checksums.

Layout: blocks, then a block that lists them, then a footer of 48 bytes. A block is entries (each key stores only what
differs from the key before it), then restart offsets, then one byte of compression and a masked crc32c. Whatever the
bytes are, reading them ends, and takes memory in proportion to the bounds below. No TensorFlow.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

# Far above any detector's: the zoo's largest index has 1,400 entries in 50 KB.
MAX_TABLE_BYTES = 8 * 2**20
_MAX_UNPACKED_BYTES = 16 * 2**20
_MAX_KEY_BYTES = 8 * 2**20
_MAX_ENTRIES = 100_000

_FOOTER_BYTES = 48
_TRAILER_BYTES = 5
_MAGIC = 0xDB4775248B80FB57
_PLAIN, _SNAPPY = 0, 1
_CRC_DELTA = 0xA282EAD8


class TableError(ValueError):
    """The bytes are not a whole table; the message is the end of a sentence: "PATH is damaged: ..."."""


def unmask_crc(masked: int) -> int:
    """The crc32c behind a stored one, which is rotated and shifted so that no crc is ever taken of a crc."""
    rotated = (masked - _CRC_DELTA) & 0xFFFFFFFF
    return (rotated >> 17) | (rotated << 15) & 0xFFFFFFFF


def read_varint(data: bytes, at: int) -> tuple[int, int]:
    """An unsigned number of 7 bits a byte, at most 64 bits: (value, where it ends)."""
    value = 0
    for shift in range(0, 70, 7):
        if at >= len(data):
            raise TableError("a number is cut off")
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            if value >> 64:
                break
            return value, at
    raise TableError("a number is longer than 64 bits")


def read_table(data: bytes) -> list[tuple[bytes, bytes]]:
    """Every (key, value) in the order of the keys.

    Raises:
      TableError: a checksum, a length or the order of the keys is wrong, or the table is larger than any checkpoint's.
    """
    if len(data) > MAX_TABLE_BYTES:
        raise TableError(f"it has more than {MAX_TABLE_BYTES} bytes")
    if len(data) < _FOOTER_BYTES:
        raise TableError(f"it has {len(data)} bytes, less than the footer of an index")
    footer = data[-_FOOTER_BYTES:]
    if struct.unpack("<Q", footer[-8:])[0] != _MAGIC:
        raise TableError("it does not end as an index does")
    reader = _Blocks(data)
    meta_offset, meta_size, at = _handle(footer, 0)
    reader.contents(meta_offset, meta_size)
    entries: list[tuple[bytes, bytes]] = []
    key_bytes = after = 0
    last: bytes | None = None
    for _, value in _entries(reader.contents(*_handle(footer, at)[:2])):
        offset, size, _ = _handle(value, 0)
        # Each block once: a list that names the same block many times could otherwise grow without bound.
        if offset < after:
            raise TableError(f"the block at {offset} is listed twice or out of order")
        after = offset + size + _TRAILER_BYTES
        for key, content in _entries(reader.contents(offset, size)):
            if last is not None and key <= last:
                raise TableError(f"the keys of the block at {offset} are not in order")
            last = key
            key_bytes += len(key)
            entries.append((key, content))
            if len(entries) > _MAX_ENTRIES or key_bytes > _MAX_KEY_BYTES:
                raise TableError("it has more entries than any checkpoint")
    return entries


def _handle(data: bytes, at: int) -> tuple[int, int, int]:
    offset, at = read_varint(data, at)
    size, at = read_varint(data, at)
    return offset, size, at


class _Blocks:
    """Contents of the blocks of a table, checked and unpacked, within one bound for all of them."""

    def __init__(self, data: bytes):
        self._data = data
        self._left = _MAX_UNPACKED_BYTES

    def contents(self, offset: int, size: int) -> bytes:
        import google_crc32c

        end = offset + size
        if end + _TRAILER_BYTES > len(self._data):
            raise TableError(f"the block at {offset} is cut off")
        kind, stored = struct.unpack("<BI", self._data[end : end + _TRAILER_BYTES])
        if google_crc32c.value(self._data[offset : end + 1]) != unmask_crc(stored):
            raise TableError(f"the block at {offset} has a wrong checksum")
        contents = self._data[offset:end]
        if kind == _SNAPPY:
            contents = unpack_snappy(contents, self._left)
        elif kind != _PLAIN:
            raise TableError(f"the block at {offset} is compressed in a way ({kind}) that no checkpoint is")
        self._left -= len(contents)
        return contents


def _entries(block: bytes) -> Iterator[tuple[bytes, bytes]]:
    if len(block) < 4:
        raise TableError("a block is shorter than its end")
    end = len(block) - 4 - 4 * struct.unpack("<I", block[-4:])[0]
    if end < 0:
        raise TableError("a block is shorter than its restarts")
    key, at = b"", 0
    while at < end:
        shared, at = read_varint(block, at)
        own, at = read_varint(block, at)
        length, at = read_varint(block, at)
        if shared > len(key) or at + own + length > end:
            raise TableError("an entry reaches out of its block")
        key = key[:shared] + block[at : at + own]
        at += own
        yield key, block[at : at + length]
        at += length


def unpack_snappy(data: bytes, limit: int) -> bytes:
    """Undoes Snappy, which the zoo's own indexes are packed with; TableError above `limit` bytes or on damage."""
    length, at = read_varint(data, 0)
    if length > limit:
        raise TableError("a block unpacks to more than any checkpoint's")
    out = bytearray()
    while at < len(data):
        tag = data[at]
        at += 1
        kind = tag & 3
        if kind == 0:  # literal bytes
            count = tag >> 2
            if count >= 60:
                extra = count - 59
                count = int.from_bytes(data[at : at + extra], "little")
                at += extra
            count += 1
            if at + count > len(data):
                raise TableError("a packed block is cut off")
            out += data[at : at + count]
            at += count
        else:  # a copy of what was written `distance` bytes ago, which may reach into itself
            extra = (0, 1, 2, 4)[kind]
            if at + extra > len(data):
                raise TableError("a packed block is cut off")
            distance = int.from_bytes(data[at : at + extra], "little")
            at += extra
            count = (tag >> 2) + 1
            if kind == 1:
                distance |= tag >> 5 << 8
                count = (tag >> 2 & 7) + 4
            if not 0 < distance <= len(out):
                raise TableError("a packed block points outside of itself")
            start = len(out) - distance
            pattern = out[start : start + count]
            out += pattern * (count // len(pattern)) + pattern[: count % len(pattern)]
        if len(out) > length:
            break
    if len(out) != length:
        raise TableError("a packed block has another length than it says")
    return bytes(out)
