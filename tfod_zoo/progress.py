"""Progress with the time left: a bar on a terminal, a line now and then where output goes to a file."""

from __future__ import annotations

import contextlib
import os
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator
from types import TracebackType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import ProgressColumn

_SECONDS_BETWEEN_LINES = 10.0
_QUIET = "TFOD_ZOO_QUIET"  # in the environment, so that processes which are started are quiet too


def progress_console() -> Console:
    """Where progress is shown: standard error, or nowhere within `quiet_progress`."""
    from rich.console import Console

    return Console(stderr=True, quiet=bool(os.environ.get(_QUIET)))


@contextlib.contextmanager
def quiet_progress() -> Iterator[None]:
    """Shows no progress."""
    before = os.environ.get(_QUIET)
    os.environ[_QUIET] = "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ[_QUIET]
        else:
            os.environ[_QUIET] = before


class CountProgress(ABC):
    """Context manager; calling it with the amount done shows that.

    Args:
      label: what is going on.
      total: amount at the end; None = not known.
    """

    def __init__(self, label: str, total: int | None = None):
        from rich.progress import Progress

        self._label, self._total = label, total
        self._console = progress_console()
        self._started = self._printed = time.monotonic()
        self._bar: Progress | None = None
        if self._console.is_terminal:
            self._bar = Progress(*self._columns(), console=self._console, transient=True)
            self._task = self._bar.add_task(label, total=total)

    @abstractmethod
    def _columns(self) -> tuple[ProgressColumn, ...]:
        """What the bar on a terminal is made of."""

    @abstractmethod
    def line(self, done: int, seconds: float) -> str:
        """One line of plain progress after `seconds`."""

    def __enter__(self):
        if self._bar:
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar:
            self._bar.stop()

    def __call__(self, done: int) -> None:
        if self._bar:
            self._bar.update(self._task, completed=done)
            return
        now = time.monotonic()
        if now - self._printed >= _SECONDS_BETWEEN_LINES:
            self._printed = now
            self._console.print(self.line(done, now - self._started), highlight=False, soft_wrap=True)
