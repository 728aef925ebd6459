"""Hashes of an archive: those that a host may state, and the one that a lock file keeps."""

from __future__ import annotations

import base64
import binascii
import dataclasses
import hashlib
from collections.abc import Callable
from pathlib import Path

_CHUNK_BYTES = 2**20


@dataclasses.dataclass(frozen=True)
class StatedHashes:
    """What a host says of an object in `x-goog-hash` (hexadecimal); None = it does not say."""

    md5: str | None = None
    crc32c: str | None = None

    @classmethod
    def from_header(cls, header: str) -> StatedHashes:
        """From "crc32c=BASE64,md5=BASE64"; a part that is not base64 of the right length counts as not stated."""
        stated = {}
        for part in header.split(","):
            kind, _, value = part.strip().partition("=")
            length = {"md5": 16, "crc32c": 4}.get(kind)
            try:
                digest = base64.b64decode(value, validate=True)
            except binascii.Error:
                continue
            if len(digest) == length:
                stated[kind] = digest.hex()
        return cls(**stated)

    def __bool__(self) -> bool:
        return bool(self.md5 or self.crc32c)


@dataclasses.dataclass(frozen=True)
class Digests:
    """Size and hashes of a file, hexadecimal; md5 only where a host states one."""

    size: int
    sha256: str
    crc32c: str
    md5: str | None = None

    def contradiction(self, stated: StatedHashes) -> str | None:
        """The first hash that is not as stated, "md5 ... where its host states ..."; None when all agree."""
        for kind in ("md5", "crc32c"):
            value = getattr(stated, kind)
            if value and value != getattr(self, kind):
                return f"{kind} {getattr(self, kind)} where its host states {value}"
        return None


class Hasher:
    """Takes bytes piece by piece; the same for a transfer as it comes and for a file that is there.

    Args:
      with_md5: takes the md5 too, which costs more than all else.
    """

    def __init__(self, with_md5: bool = False) -> None:
        self.size = 0
        self._crc = 0
        self._sha256 = hashlib.sha256()
        self._md5 = hashlib.md5(usedforsecurity=False) if with_md5 else None

    def can_tell(self, stated: StatedHashes) -> bool:
        """Whether it takes every hash that is stated."""
        return self._md5 is not None or stated.md5 is None

    def update(self, chunk: bytes) -> None:
        import google_crc32c

        self.size += len(chunk)
        self._crc = google_crc32c.extend(self._crc, chunk)
        self._sha256.update(chunk)
        if self._md5:
            self._md5.update(chunk)

    def update_from(self, path: Path, show: Callable[[int], None] = lambda size: None) -> None:
        """Takes a whole file, calling `show` with the bytes so far."""
        with open(path, "rb") as file:
            while chunk := file.read(_CHUNK_BYTES):
                self.update(chunk)
                show(self.size)

    def digests(self) -> Digests:
        md5 = self._md5.hexdigest() if self._md5 else None
        return Digests(self.size, self._sha256.hexdigest(), f"{self._crc:08x}", md5)
