"""Energy that the processor packages spent, where the machine tells: Linux's powercap counters (RAPL)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

POWERCAP = Path("/sys/class/powercap")
# A package is intel-rapl:N, on AMD too; intel-rapl:N:M are parts of it and would count twice.
_PACKAGES = "intel-rapl:[0-9]*"


def read_microjoules(root: Path = POWERCAP) -> dict[str, tuple[int, int]]:
    """Package -> (counter, the value at which it starts again from 0), both in microjoules.

    Empty where the machine has no counters or does not let this user read them (Linux keeps them to root).
    """
    counters = {}
    for package in sorted(root.glob(_PACKAGES)):
        if package.name.count(":") != 1:
            continue
        try:
            counter = int((package / "energy_uj").read_text())
            counters[package.name] = counter, int((package / "max_energy_range_uj").read_text())
        except (OSError, ValueError):
            return {}  # some packages without the others would be a wrong sum
    return counters


def spent_joules(before: Mapping[str, tuple[int, int]], after: Mapping[str, tuple[int, int]]) -> float | None:
    """Joules of all packages between two readings less than a turn of the counter apart; None without counters.

    It is the whole machine's, whatever else ran on it.
    """
    if not before or before.keys() != after.keys():
        return None
    return sum((after[name][0] - counter) % (limit + 1) for name, (counter, limit) in before.items()) / 1e6
