"""Durations, as people write them."""

from __future__ import annotations

import re

from tfod_zoo.errors import UsageError

_SECONDS = {"": 1, "s": 1, "m": 60, "h": 3600}


def parse_duration(text: str) -> float:
    """"90", "90s", "30m", "1.5h" -> seconds, above 0.

    Raises:
        UsageError: the text is none of these.
    """
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([smh]?)", text.strip().lower())
    if not match or float(match[1]) == 0:
        raise UsageError(f"--time-budget {text!r} is not a time; write 90s, 30m or 2h.")
    return float(match[1]) * _SECONDS[match[2]]


def format_duration(seconds: float) -> str:
    """Seconds -> "40 s", "12 min" or "2 h 5 min"."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60} min"
