"""What can run a detector: TensorFlow in four ways, and the formats that it is exported to."""

from __future__ import annotations

from collections.abc import Sequence

from tfod_zoo.errors import UsageError
from tfod_zoo.export import formats

SAVED_MODEL = "saved_model"  # the one in a model's folder: an archive's own, TFOD's export, or ours

# The first precision of each is its own. XLA compiles the whole of `detect`.
PRECISIONS: dict[str, tuple[str, ...]] = {
    "tensorflow": ("float32", "bfloat16"),
    "xla": ("float32",),
    SAVED_MODEL: ("float32",),
    **formats.PRECISIONS,
}


def choose(runtimes: str, precisions: str | None) -> list[tuple[str, str]]:
    """What `--runtimes` and `--precisions` ask for: pairs of a runtime and a precision.

    Args:
      runtimes: names with commas, or "all": all but `SAVED_MODEL`, which not every model has.
      precisions: names with commas, or "all"; None for each runtime's own.

    Raises:
      UsageError: there is no such runtime, or none of them has the precision.
    """
    names = [name for name in PRECISIONS if name != SAVED_MODEL] if runtimes == "all" else runtimes.split(",")
    for name in names:
        if name not in PRECISIONS:
            raise UsageError(f'there is no runtime "{name}"; use all, {", ".join(PRECISIONS)}.')
    if precisions is None:
        return [(name, PRECISIONS[name][0]) for name in names]
    known = list(dict.fromkeys(each for name in names for each in PRECISIONS[name]))
    asked: Sequence[str] = known if precisions == "all" else precisions.split(",")
    for each in asked:
        if each not in known:
            raise UsageError(f'no runtime asked for has the precision "{each}"; use all, {", ".join(known)}.')
    return [(name, each) for name in names for each in asked if each in PRECISIONS[name]]
