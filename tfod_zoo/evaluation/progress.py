"""Progress over images."""

from __future__ import annotations

from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn

from tfod_zoo.progress import CountProgress


class ImageProgress(CountProgress):
    """Counts images."""

    def _columns(self):
        return TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()

    def line(self, done: int, seconds: float) -> str:
        rate = done / seconds if seconds > 0 else 0.0
        if not self._total:
            return f"{self._label}: {done} images, {rate:.1f} images/s"
        left = f", about {(self._total - done) / rate:.0f} s left" if rate else ""
        return f"{self._label}: {done} of {self._total} images, {rate:.1f} images/s{left}"
