"""What can be wrong with data: errors that stop, and problems of single records that are counted and reported."""

from __future__ import annotations

import logging
import threading
import time

from tfod_zoo.errors import ZooError

_LOG = logging.getLogger("tfod_zoo.data")
_SECONDS_BETWEEN_WARNINGS = 60.0

# In the order of the problem vector that the input pipeline's graph computes for every record.
PROBLEMS = (
    "boxes with a coordinate that is not a number",
    "boxes without area",
    "boxes outside the image",
    "boxes partly outside the image",
    "objects of a class that is not in the label map",
    "objects beyond max_number_of_boxes",
    "keypoints outside the image",
    "records that could not be read",
)
(NOT_A_NUMBER, NO_AREA, OUTSIDE, PARTLY_OUTSIDE, UNKNOWN_CLASS, TOO_MANY, KEYPOINT_OUTSIDE, UNREADABLE) = range(
    len(PROBLEMS)
)
# All others are dropped.
_TREATMENT = {PARTLY_OUTSIDE: "clipped", KEYPOINT_OUTSIDE: "taken as not labelled", UNREADABLE: "skipped"}


class DataError(ZooError):
    """Data that cannot be used: no files, a broken file, an option that is not supported."""


class DataProblems:
    """Counts what was wrong with single records, each record once however often it is read; thread-safe.

    A warning names the running total and the first record of its kind, at most once a minute a kind, so that one bad
    record neither ends a day of training nor stays unseen.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._seen: set[tuple[int, int]] = set()
        self._counts = [0] * len(PROBLEMS)
        self._first = [""] * len(PROBLEMS)
        self._warned_at = [float("-inf")] * len(PROBLEMS)

    def add(self, record: int, name: str, counts: list[int]) -> None:
        """Notes the problems of one record.

        Args:
          record: its index in the data set.
          name: what a user can find it by.
          counts: one number for each of `PROBLEMS`.
        """
        with self._lock:
            for kind, count in enumerate(counts):
                if not count or (kind, record) in self._seen:
                    continue
                self._seen.add((kind, record))
                self._first[kind] = self._first[kind] or name
                self._counts[kind] += count
                if time.monotonic() - self._warned_at[kind] >= _SECONDS_BETWEEN_WARNINGS:
                    self._warned_at[kind] = time.monotonic()
                    _LOG.warning("data: %s", self._line(kind))

    @property
    def counts(self) -> dict[str, int]:
        """Problem (one of `PROBLEMS`) -> how many so far; problems that did not occur are left out."""
        with self._lock:
            return {PROBLEMS[kind]: count for kind, count in enumerate(self._counts) if count}

    def summary(self) -> list[str]:
        """One line for each problem that occurred."""
        with self._lock:
            return [self._line(kind) for kind, count in enumerate(self._counts) if count]

    def _line(self, kind: int) -> str:
        done = _TREATMENT.get(kind, "dropped")
        return f"{self._counts[kind]} {PROBLEMS[kind]} ({done}); the first in {self._first[kind]}"
