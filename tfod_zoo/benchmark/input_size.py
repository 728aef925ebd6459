"""Run a model at another canvas size than its config's."""

from __future__ import annotations

import re
from typing import Any

from tfod_zoo.errors import UsageError


def parse_input_size(text: str) -> tuple[int, int]:
    """"512" or "512x640" (height x width) -> (height, width) in pixels.

    Raises:
        UsageError: the text is neither.
    """
    match = re.fullmatch(r"(\d+)(?:x(\d+))?", text.strip())
    if not match or int(match[1]) == 0:
        raise UsageError(f"--input-sizes {text!r} is not a size; write 512 or HEIGHTxWIDTH, such as 512x640.")
    return int(match[1]), int(match[2] or match[1])


def set_input_size(pipeline: Any, input_size: tuple[int, int]) -> Any:
    """A copy of `pipeline` whose image resizer makes canvases of `input_size`, (height, width) in pixels.

    Raises:
        UsageError: the model's resizer keeps the aspect ratio and the size asked for is not square.
    """
    changed = type(pipeline)()
    changed.CopyFrom(pipeline)
    height, width = input_size
    family = getattr(changed.model, changed.model.WhichOneof("model"))
    resizer = family.image_resizer
    if resizer.WhichOneof("image_resizer_oneof") == "fixed_shape_resizer":
        resizer.fixed_shape_resizer.height, resizer.fixed_shape_resizer.width = height, width
        return changed
    if height != width:
        raise UsageError(
            f"This model's resizer keeps the aspect ratio on a square canvas, so {height}x{width} cannot be; "
            f"use {max(height, width)}."
        )
    resizer.keep_aspect_ratio_resizer.min_dimension = resizer.keep_aspect_ratio_resizer.max_dimension = height
    return changed
