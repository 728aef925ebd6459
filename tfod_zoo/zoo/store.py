"""The store: a folder of unpacked zoo archives, and how they get there.

    STORE/
      centernet_mobilenetv2_fpn_od/      a model's `archive_folder`: received in full, verified, unpacked
        tfod_zoo.json                    where it came from, when, and how far it was verified (`origin`)
      archives.lock                      size and sha256 of every archive verified so far (`lock_file`)
      .tfod-zoo/                         transfers that are running or broke off (`workspace`)

A model's folder appears in one step at the end, so a folder that is there is complete. No TensorFlow.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

from tfod_zoo.errors import ZooError
from tfod_zoo.zoo.layout import find_prefix, what_is_missing
from tfod_zoo.zoo.registry import get_model

_STORE_VARIABLE = "TFOD_ZOO_STORE"
_FOLDER_NAME = "checkpoints"
_AT_ONCE = 4  # transfers; more only share the same line

StrPath = str | os.PathLike[str]


def store_path(store: StrPath | None = None) -> Path:
    """The folder of the store: the argument, else TFOD_ZOO_STORE, else `checkpoints` of the checkout or of the
    working folder. It need not exist."""
    chosen = store or os.environ.get(_STORE_VARIABLE)
    if chosen:
        return Path(chosen).expanduser()
    root = Path(__file__).resolve().parents[2]
    is_checkout = (root / "setup.cfg").is_file() and (root / _FOLDER_NAME / "README.md").is_file()
    return (root if is_checkout else Path.cwd()) / _FOLDER_NAME


def model_folder(name: str, store: StrPath | None = None) -> Path:
    """Where the store keeps this model, whether it is there or not; UnknownModelError for an unknown name."""
    return store_path(store) / get_model(name).archive_folder


def is_downloaded(name: str, store: StrPath | None = None) -> bool:
    """Whether the store holds this model: its pipeline.config and every file of its checkpoint."""
    return what_is_missing(model_folder(name, store), get_model(name)) is None


def checkpoint_prefix(name: str, store: StrPath | None = None) -> Path:
    """Prefix of a downloaded model's checkpoint, for `restore_checkpoint`.

    Raises:
      ZooError: the store does not hold the model, or its folder has no checkpoint.
    """
    folder = model_folder(name, store)
    prefix = find_prefix(folder, get_model(name))
    if prefix is None:
        raise ZooError(f"{folder} holds no checkpoint; run `tfod-zoo download {name}` first.")
    return prefix


def download(
    name: str,
    store: StrPath | None = None,
    *,
    mirror: StrPath | None = None,
    offline: bool | None = None,
    from_file: StrPath | None = None,
    update_lock: bool = False,
) -> Path:
    """Brings a model's archive into the store, verified and unpacked, unless it is there already.

    The transfer goes on where an earlier one broke off and is checked against the length and hashes that the host
    states and against the store's lock file; the archive is read to its end and unpacked beside its final place; every
    tensor is checked against its checksum, and the variables against the model's. Then one rename makes it visible.
    Whatever goes wrong before that leaves nothing under the final name. A folder that was unpacked by hand is verified
    once.

    `tfod_zoo.load(name)` does this by itself; it is for having an archive before it is needed, and from elsewhere.

    Example:
      >>> folder = tfod_zoo.download("centernet_mobilenetv2fpn_512x512_coco17_od")  # doctest: +SKIP
      >>> pipeline = tfod_zoo.read_pipeline(folder / "pipeline.config")  # doctest: +SKIP

    Args:
      name: a zoo model's name.
      store: the store's folder; see `store_path`.
      mirror: tried before the zoo's own addresses: http(s)://..., gs://BUCKET/..., or a folder, with NAME.tar.gz in it.
        None takes TFOD_ZOO_MIRROR.
      offline: never touches the network; None takes TFOD_ZOO_OFFLINE.
      from_file: an archive that is here already, in place of a transfer.
      update_lock: accepts an archive that is not the one in the lock file, and locks it instead.

    Returns:
      The folder with `pipeline.config` and `checkpoint/`.

    Raises:
      UsageError: no such model, or no archive of it was ever published.
      ZooError: transfer, verification, unpacking or writing failed; the message says which and what to do.
    """
    from tfod_zoo.zoo.bring import Options, bring_model
    from tfod_zoo.zoo.progress import TransferBoard

    with TransferBoard() as board:
        return bring_model(get_model(name), store_path(store), board, Options(mirror, offline, from_file, update_lock))


def download_models(
    names: Sequence[str],
    store: StrPath | None = None,
    *,
    mirror: StrPath | None = None,
    offline: bool | None = None,
    update_lock: bool = False,
) -> Iterator[tuple[str, Path | ZooError]]:
    """`download` of several models side by side: (name, its folder or what went wrong), in the order they are done.

    Each is independent of the others' failures; leaving the iterator ends the transfers, which can be gone on with.
    """
    from concurrent.futures import ThreadPoolExecutor, as_completed

    from tfod_zoo.zoo.bring import Options, bring_model
    from tfod_zoo.zoo.progress import TransferBoard

    stop = threading.Event()
    options = Options(mirror, offline, None, update_lock, stop)
    with TransferBoard() as board, ThreadPoolExecutor(_AT_ONCE) as pool:
        running = {
            pool.submit(bring_model, model, store_path(store), board, options): model.name
            for model in map(get_model, names)
        }
        try:
            for done in as_completed(running):
                error = done.exception()
                if error is not None and not isinstance(error, ZooError):
                    raise error
                yield running[done], error or done.result()
        finally:
            stop.set()
            for future in running:
                future.cancel()
