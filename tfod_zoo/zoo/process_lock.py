"""One process at a time on one thing of a store.

The lock is the operating system's (flock), which lets go of it when its process dies, however it dies; where a file
system has none, filelock's marker file takes its place, whose owner is looked up and which is broken when that is dead.
A few network file systems refuse both or only pretend. There the lock is worth nothing and is not waited for, and the
store is right all the same: a transfer's working folder belongs to whoever renamed it last (`workspace`), and a model
appears by one rename of a whole, verified folder, so that two processes can only do the same work twice.
"""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Callable, Iterator
from pathlib import Path

# What a file system without locks answers to a request for one.
_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSUP, errno.EINVAL)
_POLL_SECONDS = 0.1
_ATTEMPTS = 100


@contextlib.contextmanager
def process_lock(path: Path, waiting: Callable[[], None] = lambda: None) -> Iterator[None]:
    """Holds the lock file `path` (made with its folder, and removed again with it when nobody else needs them).

    Args:
      path: the lock file.
      waiting: called once if another process or thread holds it.

    Raises:
      OSError: the lock file cannot be made.
    """
    lock = _acquire(path, waiting)
    try:
        yield
    finally:
        if lock:
            # Removed while it is held: whoever waits for it sees that its file is gone, and makes a new one.
            with contextlib.suppress(OSError):
                path.unlink()
            lock.release()
        with contextlib.suppress(OSError):
            path.parent.rmdir()


def make_folder(path: Path) -> None:
    """Makes a folder with those above it, even while other processes remove them again because they are empty."""
    for attempt in range(_ATTEMPTS):
        try:
            path.mkdir(parents=True, exist_ok=True)
            return
        except (FileExistsError, FileNotFoundError):
            if attempt == _ATTEMPTS - 1 or path.is_file():
                raise


def _acquire(path: Path, waiting: Callable[[], None]):
    from filelock import FileLock, Timeout

    for attempt in range(_ATTEMPTS):
        make_folder(path.parent)
        lock = FileLock(path)
        try:
            try:
                lock.acquire(blocking=False)
            except Timeout:
                waiting()
                lock.acquire(poll_interval=_POLL_SECONDS)
            return lock
        except (FileExistsError, FileNotFoundError):
            # The one before removed the folder in between, which filelock may make too.
            if attempt == _ATTEMPTS - 1:
                raise
        except NotImplementedError:
            return None
        except OSError as error:
            if error.errno in _NO_LOCKS:
                return None
            raise
    return None
