"""Fetching one file over HTTP, and being sure of it."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from tfod_zoo.errors import ZooError

if TYPE_CHECKING:
    import requests

_CHUNK_BYTES = 2**20
_CONNECT_SECONDS = 15
_SILENCE_SECONDS = 60
_GZIP_MAGIC = b"\x1f\x8b"


class _Unreachable(ZooError):
    """This address did not answer with the file; another address of it may."""


def fetch(urls: Sequence[str], target: Path, label: str) -> int:
    """Writes the first of `urls` that answers to `target`, showing progress, and checks what came.

    Checked: the stated Content-Length, Google Cloud Storage's md5 (`x-goog-hash`), and that it is a gzip file. Over
    plain http the md5 must be stated.

    Args:
      urls: addresses of the same object, at least one, the one to prefer first.
      target: the file to write.
      label: what the progress line calls it.

    Returns:
      The number of bytes.

    Raises:
      ZooError: no address answered, or what came is not the file.
      OSError: `target` cannot be written.
    """
    failures: list[_Unreachable] = []
    for url in urls:
        try:
            return _fetch_one(url, target, label)
        except _Unreachable as error:
            failures.append(error)
    raise failures[0]  # what the address to prefer said


def _fetch_one(url: str, target: Path, label: str) -> int:
    # Both are slow to import, and only a transfer needs them.
    import requests
    import urllib3

    try:
        # The stored bytes are wanted: a host that holds a .tar.gz as "gzip-encoded tar" must not unpack it on the way.
        response = requests.get(
            url, stream=True, timeout=(_CONNECT_SECONDS, _SILENCE_SECONDS), headers={"Accept-Encoding": "gzip"}
        )
    except requests.RequestException as error:
        raise _Unreachable(f"Cannot reach {url} ({_cause(error)}); check the network or the proxy.") from error
    with response:
        _check_status(response, url)
        expected = int(response.headers.get("Content-Length", 0)) or None
        stated_md5 = _stated_md5(response.headers.get("x-goog-hash", ""))
        # The address after redirects is the one that the bytes came from.
        if response.url.startswith("http:") and not stated_md5:
            raise _Unreachable(f"{response.url} is plain http and states no md5, so what it sends cannot be verified; "
                               "it is refused.")
        try:
            received, md5 = _write(response, target, label, expected)
        except urllib3.exceptions.HTTPError as error:
            raise ZooError(f"The transfer from {url} broke off ({_cause(error)}); nothing was kept, run "
                           "again.") from error
    if expected is not None and received != expected:
        raise ZooError(f"{url} sent {received} of {expected} bytes; nothing was kept, run again.")
    if stated_md5 and md5 != stated_md5:
        raise ZooError(f"What came from {url} has md5 {md5.hex()}, its host states {stated_md5.hex()}; nothing was "
                       "kept, run again.")
    return received


def _check_status(response: requests.Response, url: str) -> None:
    if response.status_code in (403, 404):
        # Google Cloud Storage answers 403 with an XML AccessDenied for an object that does not exist.
        raise _Unreachable(f"{url} is not there or was renamed (its host answers {response.status_code}).")
    if response.status_code != 200:
        raise _Unreachable(f"{url} answers {response.status_code} {response.reason}; try again later.")


def _write(response: requests.Response, target: Path, label: str, expected: int | None) -> tuple[int, bytes]:
    """Streams the body; returns its bytes and md5."""
    from tfod_zoo.zoo.progress import TransferProgress

    received, md5 = 0, hashlib.md5(usedforsecurity=False)
    with open(target, "wb") as out, TransferProgress(label, expected) as progress:
        for chunk in response.raw.stream(_CHUNK_BYTES, decode_content=False):
            if received == 0 and not chunk.startswith(_GZIP_MAGIC):
                kind = response.headers.get("Content-Type", "something else")
                raise ZooError(f"{response.url} sent {kind}, not an archive (a proxy's or a log-in page?); nothing was "
                               "kept.")
            out.write(chunk)
            md5.update(chunk)
            received += len(chunk)
            progress(received)
    return received, md5.digest()


def _stated_md5(header: str) -> bytes | None:
    """The md5 of an `x-goog-hash: crc32c=...,md5=...` header (base64)."""
    for part in header.split(","):
        kind, _, value = part.strip().partition("=")
        if kind == "md5":
            return base64.b64decode(value)
    return None


def _cause(error: BaseException) -> str:
    """The innermost reason of a chain that requests and urllib3 wrap several times."""
    while error.__cause__ or error.__context__:
        error = error.__cause__ or error.__context__  # type: ignore[assignment]
    return str(error) or type(error).__name__
