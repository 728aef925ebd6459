"""The one door to Model Garden (tf-models-official): what training takes from it, and a sentence where it is missing.

Only `official.common`, `official.core`, `official.modeling.optimization` and `orbit` are taken: importing
`official.vision` costs seconds and a gigabyte for nothing that is needed here.
"""

from __future__ import annotations

import warnings

from tfod_zoo.errors import ZooError

try:
    with warnings.catch_warnings():
        # Deprecations inside its dependencies, which no user of this package can act on.
        warnings.simplefilter("ignore")
        import orbit
        from official.common import distribute_utils
        from official.core import base_task, base_trainer, config_definitions
        from official.modeling.optimization import ExponentialMovingAverage
except ModuleNotFoundError as error:
    if (error.name or "").split(".")[0] not in ("official", "orbit"):
        raise
    raise ZooError(
        "training runs on Model Garden, which is not installed; install it with: pip install 'tfod-zoo[train]'"
    ) from error

__all__ = [
    "ExponentialMovingAverage",
    "base_task",
    "base_trainer",
    "config_definitions",
    "distribute_utils",
    "orbit",
]
