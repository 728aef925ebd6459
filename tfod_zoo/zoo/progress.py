"""Progress of a transfer."""

from __future__ import annotations

from rich.progress import BarColumn, DownloadColumn, TextColumn, TimeRemainingColumn, TransferSpeedColumn

from tfod_zoo.progress import CountProgress


class TransferProgress(CountProgress):
    """Counts bytes received."""

    def _columns(self):
        columns = (BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
        return TextColumn("{task.description}"), *columns

    def line(self, received: int, seconds: float) -> str:
        rate = received / seconds if seconds > 0 else 0.0
        text = f"{self._label}: {received / 1e6:.1f}"
        if self._total:
            text += f" of {self._total / 1e6:.1f}"
        text += f" MB, {rate / 1e6:.1f} MB/s"
        return text + (f", about {(self._total - received) / rate:.0f} s left" if self._total and rate else "")
