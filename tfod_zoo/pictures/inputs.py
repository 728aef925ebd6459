"""What the words of a command line mean: images, folders, patterns, videos, cameras; and where their results go."""

from __future__ import annotations

import glob
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tfod_zoo.errors import UsageError
from tfod_zoo.pictures.reading import IMAGE_SUFFIXES

VIDEO_SUFFIXES = (".mp4", ".avi", ".mov", ".mkv", ".webm", ".m4v", ".mpg", ".mpeg")
MARK = ".detections"  # of what is written, before the suffix: street.detections.jpg
_CAMERA = re.compile(r"webcam(?::(\d+))?|/dev/video(\d+)")
_WILDCARDS = "*?["


@dataclass(frozen=True)
class Input:
    """One image file, video file or camera.

    Attributes:
      path: the file; of a camera its name.
      root: the folder that was named, or the file's own: what lies below it is laid out alike below `--out`.
      camera: number of a camera; None for a file.
    """

    path: Path
    root: Path
    camera: int | None = None

    @property
    def moves(self) -> bool:
        """Whether it is a video or a camera."""
        return self.camera is not None or self.path.suffix.lower() in VIDEO_SUFFIXES


def find_inputs(words: Sequence[str]) -> list[Input]:
    """The images, videos and cameras that the words name, in their order, each once; a folder's by name.

    A folder stands for all images in it and below it. What an earlier run drew (`*.detections.jpg`) is left out of
    folders and patterns.

    Raises:
      UsageError: a word names nothing, or a folder holds no image.
    """
    found: dict[Path, Input] = {}
    for word in words:
        for one in _named(word):
            found.setdefault(one.path, one)
    if not found:
        raise UsageError(f"{' '.join(words)} names only what detect itself has drawn; name images, folders or videos.")
    return list(found.values())


def _named(word: str) -> list[Input]:
    camera = _CAMERA.fullmatch(word)
    if camera:
        number = int(camera[1] or camera[2] or 0)
        return [Input(Path(f"webcam-{number}"), Path("."), number)]
    path = Path(word)
    if path.is_dir():
        images = sorted(file for file in path.rglob("*") if file.suffix.lower() in IMAGE_SUFFIXES and file.is_file())
        if not images:
            raise UsageError(f"{word} has no image in it ({' '.join(IMAGE_SUFFIXES)}); name a folder that has.")
        return [Input(file, path) for file in images if not _is_ours(file)]
    if path.exists():
        # A shell's `*.jpg` brings them too.
        return [] if _is_ours(path) else [Input(path, path.parent)]
    matches = sorted(Path(name) for name in glob.glob(word, recursive=True)) if set(word) & set(_WILDCARDS) else []
    files = [match for match in matches if match.is_file() and not _is_ours(match)]
    if not files:
        what = "No file matches" if set(word) & set(_WILDCARDS) else "There is no"
        raise UsageError(f"{what} {word}; name images, folders, videos, a pattern over files, or `webcam`.")
    return [Input(file, file.parent) for file in files]


def _is_ours(path: Path) -> bool:
    return path.stem.endswith(MARK)


def picture_paths(inputs: Sequence[Input], out: Path | None) -> dict[Path, Path]:
    """Input file -> where its drawing goes: beside it, or laid out alike below `out`; no two in one place."""
    places: dict[Path, Path] = {}
    taken: set[Path] = set()
    for one in inputs:
        folder = one.path.parent if out is None else out / one.path.parent.relative_to(one.root)
        suffix = ".mp4" if one.moves else ".jpg"
        place, number = folder / f"{one.path.stem}{MARK}{suffix}", 2
        while place in taken:
            place, number = folder / f"{one.path.stem}-{number}{MARK}{suffix}", number + 1
        taken.add(place)
        places[one.path] = place
    return places


def results_folder(inputs: Sequence[Input], out: Path | None) -> Path:
    """Where the results files go: `out`, else the folder that all inputs come from, else here."""
    if out is not None:
        return out
    roots = {one.root for one in inputs}
    return roots.pop() if len(roots) == 1 else Path(".")
