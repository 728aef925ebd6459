"""The images that a command is given to look at."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from tfod_zoo.errors import UsageError

if TYPE_CHECKING:
    import numpy as np

_SUFFIXES = (".jpg", ".jpeg", ".png")


def read_images(folder: str, limit: int | None = None) -> list[np.ndarray]:
    """The images of a folder in the order of their names, uint8 RGB `[H, W, 3]`, at most `limit` of them.

    Raises:
      UsageError: it has none, or one cannot be read.
    """
    paths = sorted(path for path in Path(folder).glob("*") if path.suffix.lower() in _SUFFIXES)
    if not paths:
        raise UsageError(f"{folder} has no {' or '.join(_SUFFIXES)} files; give a folder of images, or none.")
    import numpy as np
    from PIL import Image

    images = []
    for path in paths[:limit]:
        try:
            with Image.open(path) as image:
                images.append(np.asarray(image.convert("RGB")))
        except OSError as error:
            raise UsageError(f"{path} cannot be read as an image ({error}).") from error
    return images
