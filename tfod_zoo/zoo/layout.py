"""Where the parts of an unpacked zoo archive are."""

from __future__ import annotations

import re
from pathlib import Path, PurePosixPath

from tfod_zoo.zoo.registry import ZooModel

CONFIG_NAME = "pipeline.config"
_DATA_FILE = re.compile(r"\.data-\d{5}-of-(\d{5})$")
_STATE_PATH = re.compile(r'^model_checkpoint_path:\s*"([^"]+)"', re.MULTILINE)


def what_is_missing(folder: Path, model: ZooModel) -> str | None:
    """What a model's folder lacks, as the end of a sentence with "has"; None when it is complete."""
    if not (folder / CONFIG_NAME).is_file():
        return f"no {CONFIG_NAME}"
    prefix = find_prefix(folder, model)
    if prefix is None:
        return f"no checkpoint {model.checkpoint_prefix or ''}".rstrip()
    data = [match for path in prefix.parent.glob(f"{prefix.name}.data-*") if (match := _DATA_FILE.search(path.name))]
    if not data or len(data) != int(data[0].group(1)):
        return f"not all data files of checkpoint {prefix.name}"
    return None


def find_prefix(folder: Path, model: ZooModel) -> Path | None:
    """The checkpoint's prefix: the registry's if it is there, else the one that the checkpoint state file names."""
    prefixes = [folder / model.checkpoint_prefix] if model.checkpoint_prefix else []
    state = folder / "checkpoint" / "checkpoint"
    if state.is_file() and (named := _STATE_PATH.search(state.read_text(errors="replace"))):
        # The file may hold a path of the machine that trained.
        prefixes.append(state.parent / PurePosixPath(named.group(1)).name)
    # A state file may name checkpoints that were never shipped; one that is there alone is the one.
    shipped = list((folder / "checkpoint").glob("*.index"))
    if len(shipped) == 1:
        prefixes.append(shipped[0].with_suffix(""))
    return next((prefix for prefix in prefixes if prefix.with_name(prefix.name + ".index").is_file()), None)


def find_top(unpacked: Path) -> Path | None:
    """The folder of the model in what an archive unpacked to: where the outermost pipeline.config is."""
    tops = sorted(unpacked.rglob(CONFIG_NAME), key=lambda path: (len(path.parts), path))
    return tops[0].parent if tops else None
