"""The store: a folder of unpacked zoo archives, and how they get there.

    STORE/
      centernet_mobilenetv2_fpn_od/      a model's `archive_folder`: received in full, checked, unpacked
      .download-XXXXXXXX/                a transfer that is running (or was killed: it may be deleted)

A model's folder appears in one step at the end, so a folder that is there is complete. No TensorFlow.
"""

from __future__ import annotations

import errno
import gzip
import logging
import os
import re
import shutil
import tarfile
import tempfile
import zlib
from pathlib import Path, PurePosixPath

from tfod_zoo.errors import UsageError, ZooError
from tfod_zoo.zoo.registry import ZooModel, get_model
from tfod_zoo.zoo.transfer import fetch

_STORE_VARIABLE = "TFOD_ZOO_STORE"
_FOLDER_NAME = "checkpoints"
_DATA_FILE = re.compile(r"\.data-\d{5}-of-(\d{5})$")

_log = logging.getLogger(__name__)


def store_path(store: str | os.PathLike[str] | None = None) -> Path:
    """The folder of the store: the argument, else TFOD_ZOO_STORE, else `checkpoints` of the checkout or of the
    working folder. It need not exist."""
    chosen = store or os.environ.get(_STORE_VARIABLE)
    if chosen:
        return Path(chosen).expanduser()
    root = Path(__file__).resolve().parents[2]
    is_checkout = (root / "setup.cfg").is_file() and (root / _FOLDER_NAME / "README.md").is_file()
    return (root if is_checkout else Path.cwd()) / _FOLDER_NAME


def model_folder(name: str, store: str | os.PathLike[str] | None = None) -> Path:
    """Where the store keeps this model, whether it is there or not; UnknownModelError for an unknown name."""
    return store_path(store) / get_model(name).archive_folder


def is_downloaded(name: str, store: str | os.PathLike[str] | None = None) -> bool:
    """Whether the store holds this model: its pipeline.config and every file of its checkpoint."""
    return _what_is_missing(model_folder(name, store), get_model(name)) is None


def checkpoint_prefix(name: str, store: str | os.PathLike[str] | None = None) -> Path:
    """Prefix of a downloaded model's checkpoint, for `restore_checkpoint`.

    Raises:
      ZooError: the store does not hold the model, or its folder has no checkpoint.
    """
    folder = model_folder(name, store)
    prefix = _find_prefix(folder, get_model(name))
    if prefix is None:
        raise ZooError(f"{folder} holds no checkpoint; run `tfod-zoo download {name}` first.")
    return prefix


def download(name: str, store: str | os.PathLike[str] | None = None) -> Path:
    """Brings a model's archive into the store, verified and unpacked, unless it is there already.

    The transfer is checked against the length and md5 that the host states, the archive is read to its end and unpacked
    beside its final place (files and folders only, all inside), and its layout is checked; then one rename makes it
    visible. Whatever goes wrong before that leaves nothing under the final name.

    Returns:
      The folder with `pipeline.config` and `checkpoint/`.

    Raises:
      UsageError: no such model, or no archive of it was ever published.
      ZooError: transfer, verification, unpacking or writing failed; the message says which and what to do.
    """
    model = get_model(name)
    folder = model_folder(name, store)
    if _what_is_missing(folder, model) is None:
        return folder
    if not model.archive_urls:
        raise UsageError(f"No archive of {name} was ever published; `tfod-zoo config {name}` writes its recipe, which "
                         "starts from random weights.")
    if folder.exists():
        raise ZooError(f"{folder} is there but has {_what_is_missing(folder, model)}; move it away and run again.")
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".download-", dir=folder.parent) as scratch:
            _bring(model, folder, Path(scratch))
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise ZooError(f"The disk of {folder.parent} is full: nothing of {name} was kept; free some space, or give "
                           "another place with --store DIR.") from error
        raise ZooError(f"Cannot write {name} into {folder.parent}: {error.strerror or error}; give another place with "
                       "--store DIR.") from error
    return folder


def _bring(model: ZooModel, folder: Path, scratch: Path) -> None:
    archive = scratch / "archive.tar.gz"
    received = fetch(model.archive_urls, archive, label=model.name)
    if model.archive_bytes and abs(received - model.archive_bytes) > model.archive_bytes / 100:
        _log.warning("%s has %d bytes where about %d were expected; a zoo archive may have been replaced.",
                     model.name, received, model.archive_bytes)
    unpack(archive, scratch / "unpacked")
    # A real archive decides its top folder: for one model the registry has only a hint of it.
    tops = sorted((scratch / "unpacked").rglob("pipeline.config"), key=lambda path: len(path.parts))
    if not tops:
        raise ZooError(f"The archive of {model.name} has no pipeline.config, so it is not a zoo model's; "
                       "nothing was kept.")
    top = tops[0].parent
    if top.name != model.archive_folder:
        _log.warning("The archive of %s has top folder %s where %s was expected; kept under the latter.",
                     model.name, top.name, model.archive_folder)
    missing = _what_is_missing(top, model)
    if missing:
        raise ZooError(f"The archive of {model.name} has {missing}; nothing was kept.")
    try:
        top.rename(folder)
    except OSError:
        # Another process may have brought the same model in the meantime; a folder in the way is never replaced.
        if _what_is_missing(folder, model) is not None:
            raise


def unpack(archive: Path, target: Path) -> None:
    """Unpacks a .tar.gz of an unknown sender: plain files and folders, all below `target`; both streams to their end.

    Raises:
      ZooError: the archive is damaged, or has a member that is a link or a device or that leads out of `target`.
    """
    try:
        with gzip.open(archive) as stream:
            with tarfile.open(fileobj=stream, mode="r|") as members:
                for member in members:
                    _unpack_member(members, member, target)
            # tar stops at its own end mark; gzip's checksum comes after it.
            while stream.read(2**20):
                pass
    except (tarfile.TarError, zlib.error, EOFError, gzip.BadGzipFile) as error:
        raise ZooError(f"The archive is damaged ({error}); nothing was kept, run again to fetch it anew.") from error


def _unpack_member(members: tarfile.TarFile, member: tarfile.TarInfo, target: Path) -> None:
    inside = PurePosixPath(member.name)
    if inside.is_absolute() or ".." in inside.parts or "\\" in member.name:
        raise ZooError(f"The archive's member {member.name!r} leads out of its folder; it is refused and nothing kept.")
    path = target / inside
    if member.isdir():
        path.mkdir(parents=True, exist_ok=True)
    elif member.isfile():
        path.parent.mkdir(parents=True, exist_ok=True)
        content = members.extractfile(member)
        assert content is not None  # it is a file
        with content, open(path, "wb") as out:
            shutil.copyfileobj(content, out, 2**20)
    else:
        raise ZooError(f"The archive's member {member.name!r} is a link or a device; it is refused and nothing kept.")


def _what_is_missing(folder: Path, model: ZooModel) -> str | None:
    """What a model's folder lacks, as the end of a sentence with "has"; None when it is complete."""
    if not (folder / "pipeline.config").is_file():
        return "no pipeline.config"
    prefix = _find_prefix(folder, model)
    if prefix is None:
        return f"no checkpoint {model.checkpoint_prefix or ''}".rstrip()
    data = [match for path in prefix.parent.glob(f"{prefix.name}.data-*") if (match := _DATA_FILE.search(path.name))]
    if not data or len(data) != int(data[0].group(1)):
        return f"not all data files of checkpoint {prefix.name}"
    return None


def _find_prefix(folder: Path, model: ZooModel) -> Path | None:
    """The registry's prefix if it is there; else the one that the checkpoint state file names."""
    prefixes = [folder / model.checkpoint_prefix] if model.checkpoint_prefix else []
    state = folder / "checkpoint" / "checkpoint"
    if state.is_file():
        named = re.search(r'^model_checkpoint_path:\s*"([^"]+)"', state.read_text(errors="replace"), re.MULTILINE)
        if named:
            # The file may hold a path of the machine that trained.
            prefixes.append(state.parent / PurePosixPath(named.group(1)).name)
    return next((prefix for prefix in prefixes if prefix.with_name(prefix.name + ".index").is_file()), None)
