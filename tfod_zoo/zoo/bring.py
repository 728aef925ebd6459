"""Bringing one model into a store: the steps of `tfod_zoo.download`, and what may go wrong in each."""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import logging
import os
import threading
from pathlib import Path

from tfod_zoo.errors import UsageError, ZooError
from tfod_zoo.zoo.addresses import archive_addresses, is_offline
from tfod_zoo.zoo.archive import ArchiveError, DamagedArchiveError, FileFacts, unpack
from tfod_zoo.zoo.digests import Digests, Hasher
from tfod_zoo.zoo.layout import find_top, what_is_missing
from tfod_zoo.zoo.lock_file import LockedArchive, read_lock, write_lock
from tfod_zoo.zoo.origin import BY_HAND, ORIGIN_NAME, Origin, now
from tfod_zoo.zoo.process_lock import process_lock
from tfod_zoo.zoo.progress import TransferBoard
from tfod_zoo.zoo.registry import ZooModel
from tfod_zoo.zoo.transfer import AddressError, NoSpaceError, NotAsLockedError, fetch
from tfod_zoo.zoo.verify import FAILED, PASSED, UNCHECKED, WARNING, Finding, verify_folder
from tfod_zoo.zoo.workspace import FOLDER_NAME, Workspace

_SIZE_TOLERANCE = 0.01  # of a size that is a hint

_log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Options:
    """How to bring models; see `tfod_zoo.download`. `stop` ends transfers from another thread."""

    mirror: str | os.PathLike[str] | None = None
    offline: bool | None = None
    from_file: str | os.PathLike[str] | None = None
    update_lock: bool = False
    stop: threading.Event | None = None


def bring_model(model: ZooModel, store: Path, board: TransferBoard, options: Options) -> Path:
    """The model's folder in the store, brought there if need be; raises as `tfod_zoo.download` does."""
    folder = store / model.archive_folder
    if what_is_missing(folder, model) is None:
        _accept_present(folder, model)
        return folder
    places = _places(model, store, options)
    try:
        with process_lock(
            store / FOLDER_NAME / f"{model.name}.lock",
            waiting=lambda: board.say(f"{model.name}: another process is fetching it; waiting for that"),
        ):
            missing = what_is_missing(folder, model)
            if missing is None:
                return folder  # another process brought it in the meantime
            if folder.exists():
                raise ZooError(f"{folder} is there but has {missing}; move it away and run again.")
            with Workspace(store, model.name) as workspace:
                _Bringing(model, store, board, options, workspace).from_any(places)
    except NoSpaceError as error:
        raise ZooError(f"{model.name} needs about {error.needed / 1e9:.2f} GB to be fetched and unpacked, the disk of "
                       f"{store} has {error.free / 1e9:.2f} GB; free some space, or give another place with --store "
                       "DIR.") from error
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise ZooError(f"The disk of {store} is full: nothing of {model.name} was kept; free some space, or give "
                           "another place with --store DIR.") from error
        raise ZooError(f"Cannot write {model.name} into {store}: {error.strerror or error}; give another place with "
                       "--store DIR.") from error
    board.say(f"{model.name}: verified and unpacked in {folder}")
    return folder


def _places(model: ZooModel, store: Path, options: Options) -> list[str | Path]:
    if options.from_file is not None:
        path = Path(options.from_file).expanduser()
        if not path.is_file():
            raise UsageError(f"There is no file {path}; give the archive that --from-file should take.")
        return [path]
    if not model.archive_urls:
        raise UsageError(f"No archive of {model.name} was ever published; `tfod-zoo config {model.name}` writes its "
                         "recipe, which starts from random weights.")
    places = archive_addresses(model, options.mirror, is_offline(options.offline))
    if not places:
        raise ZooError(f"{model.name} is not in {store}, and the network is not to be used (--offline or "
                       "TFOD_ZOO_OFFLINE); allow it, or give --mirror DIR or --from-file ARCHIVE.")
    return places


def _accept_present(folder: Path, model: ZooModel) -> None:
    """A complete folder without papers was put there by a user: it is verified once, then it gets them."""
    origin = Origin.read(folder)
    if origin is not None:
        _check_sizes(folder, model, origin)
        return
    findings = [Finding("archive", UNCHECKED, BY_HAND), *verify_folder(folder, model)]
    failed = next((finding for finding in findings if finding.result == FAILED), None)
    if failed:
        raise ZooError(f"{folder} was {BY_HAND} and cannot be used: {failed.text}; move it away and run again.")
    with contextlib.suppress(OSError):  # a store that cannot be written is verified every time
        Origin(model.name, BY_HAND, now(), None, tuple(findings), {}).write(folder)


def _check_sizes(folder: Path, model: ZooModel, origin: Origin) -> None:
    """A power failure can cut short what was unpacked just before; `tfod-zoo verify` reads the files too."""
    for name, facts in origin.files.items():
        path = folder / name
        size = path.stat().st_size if path.is_file() else 0
        if name.startswith("checkpoint/") and size != facts.size:
            raise ZooError(f"{path} has {size} bytes where {facts.size} were unpacked; run `tfod-zoo store remove "
                           f"{model.name}` and `tfod-zoo download {model.name}`.")


class _Bringing:
    """One model's way from a place into the store; holds what all steps need."""

    def __init__(self, model: ZooModel, store: Path, board: TransferBoard, options: Options, workspace: Workspace):
        self._model, self._store, self._board, self._options = model, store, board, options
        self._workspace = workspace
        self._locked = None if options.update_lock else read_lock(store).get(model.name)

    def from_any(self, places: list[str | Path]) -> None:
        """From the first place that gives the archive."""
        failures: list[AddressError] = []
        for place in places:
            for again in (True, False):
                try:
                    self._from_one(place)
                    return
                except AddressError as error:
                    if not error.resumable:
                        self._workspace.discard()
                    if error.again and again and isinstance(place, str):
                        continue
                    failures.append(error)
                    break
                except KeyboardInterrupt:
                    self._workspace.keep()
                    raise
        self._give_up(failures)

    def _give_up(self, failures: list[AddressError]) -> None:
        reasons = "; ".join(dict.fromkeys(str(failure) for failure in failures))
        received = self._workspace.received()
        if received:
            self._workspace.keep()
            kept = f"{received / 1e6:.1f} MB are kept, run again to go on"
        else:
            kept = "nothing was kept"
        advice = "" if self._options.from_file else (
            "; check the network or the proxy, or bring it with `tfod-zoo download` and --mirror or --from-file"
        )
        if any(isinstance(failure, NotAsLockedError) for failure in failures):
            advice = "; --update-lock accepts a change on purpose"
        raise ZooError(f"Cannot get {self._model.name}: {reasons}; {kept}{advice}.")

    def _from_one(self, place: str | Path) -> None:
        name = self._model.name
        archive, found, transport = self._receive(place)
        if self._locked and (wrong := self._locked.contradiction(found)):
            raise NotAsLockedError(f"{place} has {wrong}")
        self._warn_of_size(found)
        try:
            with self._board.work(f"{name}: unpacking", found.size) as show:
                files = unpack(archive, self._workspace.unpacked, show)
        except ArchiveError as error:
            # Where the host stated a hash the damage is the host's own, and comes again.
            again = isinstance(error, DamagedArchiveError) and transport.result == UNCHECKED
            raise AddressError(f"the archive from {place} {error}", again) from error
        top = self._find_top(place)
        findings = (transport, Finding("archive", PASSED, f"{len(files)} files, read to the end"),
                    *self._verify(top, place))
        inside = top.relative_to(self._workspace.unpacked).as_posix()
        Origin(name, str(place), now(), found, findings, _below(files, inside)).write(top)
        with process_lock(self._store / FOLDER_NAME / "archives.lock"):
            write_lock(self._store, name, LockedArchive(found.size, found.sha256), self._workspace.folder)
        self._move(top)

    def _receive(self, place: str | Path) -> tuple[Path, Digests, Finding]:
        """Where the archive is, its hashes, and how far the transfer vouches for it."""
        name = self._model.name
        if isinstance(place, Path):
            if not place.is_file():
                raise AddressError(f"there is no {place}")
            self._board.say(f"{name}: from {place} to {self._store / self._model.archive_folder}")
            hasher = Hasher()
            with self._board.work(f"{name}: reading", place.stat().st_size) as show:
                hasher.update_from(place, show)
            return place, hasher.digests(), Finding("transport", UNCHECKED, "a file that was here")
        self._board.say(f"{name}: from {place} to {self._store / self._model.archive_folder}")
        trusted = place not in self._model.archive_urls
        found, stated = fetch(place, self._workspace, name, self._board, self._locked, trusted, self._options.stop)
        if stated:
            kinds = " and ".join(kind for kind in ("md5", "crc32c") if getattr(stated, kind))
            finding = Finding("transport", PASSED, f"{found.size} bytes, {kinds} as the host stated")
        else:
            finding = Finding("transport", UNCHECKED, f"{found.size} bytes, the host stated no hash")
        return self._workspace.archive, found, finding

    def _warn_of_size(self, found: Digests) -> None:
        expected = self._model.archive_bytes
        if expected and abs(found.size - expected) > expected * _SIZE_TOLERANCE:
            _log.warning("%s has %d bytes where about %d were expected; a zoo archive may have been replaced.",
                         self._model.name, found.size, expected)

    def _find_top(self, place: str | Path) -> Path:
        # A real archive decides its top folder: for one model the registry has only a hint of it.
        top = find_top(self._workspace.unpacked)
        if top is None:
            raise AddressError(f"the archive from {place} has no pipeline.config, so it is not a zoo model's")
        if top.name != self._model.archive_folder:
            _log.warning("The archive of %s has top folder %s where %s was expected; kept under the latter.",
                         self._model.name, top.name, self._model.archive_folder)
        return top

    def _verify(self, top: Path, place: str | Path) -> list[Finding]:
        findings = []
        total = sum(path.stat().st_size for path in top.rglob("*.data-*"))
        with self._board.work(f"{self._model.name}: verifying", total) as show:
            for finding in verify_folder(top, self._model, show=show):
                if finding.result == FAILED:
                    raise AddressError(f"the archive from {place} is refused: {finding.text}")
                if finding.result == WARNING:
                    _log.warning("%s: %s.", self._model.name, finding.text)
                findings.append(finding)
        return findings

    def _move(self, top: Path) -> None:
        folder = self._store / self._model.archive_folder
        try:
            top.rename(folder)
        except OSError:
            # Without locks another process may have brought the same model; a folder in the way is never replaced.
            if what_is_missing(folder, self._model) is not None:
                raise


def _below(files: dict[str, FileFacts], top: str) -> dict[str, FileFacts]:
    """The files in the model's folder, as paths in it; not the papers of a folder that was packed again."""
    start = "" if top == "." else top + "/"
    return {
        name[len(start) :]: facts for name, facts in files.items()
        if name.startswith(start) and name != start + ORIGIN_NAME
    }
