"""Image files from strangers: looked at before they are decoded."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image

from tfod_zoo.pictures.reading import read_pixels
from tfod_zoo.serving.refusal import Refusal

# What a client may send to be decoded here, and what TensorFlow decodes inside a signature.
FORMATS = ("JPEG", "PNG", "GIF", "BMP", "WEBP")
TENSORFLOW_FORMATS = ("JPEG", "PNG", "GIF", "BMP")
# Progressive JPEGs have about ten. Every scan costs a pass over all pixels, however few bytes it is.
_MAX_SCANS = 100
_START_OF_SCAN = b"\xff\xda"  # in a scan's data 0xFF is followed by 0 or a restart marker, so this is always a marker


def check_image(data: bytes, max_pixels: int, formats: tuple[str, ...] = FORMATS) -> tuple[int, int]:
    """Reads an image's header alone.

    Args:
      data: the file.
      max_pixels: width times height, at most.
      formats: Pillow's names of those to take.

    Returns:
      (width, height) as stored.

    Raises:
      Refusal: 400 not an image of these formats; 413 too many pixels, whatever the size of the file.
    """
    with _open(data, max_pixels, formats) as image:
        return image.size


def read_upright(data: bytes, max_pixels: int) -> np.ndarray:
    """Decodes an image (of an animation the first frame), turned as its EXIF orientation says: what a browser shows.

    Returns:
      uint8 RGB `[H, W, 3]`.

    Raises:
      Refusal: as `check_image`; 400 if it is cut off or damaged.
    """
    with _open(data, max_pixels, FORMATS) as image:
        try:
            return read_pixels(image)
        except Exception as error:  # Pillow's decoders raise what they meet: OSError, ValueError, SyntaxError, struct's
            raise Refusal(400, "The image is damaged or cut off; send the whole file.") from error


def _open(data: bytes, max_pixels: int, formats: tuple[str, ...]) -> Image.Image:
    try:
        image = Image.open(io.BytesIO(data), formats=formats)
    except Image.DecompressionBombError as error:
        raise Refusal(413, f"The image has more than {max_pixels} pixels; make it smaller.") from error
    except Exception as error:  # as above: a header can break a parser in many ways
        names = ", ".join(formats)
        raise Refusal(400, f"The data are not an image; send the bytes of one of these: {names}.") from error
    width, height = image.size
    if width * height > max_pixels:
        raise Refusal(413, f"The image has {width}x{height} pixels, but {max_pixels} are allowed; make it smaller.")
    if width * height == 0:
        raise Refusal(400, f"The image has {width}x{height} pixels; send one that has some.")
    if image.format == "JPEG" and data.count(_START_OF_SCAN) > _MAX_SCANS:
        raise Refusal(400, f"The JPEG has more than {_MAX_SCANS} scans; save it anew.")
    return image
