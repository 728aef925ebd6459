"""The time that a step of unknown length has taken so far."""

from __future__ import annotations

from rich.progress import SpinnerColumn, TextColumn, TimeElapsedColumn

from tfod_zoo.progress import CountProgress


class StageProgress(CountProgress):
    """Counts seconds."""

    def _columns(self):
        return SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn()

    def line(self, done: int, seconds: float) -> str:
        return f"{self._label}: {seconds:.0f} s so far"
