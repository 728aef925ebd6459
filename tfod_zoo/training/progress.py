"""The progress of a training run: one line that renews itself on a terminal, lines now and then elsewhere."""

from __future__ import annotations

import time
from dataclasses import dataclass
from types import TracebackType

from rich.console import Console
from rich.status import Status

_SECONDS_BETWEEN_LINES = 15.0


@dataclass(frozen=True)
class Progress:
    """Where a run stands: steps done and wanted, the newest total loss, steps a second, seconds until the end."""

    step: int
    steps: int
    loss: float
    steps_per_second: float | None = None
    seconds_left: float | None = None

    def line(self) -> str:
        """`step 400 of 2000  loss 1.92  3.1 steps/s  about 9 minutes left`."""
        parts = [f"step {self.step} of {self.steps}", f"loss {self.loss:.4g}"]
        if self.steps_per_second:
            digits = 1 if self.steps_per_second >= 1 else 2
            parts.append(f"{self.steps_per_second:.{digits}f} steps/s")
        if self.seconds_left:
            parts.append(f"about {spoken_duration(self.seconds_left)} left")
        return "  ".join(parts)


def spoken_duration(seconds: float) -> str:
    """`40 seconds`, `9 minutes`, `3.5 hours`, for a reader rather than a table."""
    if seconds < 1.5:
        return "1 second"
    if seconds < 90:
        return f"{seconds:.0f} seconds"
    if seconds < 90 * 60:
        return f"{seconds / 60:.0f} minutes"
    return f"{seconds / 3600:.1f} hours"


class ProgressDisplay:
    """Context manager that shows a run's `Progress` on stdout."""

    def __init__(self, console: Console | None = None):
        self._console = console or Console(highlight=False, soft_wrap=True)
        self._status: Status | None = None
        self._printed, self._shown = 0.0, -1
        self._busy_since = time.monotonic()

    def __enter__(self) -> ProgressDisplay:
        if self._console.is_terminal:
            self._status = self._console.status("tracing the train step")
            self._status.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._status:
            self._status.stop()

    def say(self, text: str) -> None:
        """A line that stays."""
        self._console.print(text, markup=False)

    def busy(self, text: str) -> None:
        """Something that goes on before the first step; on a terminal only as long as it is new."""
        if self._status:
            self._status.update(text)
        elif time.monotonic() - self._busy_since >= _SECONDS_BETWEEN_LINES:
            self._busy_since = time.monotonic()
            self.say(text)

    def show(self, progress: Progress) -> None:
        """Renews the line; where there is no terminal, prints it at the end and every now and then."""
        if progress.step == self._shown:
            return  # told twice of one step: the last, by itself and with the loop that it ends
        self._shown = progress.step
        if self._status:
            self._status.update(progress.line())
            if progress.step == progress.steps:
                self.say(progress.line())
            return
        now = time.monotonic()
        if now - self._printed >= _SECONDS_BETWEEN_LINES or progress.step == progress.steps:
            self._printed = now
            self.say(progress.line())
