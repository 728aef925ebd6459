"""Progress of a transfer with the time left: a bar on a terminal, a line now and then where output goes to a file."""

from __future__ import annotations

import time
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

_SECONDS_BETWEEN_LINES = 5.0


class TransferProgress:
    """Context manager; calling it with the bytes received shows that. `total` None = not known."""

    def __init__(self, label: str, total: int | None):
        self._label, self._total = label, total
        self._console = Console(stderr=True)
        self._started = self._printed = time.monotonic()
        self._bar: Progress | None = None
        if self._console.is_terminal:
            columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn(),
                       TimeRemainingColumn())
            self._bar = Progress(*columns, console=self._console, transient=True)
            self._task = self._bar.add_task(label, total=total)

    def __enter__(self) -> TransferProgress:
        if self._bar:
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar:
            self._bar.stop()

    def __call__(self, received: int) -> None:
        if self._bar:
            self._bar.update(self._task, completed=received)
            return
        now = time.monotonic()
        if now - self._printed >= _SECONDS_BETWEEN_LINES:
            self._printed = now
            self._console.print(self.line(received, now - self._started), highlight=False, soft_wrap=True)

    def line(self, received: int, seconds: float) -> str:
        """One line of plain progress after `seconds`."""
        rate = received / seconds if seconds > 0 else 0.0
        text = f"{self._label}: {received / 1e6:.1f}"
        if self._total:
            text += f" of {self._total / 1e6:.1f}"
        text += f" MB, {rate / 1e6:.1f} MB/s"
        return text + (f", about {(self._total - received) / rate:.0f} s left" if self._total and rate else "")
