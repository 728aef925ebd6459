"""Which formats and precisions there are; no TensorFlow, so that a command line can be read by it."""

from __future__ import annotations

import importlib
from types import ModuleType

from tfod_zoo.errors import UsageError, ZooError

SAVED_MODEL = "saved_model"
REPORT = "export.json"  # beside every export: what it was made of, and how far it is from it
# Precisions of each format, its own first. float16 is of the weights only: computed in float32.
PRECISIONS: dict[str, tuple[str, ...]] = {
    "openvino": ("float32", "float16", "bfloat16", "int8"),
    "litert": ("float32", "float16", "dynamic", "int8"),
    "onnx": ("float32",),
}
# Modules beyond this package's own: to run a format, and to convert to it. The extra of its name brings them.
_RUNS: dict[str, tuple[str, ...]] = {"openvino": ("openvino",), "litert": (), "onnx": ("onnxruntime",)}
_CONVERTS: dict[tuple[str, str], tuple[str, ...]] = {
    ("openvino", "int8"): ("nncf",),
    ("onnx", "float32"): ("onnx", "tf2onnx"),
}


def check(name: str, precision: str) -> None:
    """Raises UsageError where there is no such format, or no such precision of it."""
    if name not in PRECISIONS:
        raise UsageError(f'there is no format "{name}"; use {SAVED_MODEL}, {", ".join(PRECISIONS)}.')
    if precision not in PRECISIONS[name]:
        raise UsageError(f'{name} has no precision "{precision}"; use {", ".join(PRECISIONS[name])}.')


def need(name: str, to_convert: str | None = None) -> None:
    """Imports what runs a format and, where `to_convert` is a precision, what converts to it.

    Raises:
      ZooError: it is not installed, or does not work here.
    """
    for module in (*_RUNS[name], *(_CONVERTS.get((name, to_convert), ()) if to_convert else ())):
        try:
            importlib.import_module(module)
        except ImportError as error:
            raise ZooError(f"{name} needs the package {module} ({error}); pip install 'tfod-zoo[{name}]'.") from error


def room(name: str) -> ModuleType:
    """The module of a format: `convert` and `load`, which raise whatever their libraries do."""
    return importlib.import_module(f"tfod_zoo.export.{name}_format")
