"""tfod_zoo: the TensorFlow Object Detection API's TF2 model zoo on today's TensorFlow.

Public names are loaded on first use, so that `import tfod_zoo`, `tfod-zoo list` and every `--help` never pay for
TensorFlow.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"
# The state of TFOD whose networks, checkpoints, configs and metrics this package reproduces; `--version` says it.
REFERENCE = "tensorflow/models of 2021-07-24"

# Public name -> the module that defines it.
_HOMES = {
    "ZooError": "tfod_zoo.errors",
    "UsageError": "tfod_zoo.errors",
    "ZooModel": "tfod_zoo.zoo.registry",
    "list_models": "tfod_zoo.zoo.registry",
    "get_model": "tfod_zoo.zoo.registry",
    "download": "tfod_zoo.zoo.store",
    "read_pipeline": "tfod_zoo.config.pipeline",
    "write_pipeline": "tfod_zoo.config.pipeline",
    "generate_pipeline": "tfod_zoo.config.generate",
    "build": "tfod_zoo.modeling.factory",
    "load": "tfod_zoo.modeling.factory",
    "DetectionModel": "tfod_zoo.modeling.detection_model",
    "Detections": "tfod_zoo.pictures.detections",
    "Labels": "tfod_zoo.pictures.labels",
    "draw": "tfod_zoo.pictures.draw",
}

__all__ = ["__version__", *_HOMES]

if TYPE_CHECKING:
    from tfod_zoo.config.generate import generate_pipeline
    from tfod_zoo.config.pipeline import read_pipeline, write_pipeline
    from tfod_zoo.errors import UsageError, ZooError
    from tfod_zoo.modeling.detection_model import DetectionModel
    from tfod_zoo.modeling.factory import build, load
    from tfod_zoo.pictures.detections import Detections
    from tfod_zoo.pictures.draw import draw
    from tfod_zoo.pictures.labels import Labels
    from tfod_zoo.zoo.registry import ZooModel, get_model, list_models
    from tfod_zoo.zoo.store import download


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'tfod_zoo' has no attribute {name!r}")
    value = getattr(import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(set(globals()) | set(__all__))
