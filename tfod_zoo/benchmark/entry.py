"""What one row of a benchmark is about."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

# A latency is measured over at least so many calls and so many seconds of them.
MIN_CALLS = 50
MIN_SECONDS = 5.0


@dataclass(frozen=True)
class Entry:
    """One model in one runtime at one batch size and canvas, with one set of weights; data only."""

    model: str  # a zoo name, or a folder with pipeline.config and checkpoints
    weights: str = "zoo"  # "zoo" (the model's own), "random", or a folder or prefix of checkpoints
    batch_size: int = 1
    input_size: tuple[int, int] | None = None  # (height, width); None = the config's
    dataset: str | None = None  # records, "tfds:...", "config" = the config's eval reader; None = no mAP
    label_map: str | None = None
    limit: int | None = None  # images to evaluate; None = all
    min_calls: int = MIN_CALLS
    min_seconds: float = MIN_SECONDS
    store: str | None = None
    runtime: str = "tensorflow"  # of `runtimes.PRECISIONS`
    precision: str = "float32"
    threads: int = 0  # of the runtime; 0 = its own choice
    weights_version: str | None = None  # of weights in a folder: newest checkpoint and its time, as training goes on

    @property
    def key(self) -> str:
        """Equal for entries that would measure the same thing."""
        return json.dumps(asdict(self), sort_keys=True)

    @property
    def title(self) -> str:
        """Names the entry in a line of progress."""
        size = f" {self.input_size[0]}x{self.input_size[1]}" if self.input_size else ""
        threads = f" {self.threads} threads" if self.threads else ""
        return f"{Path(self.model).name}{size} batch {self.batch_size}, {self.runtime} {self.precision}{threads}"

    @property
    def weights_name(self) -> str:
        """The weights, as a report names them."""
        if self.weights == "random":
            return "random"
        if self.weights_version:
            folder = self.model if self.weights == "zoo" else self.weights
            return f"{Path(folder).name}/{self.weights_version.split()[0]}"
        return self.weights

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> Entry:
        """The entry that `asdict` and JSON made these values of."""
        known = {name: values[name] for name in (f.name for f in fields(cls)) if name in values}
        if known.get("input_size"):
            known["input_size"] = tuple(known["input_size"])
        return cls(**known)


def checkpoint_version(folder: str | Path) -> str | None:
    """Newest checkpoint under `folder` and its time, such as "ckpt-500 1700000000"; None without one."""
    indexes = [path for pattern in ("*.index", "checkpoint/*.index") for path in Path(folder).glob(pattern)]
    if not indexes:
        return None
    newest = max(indexes, key=lambda path: path.stat().st_mtime)
    return f"{newest.stem} {int(newest.stat().st_mtime)}"
