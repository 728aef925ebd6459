"""What a check of the machine found."""

from __future__ import annotations

from dataclasses import dataclass

OK, MISSING, WARNING, BROKEN = "ok", "missing", "warning", "broken"


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at.

    Attributes:
      name: what it is about, such as "tensorflow".
      state: OK, MISSING (an extra, which not everybody needs), WARNING (some things will not work) or BROKEN (nothing
        much will work).
      text: what is there.
      advice: what to do, a sentence; "" where nothing needs doing.
    """

    name: str
    state: str
    text: str
    advice: str = ""
