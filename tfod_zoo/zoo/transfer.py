"""Fetching one archive over HTTP: resumed where it broke off, retried with back-off, and never taken on trust."""

from __future__ import annotations

import re
import shutil
import threading
from pathlib import Path
from typing import TYPE_CHECKING

from tfod_zoo.errors import ZooError
from tfod_zoo.zoo.digests import Digests, Hasher, StatedHashes
from tfod_zoo.zoo.lock_file import LOCK_NAME, LockedArchive
from tfod_zoo.zoo.progress import TransferBoard
from tfod_zoo.zoo.workspace import Source, Workspace

if TYPE_CHECKING:
    import requests

_CHUNK_BYTES = 2**16  # what a killed process loses at most
_CONNECT_SECONDS = 15
_SILENCE_SECONDS = 30
_GZIP_MAGIC = b"\x1f\x8b"
# Attempts in a row that bring nothing; between them 0.5, 1 and 2 seconds.
_FRUITLESS_ATTEMPTS = 4
_BACKOFF_SECONDS = 0.5
_MAX_ATTEMPTS = 200
_MAX_REDIRECTS = 10
# What a host answers when another attempt may succeed (RFC 9110; 429 from RFC 6585).
_TRY_AGAIN = (408, 429, 500, 502, 503, 504)
_MAX_WAIT_SECONDS = 60
# A model unpacks to a little more than its archive.
_UNPACKED_RATIO = 1.25

_CONTENT_RANGE = re.compile(r"bytes (\d+)-(\d+)/(\d+|\*)")


class AddressError(ZooError):
    """This address does not give the archive; the message is a clause, and another address may.

    Attributes:
      again: whether a second transfer from the start may help.
      resumable: whether what came so far is worth keeping for a later attempt.
    """

    def __init__(self, clause: str, again: bool = False, resumable: bool = False):
        super().__init__(clause)
        self.again, self.resumable = again, resumable


class NotAsLockedError(AddressError):
    """The archive is not the one in the lock file."""


class _BrokeOff(Exception):
    """The connection was lost; what came so far is good."""


class _StartOver(Exception):
    """What came so far cannot be continued from here."""


def fetch(
    url: str,
    workspace: Workspace,
    label: str,
    board: TransferBoard,
    locked: LockedArchive | None = None,
    trusted: bool = False,
    stop: threading.Event | None = None,
) -> tuple[Digests, StatedHashes]:
    """Brings the archive at `url` into `workspace.archive`, from where an earlier attempt broke off, and checks it.

    Checked: the length, Google Cloud Storage's hashes (`x-goog-hash`), and that it begins as a gzip file does. Over
    plain http a hash must be stated or the archive locked, unless the user chose the address (`trusted`).

    Args:
      workspace: taken by this process; what it holds of another object is thrown away.
      label: what the progress calls it.
      locked: what the lock file demands; an announced length that is another is refused at once.
      stop: ends the transfer with KeyboardInterrupt when it is set.

    Returns:
      Size and hashes of the whole archive, and those of them that the host stated.

    Raises:
      AddressError: the address gives no archive, or what came is not the one it announced.
      OSError: the archive cannot be written; ENOSPC before the disk is full.
    """
    transfer = _Transfer(url, workspace, label, board, locked, trusted, stop or threading.Event())
    fruitless = 0
    for _ in range(_MAX_ATTEMPTS):
        before = workspace.received()
        try:
            return transfer.attempt()
        except _StartOver:
            transfer.may_resume = False
            workspace.discard()
        except _BrokeOff as broken:
            fruitless = 0 if workspace.received() > before else fruitless + 1
            reason = str(broken)
            if fruitless >= _FRUITLESS_ATTEMPTS:
                break
            board.say(f"{label}: {reason}; trying again")
            transfer.wait(_BACKOFF_SECONDS * 2 ** (fruitless - 1) if fruitless else 0.0)
    else:
        reason = "it never came to an end"
    received = workspace.received()
    raise AddressError(
        f"the transfer from {url} broke off ({reason})" if received else f"cannot reach {url} ({reason})",
        resumable=bool(received),
    )


class _Transfer:
    """Attempts at one address."""

    def __init__(self, url, workspace, label, board, locked, trusted, stop):
        self._url, self._workspace, self._label, self._board = url, workspace, label, board
        self._locked, self._trusted, self._stop = locked, trusted, stop
        self.may_resume = True
        self._hasher: Hasher | None = None  # of all that the archive holds; None = not taken yet
        self._pause = 0.0  # that the host asked for

    def wait(self, seconds: float) -> None:
        if self._stop.wait(max(seconds, self._pause)):
            raise KeyboardInterrupt
        self._pause = 0.0

    def attempt(self) -> tuple[Digests, StatedHashes]:
        """One request; what `fetch` returns when it came to its end."""
        # Both are slow to import, and only a transfer needs them.
        import requests
        import urllib3

        source = self._workspace.source() if self.may_resume else None
        offset = self._workspace.received() if source else 0
        if offset and source and source.url == self._url and source.size == offset:
            stated = StatedHashes(source.md5, source.crc32c)
            return self._check(self._hash_received(stated), offset, stated)  # all of it came before
        # The stored bytes are wanted: a host that holds a .tar.gz as "gzip-encoded tar" must not unpack it on the way.
        headers = {"Accept-Encoding": "gzip"}
        if offset and source:
            headers["Range"] = f"bytes={offset}-"
            if source.etag and source.url == self._url:
                headers["If-Range"] = source.etag
        with requests.Session() as session:
            session.max_redirects = _MAX_REDIRECTS
            try:
                response = session.get(
                    self._url, stream=True, timeout=(_CONNECT_SECONDS, _SILENCE_SECONDS), headers=headers
                )
            except requests.TooManyRedirects as error:
                raise AddressError(f"{self._url} redirects without end") from error
            except (requests.exceptions.InvalidURL, requests.exceptions.InvalidSchema,
                    requests.exceptions.MissingSchema) as error:
                raise AddressError(f"{self._url} is no address that can be fetched") from error
            except (requests.RequestException, urllib3.exceptions.HTTPError) as error:
                raise _BrokeOff(_cause(error)) from error
            with response:
                total, stated = self._examine(response, source, offset)
                try:
                    hasher = self._write(response, total, stated)
                except (urllib3.exceptions.HTTPError, requests.RequestException) as error:
                    raise _BrokeOff(_cause(error)) from error
        return self._check(hasher, total, stated)

    def _examine(
        self, response: requests.Response, source: Source | None, offset: int
    ) -> tuple[int | None, StatedHashes]:
        """The object's length and stated hashes; leaves the archive such that the body continues it."""
        self._check_status(response)
        stated = StatedHashes.from_header(response.headers.get("x-goog-hash", ""))
        here = Source(self._url, None, _strong(response.headers.get("ETag")), stated.md5, stated.crc32c)
        if response.status_code == 206:
            span = _CONTENT_RANGE.fullmatch(response.headers.get("Content-Range", ""))
            if not source or not span or int(span[1]) != offset:
                raise _StartOver  # another part than was asked for
            here.size = int(span[3]) if span[3] != "*" else source.size
            if not source.may_be(here) or (here.size is not None and int(span[2]) != here.size - 1):
                raise _StartOver  # the object was replaced in the meantime
            self._board.say(f"{self._label}: going on after {offset / 1e6:.1f} MB")
            return here.size, stated
        # 200: the whole object, whatever was asked for.
        here.size = _length(response)
        self._check_announcement(response, here.size, stated)
        self._workspace.restart(here)
        self._hasher = None
        _need_space(self._workspace.archive.parent, here.size)
        return here.size, stated

    def _check_status(self, response: requests.Response) -> None:
        status = response.status_code
        if status in (200, 206):
            return
        if status == 416:
            raise _StartOver  # the object is shorter than what came: it is another one
        if status in (403, 404, 410):
            # Google Cloud Storage answers 403 with an XML AccessDenied for an object that does not exist.
            raise AddressError(f"{self._url} is not there or was renamed (its host answers {status})")
        if status in _TRY_AGAIN:
            asked = response.headers.get("Retry-After", "")
            self._pause = min(float(asked), _MAX_WAIT_SECONDS) if asked.isdigit() else 0.0
            raise _BrokeOff(f"its host answers {status} {response.reason}".rstrip())
        raise AddressError(f"{self._url} answers {status} {response.reason}".rstrip())

    def _check_announcement(self, response: requests.Response, size: int | None, stated: StatedHashes) -> None:
        # The address after redirects is the one that the bytes come from.
        if response.url.startswith("http:") and not (stated or self._locked or self._trusted):
            raise AddressError(f"{response.url} is plain http and states no hash, so that what it sends cannot be "
                               "verified")
        if self._locked and size is not None and size != self._locked.size:
            raise NotAsLockedError(f"{self._url} has {size} bytes where {LOCK_NAME} has {self._locked.size} bytes with "
                                   f"sha256 {self._locked.sha256}")

    def _write(self, response: requests.Response, total: int | None, stated: StatedHashes) -> Hasher:
        """Appends the body to the archive; the hashes of all that it then holds."""
        hasher = self._hash_received(stated)
        with (
            open(self._workspace.archive, "ab", buffering=0) as out,
            self._board.work(self._label, total, hasher.size) as show,
        ):
            for chunk in response.raw.stream(_CHUNK_BYTES, decode_content=False):
                if self._stop.is_set():
                    raise KeyboardInterrupt
                if hasher.size == 0 and not chunk.startswith(_GZIP_MAGIC):
                    kind = response.headers.get("Content-Type", "something else")
                    raise AddressError(f"{response.url} sent {kind}, not an archive (a proxy's or a log-in page?)")
                _append(out, chunk)
                hasher.update(chunk)
                show(hasher.size)
        return hasher

    def _hash_received(self, stated: StatedHashes) -> Hasher:
        """The hashes of all that the archive holds; read again if an earlier process wrote it."""
        hasher = self._hasher
        if hasher is None or hasher.size != self._workspace.received() or not hasher.can_tell(stated):
            hasher = self._hasher = Hasher(with_md5=stated.md5 is not None)
            if self._workspace.received():
                hasher.update_from(self._workspace.archive)
        return hasher

    def _check(self, hasher: Hasher, total: int | None, stated: StatedHashes) -> tuple[Digests, StatedHashes]:
        found = hasher.digests()
        if total is not None and found.size < total:
            raise _BrokeOff(f"{found.size} of {total} bytes came")
        if total is not None and found.size > total:
            raise AddressError(f"{self._url} sent {found.size} bytes where it announced {total}", again=True)
        if wrong := found.contradiction(stated):
            raise AddressError(f"what came from {self._url} has {wrong}", again=True)
        return found, stated


def _append(out, chunk: bytes) -> None:
    left = memoryview(chunk)
    while left:  # an unbuffered file may take less than it is given
        left = left[out.write(left) :]


def _need_space(folder: Path, size: int | None) -> None:
    needed, free = int((size or 0) * (1 + _UNPACKED_RATIO)), shutil.disk_usage(folder).free
    if needed > free:
        raise NoSpaceError(needed, free)


class NoSpaceError(ZooError):
    """There is less free space than a model needs; bytes needed and free."""

    def __init__(self, needed: int, free: int):
        super().__init__(needed, free)
        self.needed, self.free = needed, free


def _length(response: requests.Response) -> int | None:
    text = response.headers.get("Content-Length", "")
    return int(text) if text.isdigit() else None


def _strong(etag: str | None) -> str | None:
    """An ETag that may be used to continue a transfer: not a weak one (RFC 9110, 13.1.5)."""
    return etag if etag and not etag.startswith("W/") else None


def _cause(error: BaseException) -> str:
    """The innermost reason of a chain that requests and urllib3 wrap several times."""
    while error.__cause__ or error.__context__:
        error = error.__cause__ or error.__context__  # type: ignore[assignment]
    return (str(error) or type(error).__name__).rstrip(".")
