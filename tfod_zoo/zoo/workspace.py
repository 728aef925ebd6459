"""The working folder of one model's transfer: what came so far, where from, and what is being unpacked.

    STORE/.tfod-zoo/
      NAME.lock                       held by the process that works on NAME
      NAME@HOST@PID@NUMBER/           that process's working folder
        archive.tar.gz                what came so far
        source.json                   of which object, so that no other one is ever appended to it
        unpacked/                     a model that is not verified yet
      NAME@                           what a transfer left that broke off: the next one goes on from there

A working folder is taken by renaming it, which only one process can do, on every file system: two processes never write
into the same one, whether locks work or not. A folder whose process was killed is taken over by the next.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import secrets
import shutil
import socket
import time
from pathlib import Path

from tfod_zoo.zoo.process_lock import make_folder

FOLDER_NAME = ".tfod-zoo"
# A transfer that is alive writes at least once in its time-out; unpacking a large archive takes a minute or two.
_DEAD_AFTER_SECONDS = 600


@dataclasses.dataclass
class Source:
    """Which object the bytes of an unfinished archive are of; None = its host did not say."""

    url: str
    size: int | None = None
    etag: str | None = None
    md5: str | None = None
    crc32c: str | None = None

    def may_be(self, other: Source) -> bool:
        """Whether both can be the same object: nothing that both state differs, and something was stated."""
        hashes = ((self.md5, other.md5), (self.crc32c, other.crc32c))
        if self.url != other.url and not any(mine and mine == theirs for mine, theirs in hashes):
            return False  # another address must state the same hash
        others = [(self.size, other.size), (self.etag, other.etag) if self.url == other.url else (None, None)]
        return all(mine is None or theirs is None or mine == theirs for mine, theirs in [*hashes, *others])


class Workspace:
    """A model's working folder, taken by this process; a context manager.

    On leaving, an unfinished archive is kept for the next attempt if `keep()` was called, and all else is removed.

    Attributes:
      folder: this process's own while it is in the context.
    """

    folder: Path

    def __init__(self, store: Path, name: str):
        self._home, self._name = store / FOLDER_NAME, name
        self._keep = False

    @property
    def archive(self) -> Path:
        return self.folder / "archive.tar.gz"

    @property
    def unpacked(self) -> Path:
        return self.folder / "unpacked"

    def __enter__(self) -> Workspace:
        own = f"{self._name}@{_host()}@{os.getpid()}@{secrets.token_hex(4)}"
        self.folder = self._home / own
        left_behind = _left_behind(self._home, self._name)
        while left_behind and not self.folder.exists():
            with contextlib.suppress(OSError):  # another process took it
                left_behind.pop(0).rename(self.folder)
        make_folder(self.folder)
        shutil.rmtree(self.unpacked, ignore_errors=True)
        for left in left_behind:
            shutil.rmtree(left, ignore_errors=True)
        return self

    def __exit__(self, *error: object) -> None:
        if self._keep and self.received():
            shutil.rmtree(self.unpacked, ignore_errors=True)
            with contextlib.suppress(OSError):
                self.folder.rename(self._home / f"{self._name}@")
        shutil.rmtree(self.folder, ignore_errors=True)

    def keep(self) -> None:
        """Lets the next attempt go on with what came so far."""
        self._keep = True

    def received(self) -> int:
        """Bytes of the archive so far."""
        return self.archive.stat().st_size if self.archive.exists() else 0

    def source(self) -> Source | None:
        """Which object they are of; None when that is not known, and nothing may be appended."""
        try:
            return Source(**json.loads(self._source_file.read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError):
            return None

    def restart(self, source: Source) -> None:
        """Empties the archive and notes which object will fill it."""
        self.discard()
        self._source_file.write_text(json.dumps(dataclasses.asdict(source), indent=2), encoding="utf-8")

    def discard(self) -> None:
        """Removes the archive and all that came of it."""
        self._keep = False
        shutil.rmtree(self.unpacked, ignore_errors=True)
        self._source_file.unlink(missing_ok=True)
        self.archive.unlink(missing_ok=True)

    @property
    def _source_file(self) -> Path:
        return self.folder / "source.json"


def leftovers(store: Path) -> list[Path]:
    """Working folders of transfers that broke off or whose process died."""
    return _left_behind(store / FOLDER_NAME, "")


def _left_behind(home: Path, name: str) -> list[Path]:
    """Those of one model ("" = of all), the one with the most bytes first."""
    try:
        start = f"{name}@" if name else ""
        folders = [path for path in home.iterdir() if path.name.startswith(start) and path.is_dir()]
    except OSError:
        return []
    return sorted(filter(_is_dead, folders), key=lambda path: -_size(path / "archive.tar.gz"))


def _is_dead(folder: Path) -> bool:
    owner = folder.name.split("@")[1:]
    if len(owner) != 3:
        return True
    host, pid, _ = owner
    if host == _host():
        return not _runs(int(pid)) if pid.isdigit() else True
    return time.time() - max(_touched(folder), _touched(folder / "archive.tar.gz")) > _DEAD_AFTER_SECONDS


def _runs(pid: int) -> bool:
    with contextlib.suppress(OSError, IndexError):
        # A process that was killed and never waited for has its number still.
        if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
            return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:  # it is another user's
        return True
    return True


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _touched(path: Path) -> float:
    return path.stat().st_mtime if path.exists() else 0.0


def _host() -> str:
    return socket.gethostname().replace("@", "-").replace("/", "-")[:100]
