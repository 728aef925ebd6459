"""Progress of transfers that may run side by side: a bar each on a terminal, a line now and then in a log."""

from __future__ import annotations

import threading
import time
from types import TracebackType

from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn
from rich.table import Column

from tfod_zoo.progress import progress_console

_SECONDS_BETWEEN_LINES = 10.0


class TransferBoard:
    """What all transfers of a call show, on standard error; a context manager."""

    def __init__(self) -> None:
        self.console = progress_console()
        self.bars: Progress | None = None
        if self.console.is_terminal:
            # On a narrow terminal the long names give way, not the figures.
            name = TextColumn("{task.description}", table_column=Column(ratio=1, no_wrap=True, overflow="ellipsis"))
            columns = (name, BarColumn(20), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
            self.bars = Progress(*columns, console=self.console, transient=True, expand=True)
        self._lock = threading.Lock()

    def __enter__(self) -> TransferBoard:
        if self.bars:
            self.bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.bars:
            self.bars.stop()

    def say(self, text: str) -> None:
        """One line that stays."""
        with self._lock:
            self.console.print(text, highlight=False, soft_wrap=True, markup=False)

    def work(self, label: str, total: int | None, start: int = 0) -> ByteProgress:
        """A new piece of work of `total` bytes (None = not known), of which `start` are done already."""
        return ByteProgress(self, label, total, start)


class ByteProgress:
    """Calling it with the number of bytes done shows that; a context manager that takes the bar away again."""

    def __init__(self, board: TransferBoard, label: str, total: int | None, start: int = 0):
        self._board, self._label, self._total, self._start = board, label, total, start
        self._began = self._printed = time.monotonic()
        self._task = board.bars.add_task(label, total=total, completed=start) if board.bars else None

    def __enter__(self) -> ByteProgress:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._board.bars and self._task is not None:
            self._board.bars.remove_task(self._task)

    def __call__(self, done: int) -> None:
        if self._board.bars and self._task is not None:
            self._board.bars.update(self._task, completed=done)
            return
        now = time.monotonic()
        if now - self._printed >= _SECONDS_BETWEEN_LINES:
            self._printed = now
            self._board.say(self.line(done, now - self._began))

    def line(self, done: int, seconds: float) -> str:
        """One line of plain progress after `seconds`."""
        rate = (done - self._start) / seconds if seconds > 0 else 0.0
        text = f"{self._label}: {done / 1e6:.1f}"
        if self._total:
            text += f" of {self._total / 1e6:.1f}"
        text += f" MB, {rate / 1e6:.1f} MB/s"
        return text + (f", about {(self._total - done) / rate:.0f} s left" if self._total and rate > 0 else "")
