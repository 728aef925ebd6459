"""What lies in a store: listed with its papers, verified again, removed, tidied up."""

from __future__ import annotations

import contextlib
import dataclasses
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

from tfod_zoo.errors import UsageError, ZooError
from tfod_zoo.zoo.checkpoint_index import CheckpointIndexError, read_index
from tfod_zoo.zoo.layout import CONFIG_NAME, what_is_missing
from tfod_zoo.zoo.lock_file import LOCK_NAME, read_lock
from tfod_zoo.zoo.origin import BY_HAND, Origin
from tfod_zoo.zoo.process_lock import process_lock
from tfod_zoo.zoo.registry import MODELS, ZooModel, get_model
from tfod_zoo.zoo.variables import identify, model_variables
from tfod_zoo.zoo.verify import FAILED, PASSED, UNCHECKED, WARNING, Finding, verify_folder
from tfod_zoo.zoo.workspace import FOLDER_NAME, Workspace, leftovers

# Levels that only the archive could be put through; the papers say what they found.
_OF_THE_ARCHIVE = ("transport", "archive")
_OLD_TRANSFERS = ".download-*"  # what the first version of this package left when it was killed


@dataclasses.dataclass(frozen=True)
class StoredModel:
    """A model that a store holds, its bytes on disk, and its papers if it has any."""

    model: ZooModel
    folder: Path
    size: int
    origin: Origin | None

    @property
    def result(self) -> str:
        """The worst that any level found when it came here."""
        results = {finding.result for finding in self.origin.findings} if self.origin else {UNCHECKED}
        return next(result for result in (FAILED, WARNING, PASSED, UNCHECKED) if result in results)


def stored_models(store: Path) -> list[StoredModel]:
    """The complete models of a store, in the zoo's order."""
    return [
        StoredModel(model, folder, folder_size(folder), Origin.read(folder))
        for model in MODELS
        if what_is_missing(folder := store / model.archive_folder, model) is None
    ]


def folder_size(folder: Path) -> int:
    """Bytes of all files below a folder."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def verify_stored(
    name_or_folder: str, store: Path, show: Callable[[int], None] = lambda read_bytes: None
) -> tuple[ZooModel, Path, Iterator[Finding]]:
    """Every level of verification on what lies there, as far as it can be done without the archive.

    Args:
      name_or_folder: a zoo model's name, or a model's folder, in a store or not.
      store: where names are looked for, and the lock file.
      show: called with the bytes read so far.

    Returns:
      The model that it should be, its folder, and each level's finding as soon as it is known.

    Raises:
      UsageError: no zoo model has this name and no folder either.
      ZooError: the store does not hold the model, or the folder is no zoo model's.
    """
    folder = Path(name_or_folder)
    if name_or_folder in {model.name for model in MODELS} or not folder.is_dir():
        model = get_model(name_or_folder)
        folder = store / model.archive_folder
        if not folder.is_dir():
            raise ZooError(f"{model.name} is not in {store}; run `tfod-zoo download {model.name}`.")
    else:
        model = _model_of(folder)
    return model, folder, _findings(model, folder, store, show)


def _findings(model: ZooModel, folder: Path, store: Path, show: Callable[[int], None]) -> Iterator[Finding]:
    origin = Origin.read(folder)
    if origin is None or origin.archive is None:
        yield Finding("archive", UNCHECKED, BY_HAND)
    else:
        for finding in origin.findings:
            if finding.level in _OF_THE_ARCHIVE:
                yield Finding(finding.level, finding.result, f"{finding.text} (on {origin.when}, from {origin.source})")
        locked = read_lock(store).get(model.name)
        if locked is None:
            yield Finding("lock", UNCHECKED, f"{LOCK_NAME} of {store} does not have it")
        else:
            wrong = locked.contradiction(origin.archive)
            yield Finding("lock", FAILED if wrong else PASSED, wrong or f"the archive that {LOCK_NAME} has")
    yield from verify_folder(folder, model, origin.files if origin and origin.archive else None, show)


def _model_of(folder: Path) -> ZooModel:
    """Which model a folder holds: by its papers, its name, or its variables."""
    origin = Origin.read(folder)
    name = folder.resolve().name
    for model in MODELS:
        if (origin and origin.model == model.name) or (origin is None and name in (model.name, model.archive_folder)):
            return model
    config = folder / CONFIG_NAME
    text = config.read_text(errors="replace") if config.is_file() else ""
    for path in sorted(folder.glob("checkpoint/*.index")):
        with contextlib.suppress(CheckpointIndexError):
            for same in identify(model_variables(read_index(path)), text):
                return get_model(same)
    raise ZooError(f"{folder} is no zoo model's folder: neither its name nor the variables of a checkpoint in it are a "
                   "model's; give a model's name or its unpacked archive.")


def remove(name: str, store: Path) -> int:
    """Removes a model, or what a broken-off transfer of it left; returns the bytes that this frees.

    Raises:
      UsageError: the store holds nothing of it.
      ZooError: it cannot be removed.
    """
    model = get_model(name)
    folder = store / model.archive_folder
    if not folder.is_dir():
        raise UsageError(f"{name} is not in {store}; `tfod-zoo store list` shows what is.")
    size = folder_size(folder)
    try:
        # First out of sight in one step, so that no half of a model is ever under its final name.
        with process_lock(store / FOLDER_NAME / f"{name}.lock"), Workspace(store, name) as workspace:
            folder.rename(workspace.folder / "removed")
    except OSError as error:
        raise ZooError(f"Cannot remove {folder}: {error.strerror or error}.") from error
    return size


def tidy(store: Path) -> tuple[int, int]:
    """Removes what broken-off and killed transfers left; returns how many and the bytes that this frees."""
    left = [*leftovers(store), *(path for path in store.glob(_OLD_TRANSFERS) if path.is_dir())]
    size = sum(map(folder_size, left))
    for folder in left:
        shutil.rmtree(folder, ignore_errors=True)
    for lock in (store / FOLDER_NAME).glob("*.lock"):
        # One that nobody holds is removed by letting go of it.
        with contextlib.suppress(OSError), process_lock(lock, wait=False):
            pass
    with contextlib.suppress(OSError):
        (store / FOLDER_NAME).rmdir()
    return len(left), size
