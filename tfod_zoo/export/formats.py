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
# What `pip install` needs beyond the package: the modules, and the extra that brings them.
_NEEDED: dict[str, tuple[str, ...]] = {
    "openvino": ("openvino",),
    "litert": (),
    "onnx": ("onnx", "onnxruntime", "tf2onnx"),
}


def check(name: str, precision: str) -> None:
    """Raises UsageError where there is no such format, or no such precision of it."""
    if name not in PRECISIONS:
        raise UsageError(f'there is no format "{name}"; use {SAVED_MODEL}, {", ".join(PRECISIONS)}.')
    if precision not in PRECISIONS[name]:
        raise UsageError(f'{name} has no precision "{precision}"; use {", ".join(PRECISIONS[name])}.')


def need(name: str, precision: str = "float32") -> None:
    """Imports what converts to a format, and runs it.

    Raises:
      ZooError: it is not installed, or does not work here.
    """
    for module in (*_NEEDED[name], *(("nncf",) if (name, precision) == ("openvino", "int8") else ())):
        try:
            importlib.import_module(module)
        except ImportError as error:
            raise ZooError(
                f"{name} {precision} needs the package {module} ({error}); pip install 'tfod-zoo[{name}]'."
            ) from error


def room(name: str) -> ModuleType:
    """The module of a format: `convert` and `load`."""
    return importlib.import_module(f"tfod_zoo.export.{name}_format")
