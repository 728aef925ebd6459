"""Which images train and which evaluate: by the names of folders and files, or by a stable draw."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TypeVar

Item = TypeVar("Item")

VAL_SHARE = 0.2  # of the images, where a data set has no split of its own
_NAMES = {
    "train": ("train", "training", "trn"),
    "val": ("val", "valid", "validation", "eval", "evaluation", "dev"),
    "test": ("test", "testing"),
}
_WORDS = {word: split for split, words in _NAMES.items() for word in words}


def split_of_name(name: str) -> str:
    """The split that a file or folder name speaks of ("instances_val2017" -> "val"); "" for none."""
    words = re.findall(r"[a-z]+", name.lower())
    return next((_WORDS[word] for word in words if word in _WORDS), "")


def split_of_folders(path: Path, root: Path) -> str:
    """The split that a folder between `root` and a file is named after; "" for none."""
    return next((_WORDS[part.lower()] for part in path.relative_to(root).parts[:-1] if part.lower() in _WORDS), "")


def by_folder(paths: Iterable[Path], root: Path) -> dict[str, list[Path]]:
    """Files by `split_of_folders`."""
    splits: dict[str, list[Path]] = {}
    for path in paths:
        splits.setdefault(split_of_folders(path, root), []).append(path)
    return splits


def train_and_val(
    items: Sequence[Item], name: Callable[[Item], str], val_share: float = VAL_SHARE
) -> tuple[list[Item], list[Item]]:
    """Divides items by a hash of their names, so that each keeps its side when others come or go.

    Both sides get at least one item where there are two.

    Args:
      items: images, files, records.
      name: what an item is called; the same name, the same side.
      val_share: expected share of the second side, in 0..1.
    """
    draws = [_draw(name(item)) for item in items]
    limit = val_share
    if len(items) > 1:
        # At least the smallest draw, and never the largest.
        limit = max(limit, min(draws) + 1e-12) if max(draws) > min(draws) else limit
        limit = min(limit, max(draws))
    pairs = list(zip(items, draws, strict=True))
    return [item for item, draw in pairs if draw >= limit], [item for item, draw in pairs if draw < limit]


def _draw(name: str) -> float:
    """A number in [0, 1) that the name decides."""
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:6], "big") / 2**48
