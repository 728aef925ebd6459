"""The lock file of a store: size and sha256 of every archive that was verified once, which later ones must have too.

    # Archives that were verified in this store; a later transfer must match. `tfod-zoo download --update-lock` accepts
    # a change on purpose.
    <sha256>  <bytes>  <model>.tar.gz

It is text, one line an archive, sorted, made to be kept under version control and compared by eye.
"""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

from tfod_zoo.errors import ZooError
from tfod_zoo.zoo.digests import Digests

LOCK_NAME = "archives.lock"
_HEADER = (
    "# Size and sha256 of the archives that were verified in this store; a later transfer must match.\n"
    "# `tfod-zoo download NAME --update-lock` accepts a change on purpose.\n"
)
_LINE = re.compile(r"([0-9a-f]{64})\s+(\d+)\s+(\S+)\.tar\.gz")


@dataclasses.dataclass(frozen=True)
class LockedArchive:
    """What the lock file says of one archive."""

    size: int
    sha256: str

    def contradiction(self, found: Digests) -> str | None:
        """How an archive differs, with both values; None when it is the locked one."""
        if (found.size, found.sha256) == (self.size, self.sha256):
            return None
        return (f"{found.size} bytes with sha256 {found.sha256} where {LOCK_NAME} has {self.size} bytes with "
                f"sha256 {self.sha256}")


def read_lock(store: Path) -> dict[str, LockedArchive]:
    """Model name -> its locked archive; empty when the store has no lock file.

    Raises:
      ZooError: a line of it cannot be read.
    """
    path = store / LOCK_NAME
    try:
        text = path.read_text(encoding="utf-8")
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except (OSError, UnicodeDecodeError) as error:
        raise ZooError(f"Cannot read {path} ({error}); correct it, or remove it to lock archives anew.") from error
    locked = {}
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip() or line.startswith("#"):
            continue
        match = _LINE.fullmatch(line.strip())
        if not match:
            raise ZooError(f"{path}, line {number}: {line.strip()[:60]!r} is not `SHA256  BYTES  NAME.tar.gz`; correct "
                           "it, or remove the line to lock that archive anew.")
        locked[match[3]] = LockedArchive(int(match[2]), match[1])
    return locked


def write_lock(store: Path, name: str, archive: LockedArchive, scratch: Path) -> None:
    """Puts one archive into the lock file; readers see the old file or the new one. Call under the store's lock.

    Args:
      scratch: a folder of this process on the same disk.
    """
    locked = {**read_lock(store), name: archive}
    lines = [f"{locked[key].sha256}  {locked[key].size:>11}  {key}.tar.gz\n" for key in sorted(locked)]
    replacement = scratch / LOCK_NAME
    replacement.write_text(_HEADER + "".join(lines), encoding="utf-8")
    replacement.replace(store / LOCK_NAME)
