"""Unpacking a .tar.gz of an unknown sender: plain files and folders below one place, within bounds, to the last byte.

What is refused: a member that leads out of the folder, is a link, a device or a sparse file, or is there twice; more
members, a longer name or more bytes than any model has; a stream that unpacks out of all proportion; damage anywhere,
behind the last member too. Files get no permissions from the archive.
"""

from __future__ import annotations

import dataclasses
import errno
import os
import shutil
import tarfile
import zlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path, PurePosixPath
from typing import IO, Any, cast

from tfod_zoo.errors import ZooError

_CHUNK_BYTES = 2**20
# The zoo's largest archive has 1.4 GB, a dozen members, and unpacks to little more (weights hardly compress).
_MAX_MEMBERS = 10_000
_MAX_NAME_CHARACTERS = 400
_MAX_UNPACKED_BYTES = 16 * 2**30
_MAX_RATIO = 20
_RATIO_FREE_BYTES = 2**30  # bytes that need no excuse
_MAX_DEFLATE_RATIO = 1032  # DEFLATE's own bound (https://zlib.net/zlib_tech.html)
# Headers with long names come before a member; tarfile would read a hostile one of any size into memory.
_MAX_HEADER_BYTES = 4 * _CHUNK_BYTES

_GZIP = 16 + zlib.MAX_WBITS  # zlib's word for "gzip, its header and checksum too"

Show = Callable[[int], None]


class ArchiveError(ZooError):
    """An archive is damaged or holds what no zoo archive does; the message is a clause."""


class DamagedArchiveError(ArchiveError):
    """The bytes are not a whole .tar.gz: fetching them again may help."""


@dataclasses.dataclass(frozen=True)
class FileFacts:
    """Size and crc32c of an unpacked file."""

    size: int
    crc32c: int


class _Unzipped:
    """The tar inside a .tar.gz as a stream. Reading past what `allow` permitted, or past the ratio, raises.

    One chunk is unpacked ahead by the thread of `pool`, while the one before it is written. `most_bytes` is what the
    file can unpack to at all.
    """

    def __init__(self, file: IO[bytes], show: Show, pool: ThreadPoolExecutor):
        self._file, self._show, self._pool = file, show, pool
        self.most_bytes = _MAX_DEFLATE_RATIO * os.fstat(file.fileno()).st_size
        self._inflater: Any = zlib.decompressobj(_GZIP)
        self._packed = b""
        self._taken = self._given = 0
        self._ready = bytearray()
        self._allowed = _MAX_HEADER_BYTES
        self._ahead = pool.submit(self._inflate)

    def allow(self, count: int) -> None:
        """Permits `count` more bytes."""
        self._allowed = self._given + count

    def read(self, count: int) -> bytes:
        """Up to `count` bytes, less only at the end."""
        while len(self._ready) < count and (chunk := self._ahead.result()):
            self._ahead = self._pool.submit(self._inflate)
            self._ready += chunk
        given = bytes(self._ready[:count])
        del self._ready[:count]
        self._given += len(given)
        if self._given > self._allowed:
            raise ArchiveError("has a header longer than any zoo archive's")
        if self._given > min(_MAX_UNPACKED_BYTES, _RATIO_FREE_BYTES + _MAX_RATIO * self._taken):
            raise ArchiveError(f"unpacks {self._taken} bytes to more than {self._given}: a bomb, not a model")
        return given

    def _inflate(self) -> bytes:
        """The next bytes of the tar, at most a chunk; empty at the end of the file."""
        while True:
            if self._inflater.eof:
                self._packed = self._inflater.unused_data or self._read_packed()
                if not self._packed.strip(b"\0"):  # padding of a tape, or the end
                    if not self._packed:
                        return b""
                    self._packed = b""
                    self._inflater = _Ended()
                    continue
                self._inflater = zlib.decompressobj(_GZIP)
            elif not self._packed:
                self._packed = self._read_packed()
                if not self._packed:
                    raise DamagedArchiveError("is damaged (it ends too early)")
            try:
                chunk = self._inflater.decompress(self._packed, _CHUNK_BYTES)
            except zlib.error as error:
                raise DamagedArchiveError(f"is damaged ({error})") from error
            self._packed = self._inflater.unconsumed_tail
            if chunk:
                return chunk

    def _read_packed(self) -> bytes:
        packed = self._file.read(_CHUNK_BYTES)
        self._taken += len(packed)
        self._show(self._taken)
        return packed


class _Ended:
    """In place of an inflater once only padding may follow."""

    eof, unused_data, unconsumed_tail = True, b"", b""


def unpack(archive: Path, target: Path, show: Show = lambda packed_bytes: None) -> dict[str, FileFacts]:
    """Unpacks `archive` below `target`, which is made.

    Args:
      archive: a .tar.gz.
      target: a folder that is not there yet.
      show: called with the number of packed bytes read so far.

    Returns:
      Path inside `target` (with slashes) -> facts of each file.

    Raises:
      ArchiveError: what is wrong with the archive, a clause; DamagedArchiveError where it is damage.
      OSError: writing failed; ENOSPC before the disk is full.
    """
    files: dict[str, FileFacts] = {}
    target.mkdir()
    with open(archive, "rb") as packed, ThreadPoolExecutor(1) as pool:
        stream = _Unzipped(packed, show, pool)
        try:
            with tarfile.open(fileobj=cast(Any, stream), mode="r|", bufsize=_CHUNK_BYTES) as members:
                for count, member in enumerate(members):
                    if count >= _MAX_MEMBERS:
                        raise ArchiveError(f"has more than {_MAX_MEMBERS} members")
                    _unpack_member(members, member, target, stream, files)
                    stream.allow(_MAX_HEADER_BYTES)
                _read_to_the_end(members, stream)
        except tarfile.TarError as error:
            raise DamagedArchiveError(f"is damaged ({error})") from error
        except (ValueError, OverflowError) as error:  # a number in a header that is none
            raise DamagedArchiveError(f"is damaged ({error})") from error
    return files


def _read_to_the_end(members: tarfile.TarFile, stream: _Unzipped) -> None:
    """tar stops at its own end mark, or at a header that is none; padding and gzip's checksum come after it."""
    assert members.fileobj is not None
    stream.allow(_MAX_UNPACKED_BYTES)
    while rest := members.fileobj.read(_CHUNK_BYTES):
        if rest.strip(b"\0"):
            raise DamagedArchiveError("is damaged (something follows its last member)")


def _unpack_member(
    members: tarfile.TarFile, member: tarfile.TarInfo, target: Path, stream: _Unzipped, files: dict[str, FileFacts]
) -> None:
    inside = _inside(member)
    path = target / inside
    if member.isdir():
        _make_folder(path, member)
        return
    if not member.isfile() or member.issparse():
        raise ArchiveError(f"has {member.name!r}, a link, a device or a sparse file, which is refused")
    if member.size > _MAX_UNPACKED_BYTES:
        raise ArchiveError(f"has {member.name!r} of {member.size} bytes, more than any zoo archive's")
    if member.size > stream.most_bytes:  # or a damaged header would read as a full disk
        raise DamagedArchiveError(f"is damaged ({member.name!r} is said to have more bytes than the archive can hold)")
    if member.size > shutil.disk_usage(target).free:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    stream.allow(member.size + _MAX_HEADER_BYTES)
    _make_folder(path.parent, member)
    content = members.extractfile(member)
    assert content is not None  # it is a file
    try:
        with content, open(path, "xb", buffering=0) as out:
            files[inside.as_posix()] = _copy(content, out)
    except FileExistsError as error:
        raise ArchiveError(f"has {member.name!r} twice, which is refused") from error


def _inside(member: tarfile.TarInfo) -> PurePosixPath:
    name = member.name
    inside = PurePosixPath(name)
    if inside.is_absolute() or ".." in inside.parts or "\\" in name or not name.isprintable():
        raise ArchiveError(f"has {name[:_MAX_NAME_CHARACTERS]!r}, which leads out of its folder and is refused")
    if len(name.encode()) > _MAX_NAME_CHARACTERS or any(len(part.encode()) > 255 for part in inside.parts):
        raise ArchiveError(f"has the name {name[:40]!r}..., longer than any zoo archive's")
    return inside


def _make_folder(path: Path, member: tarfile.TarInfo) -> None:
    try:
        path.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError) as error:
        raise ArchiveError(f"has {member.name!r} where a file is already, which is refused") from error


def _copy(content: IO[bytes], out: IO[bytes]) -> FileFacts:
    import google_crc32c

    size = crc = 0
    while chunk := content.read(_CHUNK_BYTES):
        left = memoryview(chunk)
        while left:  # an unbuffered file may take less than it is given
            left = left[out.write(left) :]
        crc = google_crc32c.extend(crc, chunk)
        size += len(chunk)
    return FileFacts(size, crc)
