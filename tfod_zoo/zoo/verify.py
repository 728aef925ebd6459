"""What can be known of a model's folder without any published checksum: the levels of verification. No TensorFlow.

    files         every file is as it was unpacked (size, crc32c)
    layout        pipeline.config, a checkpoint with all its data files
    tensors       every tensor of every checkpoint in the folder against its index (place, size, crc32c)
    model         names and shapes of the variables are those of the model that the registry says it is
    known pieces  files whose hashes public copies of the archive have shown

Before a folder exists, `transfer` and `archive` checked the archive itself; `origin` keeps what they found.
"""

from __future__ import annotations

import dataclasses
import hashlib
import struct
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from tfod_zoo.zoo.archive import FileFacts
from tfod_zoo.zoo.checkpoint_index import CheckpointIndex, CheckpointIndexError, TensorEntry, read_index
from tfod_zoo.zoo.layout import CONFIG_NAME, find_prefix, what_is_missing
from tfod_zoo.zoo.registry import ZooModel
from tfod_zoo.zoo.table import TableError, read_varint
from tfod_zoo.zoo.variables import compare, expected_variables, identify, model_variables, size_agrees

PASSED, WARNING, FAILED, UNCHECKED = "passed", "warning", "failed", "not checked"

Show = Callable[[int], None]

_CHUNK_BYTES = 2**20
_SHOWN = 3  # names that a finding gives before it only counts
_MAX_STRINGS = 2**20

# git blob SHA-1s of files in public copies of the unpacked archives. A mismatch is only a warning: a zoo archive may
# have been replaced, and a user may keep checkpoints of their own under the model's name.
_KNOWN_PIECES: Mapping[str, Mapping[str, str]] = {
    "centernet_mobilenetv2fpn_512x512_coco17_od": {
        "checkpoint/checkpoint": "8ced53b320e7c6a7e30066df22781a07e0176a1b",
        "checkpoint/ckpt-301.index": "c94269996355da238b1f7c48224f8adff36911b4",
        "checkpoint/ckpt-301.data-00000-of-00001": "77739e9543922e3fbb574954824f201b27c58732",
        "label_map.txt": "1e34eb8622530399765fb5fe2c61fdfa6a502f62",
    },
    "faster_rcnn_resnet50_v1_640x640_coco17_tpu-8": {
        "checkpoint/ckpt-0.index": "241cca62c52afa191d6590a68294b54a2d26ce9a",
    },
}


@dataclasses.dataclass(frozen=True)
class Finding:
    """What one level found: PASSED, WARNING, FAILED or UNCHECKED, and a clause that says what."""

    level: str
    result: str
    text: str


def verify_folder(
    folder: Path, model: ZooModel, files: Mapping[str, FileFacts] | None = None, show: Show = lambda read_bytes: None
) -> Iterator[Finding]:
    """Each level's finding, as soon as it is known.

    Args:
      folder: a model's folder (`pipeline.config`, `checkpoint/`).
      model: what it should be.
      files: what was unpacked there; None when that is not known.
      show: called with the bytes read so far.
    """
    progress = _Sum(show)
    if files is not None:
        yield _check_files(folder, files, progress)
    missing = what_is_missing(folder, model)
    yield Finding("layout", FAILED, f"it has {missing}") if missing else _check_layout(folder, model)
    yield _check_tensors(folder, progress)
    if not missing:
        yield _check_model(folder, model)
    yield _check_known_pieces(folder, model)


class _Sum:
    """Bytes read by all levels together."""

    def __init__(self, show: Show):
        self._show, self._done = show, 0

    def __call__(self, count: int) -> None:
        self._done += count
        self._show(self._done)


def _check_layout(folder: Path, model: ZooModel) -> Finding:
    prefix = find_prefix(folder, model)
    assert prefix is not None  # nothing is missing
    saved = [path.parent.relative_to(folder).as_posix() for path in sorted(folder.rglob("saved_model.pb"))]
    text = f"{CONFIG_NAME}, checkpoint {prefix.relative_to(folder).as_posix()}, "
    return Finding("layout", PASSED, text + (f"SavedModel in {saved[0]}/" if saved else "no SavedModel"))


def _check_files(folder: Path, files: Mapping[str, FileFacts], progress: Show) -> Finding:
    changed = []
    for name, facts in files.items():
        path = folder / name
        try:
            if path.stat().st_size != facts.size or _file_crc(path, progress) != facts.crc32c:
                changed.append(name)
        except OSError:
            changed.append(f"{name} (not there)")
    if changed:
        return Finding("files", FAILED, f"{_some(changed)} of {len(files)} files differ from what was unpacked")
    return Finding("files", PASSED, f"{len(files)} files are as they were unpacked")


def _file_crc(path: Path, progress: Show) -> int:
    import google_crc32c

    crc = 0
    with open(path, "rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            crc = google_crc32c.extend(crc, chunk)
            progress(len(chunk))
    return crc


def _check_tensors(folder: Path, progress: Show) -> Finding:
    count = size = 0
    indexes = sorted(folder.rglob("*.index"))
    for path in indexes:
        prefix = path.with_suffix("")
        try:
            index = read_index(path)
            wrong = [entry.key for entry in wrong_tensors(prefix, index, progress)]
        except CheckpointIndexError as error:
            return Finding("tensors", FAILED, str(error).rstrip("."))
        except OSError as error:
            return Finding("tensors", FAILED, f"{error.filename or prefix} cannot be read ({error.strerror or error})")
        if wrong:
            return Finding("tensors", FAILED, f"{len(wrong)} of {len(index.tensors)} tensors of "
                           f"{path.relative_to(folder).with_suffix('')} are damaged ({_some(wrong)})")
        count += len(index.tensors)
        size += sum(entry.size for entry in index.tensors)
    if not indexes:
        return Finding("tensors", FAILED, "there is no checkpoint")
    return Finding("tensors", PASSED, f"{count} tensors with {size / 1e6:.1f} MB in {_count(indexes, 'checkpoint')} "
                   "agree with the index")


def wrong_tensors(prefix: Path, index: CheckpointIndex, progress: Show = lambda count: None) -> Iterator[TensorEntry]:
    """Tensors of a checkpoint whose bytes are not those that its index has a checksum of; OSError without its data."""
    for shard, path in enumerate(index.data_files(prefix)):
        with open(path, "rb") as file:
            entries = [entry for entry in index.tensors if entry.shard == shard]
            for entry in sorted(entries, key=lambda entry: entry.offset):
                file.seek(entry.offset)
                crc = _string_crc(file, entry) if entry.dtype == "string" else _bytes_crc(file, entry.size)
                if crc != entry.crc32c:
                    yield entry
                progress(entry.size)


def _bytes_crc(file, size: int, crc: int = 0) -> int | None:
    """None when the file ends before."""
    import google_crc32c

    while size > 0:
        chunk = file.read(min(size, _CHUNK_BYTES))
        if not chunk:
            return None
        crc = google_crc32c.extend(crc, chunk)
        size -= len(chunk)
    return crc


def _string_crc(file, entry: TensorEntry) -> int | None:
    """A string tensor's bytes are a length a string, a checksum of the lengths, and the strings; its checksum has each
    length as a number of 4 bytes (8 where that is too small)."""
    import google_crc32c

    count = 1
    for size in entry.shape:
        count *= size
    if count > _MAX_STRINGS:
        return None
    head = file.read(min(entry.size, 10 * count + 4))
    crc = at = 0
    total = 0
    try:
        for _ in range(count):
            length, at = read_varint(head, at)
            crc = google_crc32c.extend(crc, struct.pack("<I" if length < 2**32 else "<Q", length))
            total += length
    except TableError:
        return None
    checksum = head[at : at + 4]
    if len(checksum) < 4 or at + 4 + total != entry.size:
        return None
    file.seek(entry.offset + at + 4)
    return _bytes_crc(file, total, google_crc32c.extend(crc, checksum))


def _check_model(folder: Path, model: ZooModel) -> Finding:
    prefix = find_prefix(folder, model)
    assert prefix is not None  # the layout was checked
    try:
        found = model_variables(read_index(prefix))
    except CheckpointIndexError as error:
        return Finding("model", FAILED, str(error).rstrip("."))
    expected = expected_variables(model.name)
    config = (folder / CONFIG_NAME).read_text(errors="replace")
    difference = compare(found, expected)
    same = identify(found, config)
    if same and model.name not in same:
        return Finding("model", FAILED, f"it is {same[0]}, not {model.name}")
    if difference.missing:
        return Finding("model", FAILED, f"it is not {model.name}: {len(difference.missing)} of its {len(expected)} "
                       f"variables are not there ({_some(difference.missing)})")
    if difference.reshaped:
        key = difference.reshaped[0]
        return Finding("model", FAILED, f"it is not {model.name}: {key} has shape {list(found[key])} where the model "
                       f"has {list(expected[key])}")
    if difference.added:
        return Finding("model", WARNING, f"all {len(expected)} variables of {model.name}, and {len(difference.added)} "
                       f"that it does not have ({_some(difference.added)})")
    if size_agrees(model, config) is False:
        return Finding("model", WARNING, f"the variables are {model.name}'s, but {CONFIG_NAME} resizes images to "
                       "another size")
    return Finding("model", PASSED, f"names and shapes of {len(expected)} variables are {model.name}'s")


def _check_known_pieces(folder: Path, model: ZooModel) -> Finding:
    known = _KNOWN_PIECES.get(model.name)
    if not known:
        return Finding("known pieces", UNCHECKED, "none is known of this model")
    differ = [name for name, sha1 in known.items() if _git_blob_sha1(folder / name) != sha1]
    if differ:
        return Finding("known pieces", WARNING, f"{len(differ)} of {_count(known, 'file')} differ from the published "
                       f"archive's ({_some(differ)})")
    return Finding("known pieces", PASSED, f"{_count(known, 'file')} equal the published archive's")


def _git_blob_sha1(path: Path) -> str | None:
    if not path.is_file():
        return None
    digest = hashlib.sha1(b"blob %d\0" % path.stat().st_size, usedforsecurity=False)
    with open(path, "rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()


def _some(names) -> str:
    shown = ", ".join(list(names)[:_SHOWN])
    return shown + (f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else "")


def _count(things, word: str) -> str:
    return f"{len(things)} {word}{'' if len(things) == 1 else 's'}"
