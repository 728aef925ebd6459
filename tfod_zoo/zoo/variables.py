"""The variables of each zoo model, key and shape, and which model a checkpoint therefore is. No TensorFlow.

`variables.txt.gz` holds, for each model with an archive, a line `# NAME` and then a line `KEY SIZE,SIZE,...` a variable
(no sizes for a scalar), without the `model/` before and the suffix behind every key. All are float32.
"""

from __future__ import annotations

import dataclasses
import functools
import gzip
import re
from collections.abc import Mapping
from pathlib import Path

from tfod_zoo.zoo.checkpoint_index import CheckpointIndex
from tfod_zoo.zoo.registry import ZooModel, get_model

Shapes = Mapping[str, tuple[int, ...]]

_TABLE = Path(__file__).with_name("variables.txt.gz")
_PREFIX, _SUFFIX = "model/", "/.ATTRIBUTES/VARIABLE_VALUE"
_OPTIMIZER = "/.OPTIMIZER_SLOT/"
# A config's image_resizer names the input's size; networks of two sizes can have the same variables.
_RESIZER = re.compile(r"image_resizer\s*:?\s*\{\s*\w+\s*:?\s*\{(.*?)\}", re.DOTALL)
_SIZE = re.compile(r"\b(?:height|width|min_dimension|max_dimension)\s*:\s*(\d+)")


@functools.cache
def _tables() -> dict[str, dict[str, tuple[int, ...]]]:
    tables: dict[str, dict[str, tuple[int, ...]]] = {}
    for line in gzip.decompress(_TABLE.read_bytes()).decode().splitlines():
        key, _, text = line.partition(" ")
        if key == "#":
            table = tables[text] = {}
        else:
            table[key] = tuple(int(size) for size in text.split(",") if size)
    return tables


def expected_variables(name: str) -> Shapes:
    """Key (without `model/` and suffix) -> shape of every variable of a zoo model; KeyError without an archive."""
    return _tables()[name]


def model_variables(index: CheckpointIndex) -> dict[str, tuple[int, ...]]:
    """The model's part of a checkpoint as `expected_variables` has it: no optimizer, step or object graph."""
    return {
        tensor.key[len(_PREFIX) :].removesuffix(_SUFFIX): tensor.shape
        for tensor in index.tensors
        if tensor.key.startswith(_PREFIX) and _OPTIMIZER not in tensor.key
    }


@dataclasses.dataclass(frozen=True)
class Comparison:
    """How a checkpoint's variables differ from a model's: keys that it lacks, has in another shape, has besides."""

    missing: tuple[str, ...]
    reshaped: tuple[str, ...]
    added: tuple[str, ...]

    @property
    def restorable(self) -> bool:
        """Whether every variable of the model can be restored."""
        return not self.missing and not self.reshaped


def compare(found: Shapes, expected: Shapes) -> Comparison:
    """Differences in the order of the keys."""
    return Comparison(
        missing=tuple(key for key in sorted(expected) if key not in found),
        reshaped=tuple(key for key in sorted(expected) if key in found and found[key] != expected[key]),
        added=tuple(key for key in sorted(found) if key not in expected),
    )


def identify(found: Shapes, config_text: str) -> list[str]:
    """Names of the zoo models that have exactly these variables and, where the config says one, this input size."""
    return [
        name for name, table in _tables().items()
        if table == found and size_agrees(get_model(name), config_text) is not False
    ]


def size_agrees(model: ZooModel, config_text: str) -> bool | None:
    """Whether a pipeline config resizes images to the model's input size; None when it does not say."""
    resizer = _RESIZER.search(config_text)
    sizes = {int(size) for size in _SIZE.findall(resizer.group(1))} if resizer else set()
    return sizes == set(model.input_size) if sizes else None
