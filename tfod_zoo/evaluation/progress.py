"""Progress over images with the time left: a bar on a terminal, a line now and then where output goes to a file."""

from __future__ import annotations

import time
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

_SECONDS_BETWEEN_LINES = 10.0


class ImageProgress:
    """Context manager; calling it with the number of images done shows that. `total` None = not known."""

    def __init__(self, label: str, total: int | None = None):
        console = Console(stderr=True)
        self._label, self._total = label, total
        self._started = self._printed = time.monotonic()
        self._bar: Progress | None = None
        if console.is_terminal:
            self._bar = Progress(TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(),
                                 TimeRemainingColumn(), console=console, transient=True)
            self._task = self._bar.add_task(label, total=total)
        self._console = console

    def __enter__(self) -> ImageProgress:
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
        if now - self._printed < _SECONDS_BETWEEN_LINES:
            return
        self._printed = now
        self._console.print(self.line(done, now - self._started), highlight=False, soft_wrap=True)

    def line(self, done: int, seconds: float) -> str:
        """One line of plain progress after `seconds`."""
        rate = done / seconds if seconds > 0 else 0.0
        if not self._total:
            return f"{self._label}: {done} images, {rate:.1f} images/s"
        left = f", about {(self._total - done) / rate:.0f} s left" if rate else ""
        return f"{self._label}: {done} of {self._total} images, {rate:.1f} images/s{left}"
