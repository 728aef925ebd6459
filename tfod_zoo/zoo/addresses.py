"""Where an archive may be had: a mirror of the user's, then the zoo's own addresses; offline, only what is local."""

from __future__ import annotations

import os
from pathlib import Path
from urllib.parse import unquote, urlsplit

from tfod_zoo.errors import UsageError
from tfod_zoo.zoo.registry import ZooModel

_MIRROR_VARIABLE = "TFOD_ZOO_MIRROR"
_OFFLINE_VARIABLE = "TFOD_ZOO_OFFLINE"
_STORAGE = "https://storage.googleapis.com/"
_NO = ("", "0", "false", "no", "off")


def is_offline(argument: bool | None = None) -> bool:
    """The argument, else whether TFOD_ZOO_OFFLINE says so (anything but empty, 0, false, no, off)."""
    return os.environ.get(_OFFLINE_VARIABLE, "").strip().lower() not in _NO if argument is None else argument


def archive_addresses(model: ZooModel, mirror: str | os.PathLike[str] | None, offline: bool) -> list[str | Path]:
    """The places of a model's archive in the order to try them, addresses and files.

    Args:
      mirror: http(s)://..., gs://BUCKET/..., or a folder; None takes TFOD_ZOO_MIRROR. Below it the archive is expected
        as the zoo has it (DATE/NAME.tar.gz) or directly (NAME.tar.gz).
      offline: leaves every address out.

    Raises:
      UsageError: the mirror is neither an address nor a folder.
    """
    places: list[str | Path] = []
    chosen = os.fspath(mirror or os.environ.get(_MIRROR_VARIABLE) or "")
    names = (f"{model.date}/{model.name}.tar.gz", f"{model.name}.tar.gz")
    if chosen:
        base = _mirror(chosen)
        places += [base / name if isinstance(base, Path) else f"{base.rstrip('/')}/{name}" for name in names]
    places += model.archive_urls
    return [place for place in places if isinstance(place, Path) or not offline]


def _mirror(text: str) -> str | Path:
    scheme, _, rest = text.partition("://")
    if scheme == "gs" and rest:
        return _STORAGE + rest
    if scheme in ("http", "https") and rest:
        return text
    folder = Path(unquote(urlsplit(text).path)) if scheme == "file" and rest else Path(text).expanduser()
    if not folder.is_dir():
        raise UsageError(f"The mirror {text!r} is neither a folder nor an address (https://, http://, gs://); correct "
                         f"--mirror or {_MIRROR_VARIABLE}.")
    return folder
