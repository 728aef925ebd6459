"""Pictures of any kind -> upright RGB pixels."""

from __future__ import annotations

import functools
import os
from pathlib import Path
from typing import Any, Union

import numpy as np
from PIL import Image, ImageOps

from tfod_zoo.errors import ZooError

# What is taken from a folder; a file that is named may end in anything that Pillow reads.
IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".avif", ".heic", ".heif")
_HEIF = (".heic", ".heif")  # what an iPhone writes, unless it is told otherwise
_ORIENTATION, _UPRIGHT = 0x0112, 1  # EXIF 2.3, 4.6.4

Picture = Union[str, os.PathLike, Image.Image, np.ndarray]  # noqa: UP007 (| with a name from a stub, on Python 3.10)


class PictureError(ZooError):
    """What was given is not an image, or cannot be read as one."""


def read_pixels(source: Picture) -> np.ndarray:
    """The upright RGB pixels of a picture.

    Args:
      source: path of an image file, a Pillow image, or an array or tensor: uint8 `[H, W, 3]` RGB, `[H, W, 4]` with
        transparency (dropped), or `[H, W]` grey. A file's or a Pillow image's EXIF orientation is applied; of an
        animation the first frame counts, of 16 bits the upper eight.

    Returns:
      uint8 `[H, W, 3]`, RGB, values in 0..255.

    Raises:
      PictureError: it is none of these, or the file cannot be read as an image.
    """
    if isinstance(source, Image.Image):
        return _pixels(source)
    if isinstance(source, (str, os.PathLike)):
        return _read_file(Path(source))
    array = np.asarray(source)
    if array.dtype != np.uint8 or not (array.ndim == 2 or (array.ndim == 3 and array.shape[2] in (3, 4))):
        raise PictureError(
            f"{type(source).__name__} of {array.dtype} and shape {list(array.shape)} is not an image; give a path, a "
            "Pillow image, or uint8 [H, W, 3] with values in 0..255."
        )
    if 0 in array.shape:
        raise PictureError(f"an image of shape {list(array.shape)} has no pixels.")
    if array.ndim == 2:
        return np.repeat(array[..., None], 3, axis=2)
    return np.ascontiguousarray(array[..., :3])


def prepare_for(path: Path) -> None:
    """Teaches Pillow the file's format where it does not know it by itself.

    Raises:
      PictureError: what that takes is not installed.
    """
    if path.suffix.lower() in _HEIF and not _heif_is_known():
        raise PictureError(
            f"{path} is HEIC, which needs pillow-heif: pip install 'tfod-zoo[heic]', or save it as JPEG."
        )


def too_large() -> str:
    """Why a picture is refused that has more pixels than Pillow takes: small files can fill the memory so."""
    return f"it has more than {2 * (Image.MAX_IMAGE_PIXELS or 0) / 1e6:.0f} megapixels; make it smaller or cut it up"


@functools.cache
def _heif_is_known() -> bool:
    try:
        from pillow_heif import register_heif_opener
    except ImportError:
        return False
    register_heif_opener()
    return True


def picture_name(source: Any) -> str:
    """How a message calls a picture: its path, or its type."""
    return os.fspath(source) if isinstance(source, (str, os.PathLike)) else type(source).__name__


def _read_file(path: Path) -> np.ndarray:
    if path.is_dir():
        raise PictureError(f"{path} is a folder; give the images in it, one by one or as a list.")
    prepare_for(path)
    try:
        with Image.open(path) as image:
            return _pixels(image)
    except FileNotFoundError as error:
        raise PictureError(f"{path} does not exist.") from error
    # Pillow's readers of damaged files fail in many ways, by SyntaxError, struct.error and IndexError among others.
    except Exception as error:
        reason = str(error) if str(error) and str(path) not in str(error) else "not an image that Pillow knows"
        if not path.stat().st_size:
            reason = "the file is empty"
        if isinstance(error, Image.DecompressionBombError):
            reason = too_large()
        raise PictureError(f"{path} cannot be read as an image ({reason}).") from error


def _pixels(image: Image.Image) -> np.ndarray:
    if image.getexif().get(_ORIENTATION, _UPRIGHT) != _UPRIGHT:  # asked first, for it copies upright images too
        image = ImageOps.exif_transpose(image)
    if image.mode.startswith("I"):  # 16 bits grey, which `convert` would clip
        grey = np.asarray(image).astype(np.int64)
        grey = (grey >> 8 if grey.max(initial=0) > 255 else grey).clip(0, 255).astype(np.uint8)
        return np.repeat(grey[..., None], 3, axis=2)
    return np.asarray(image if image.mode == "RGB" else image.convert("RGB"))
