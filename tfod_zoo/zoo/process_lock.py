"""One process at a time on one thing of a store.

The lock is the operating system's (flock), which lets go of it when its process dies, however it dies. Its file is
removed by whoever held it last, so that a store keeps nothing of it.

Some network file systems have no locks, or only pretend. There nobody waits, and the store is right all the same: a
transfer's working folder belongs to whoever renamed it last (`workspace`), and a model appears by one rename of a
whole, verified folder, so that two processes can only do the same work twice.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

# What a file system without locks answers to a request for one.
_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSUP, errno.EINVAL)
_POLL_SECONDS = 0.1
_ATTEMPTS = 100


@contextlib.contextmanager
def process_lock(path: Path, waiting: Callable[[], None] = lambda: None, wait: bool = True) -> Iterator[None]:
    """Holds the lock file `path` (made with its folder, and removed again with it when nobody else needs them).

    Args:
      path: the lock file.
      waiting: called once if another process or thread holds it.
      wait: until it is free.

    Raises:
      BlockingIOError: another process holds it, and `wait` is False.
      OSError: the lock file cannot be made.
    """
    held = _try(path)
    if held is None and wait:
        waiting()
    while held is None:
        if not wait:
            raise BlockingIOError(errno.EWOULDBLOCK, os.strerror(errno.EWOULDBLOCK), str(path))
        time.sleep(_POLL_SECONDS)
        held = _try(path)
    try:
        yield
    finally:
        # Removed while it is held: whoever opened it before sees that it is not the one under this name any more.
        with contextlib.suppress(OSError):
            path.unlink()
        os.close(held)
        with contextlib.suppress(OSError):
            path.parent.rmdir()


def _try(path: Path) -> int | None:
    """The open lock file, held as far as the file system can; None if another process holds it."""
    while True:
        held = _open(path)
        try:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in _NO_LOCKS:
                return held
            os.close(held)
            if isinstance(error, BlockingIOError):
                return None
            raise
        with contextlib.suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(held), os.stat(path)):
                return held
        os.close(held)  # the holder before removed it in between


def _open(path: Path) -> int:
    for attempt in range(_ATTEMPTS):
        make_folder(path.parent)
        try:
            return os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        except FileNotFoundError:  # the one before removed the folder in between
            if attempt == _ATTEMPTS - 1:
                raise
    raise AssertionError("the last attempt returns or raises")


def make_folder(path: Path) -> None:
    """Makes a folder with those above it, even while other processes remove them again because they are empty."""
    for attempt in range(_ATTEMPTS):
        try:
            path.mkdir(parents=True, exist_ok=True)
            return
        except (FileExistsError, FileNotFoundError):
            if attempt == _ATTEMPTS - 1 or path.is_file():
                raise
