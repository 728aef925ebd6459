"""Detections drawn into their image, legible at any size."""

from __future__ import annotations

import colorsys
from collections.abc import Mapping
from dataclasses import replace
from functools import lru_cache
from importlib.util import find_spec
from math import ceil
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from tfod_zoo.config.label_map import LabelMap
from tfod_zoo.pictures.detections import Detections
from tfod_zoo.pictures.labels import Labels
from tfod_zoo.pictures.reading import Picture, read_pixels

MIN_SCORE = 0.3
MIN_KEYPOINT_SCORE = 0.2

# Parts of the square root of the area, and the least that can be read: 640x480 has lines of 2 pixels and letters
# of 13, 4000x3000 lines of 14 and letters of 80.
_LINE = 0.004
_LETTERS = 0.023
_LEAST_LETTERS = 8
_GOLDEN = 0.618034  # hues of neighbouring ids lie far apart
_SHADES = ((0.85, 1.0), (0.55, 1.0), (0.9, 0.75))  # saturation and value, in turn
_DARK = (0, 0, 0)
_LIGHT = (255, 255, 255)

Color = tuple[int, int, int]
Rectangle = tuple[float, float, float, float]  # left, top, right, bottom in pixels


def draw(
    image: Picture,
    detections: Detections | Mapping[str, Any],
    *,
    names: Mapping[int, str] | LabelMap | None = None,
    min_score: float = MIN_SCORE,
    min_keypoint_score: float = MIN_KEYPOINT_SCORE,
) -> Image.Image:
    """Draws boxes, class names, scores, keypoints and skeletons.

    Lines and letters grow with the image, labels stay inside it and make room for each other, and a class has the same
    colour in every image.

    Example:
      >>> picture = np.zeros([400, 600, 3], np.uint8)  # or "street.jpg", as it was given to `detect`
      >>> found = tfod_zoo.Detections(
      ...     boxes=np.float32([[0.25, 0.5, 0.75, 1.0]]), scores=np.float32([0.9]), classes=np.array([1]),
      ...     size=(400, 600), labels=tfod_zoo.Labels({1: "cell"}),
      ... )
      >>> tfod_zoo.draw(picture, found).save("street.detections.png")
      >>> tfod_zoo.draw(picture, found, names={1: "a red blood cell"}, min_score=0.5).size
      (600, 400)

    Args:
      image: what was looked at: a path, a Pillow image, or uint8 `[H, W, 3]`. It is not changed.
      detections: of `tfod_zoo.load(name).detect(image)`; or TFOD's dict, of which the first image is taken.
      names: class id -> name, or a label map, in place of the detections' own names.
      min_score: what is less sure is left out; 0..1.
      min_keypoint_score: likewise for keypoints, and the parts of a skeleton between them.

    Returns:
      A new RGB image of the same (upright) size.

    Raises:
      PictureError: `image` cannot be read. UsageError: `detections` are none.
    """
    pixels = read_pixels(image)
    if not isinstance(detections, Detections):
        detections = Detections.from_outputs(detections, pixels.shape[:2])
    if names is not None:
        detections = replace(detections, labels=_renamed(detections.labels, names))
    picture = Image.fromarray(pixels)  # a copy: Pillow keeps RGB in another layout
    _Drawing(picture).add(detections.above(min_score), min_keypoint_score)
    return picture


def class_color(class_id: int) -> Color:
    """The colour of a class, the same everywhere: RGB in 0..255, bright enough for photographs."""
    saturation, value = _SHADES[class_id % len(_SHADES)]
    red, green, blue = colorsys.hsv_to_rgb(class_id * _GOLDEN % 1.0, saturation, value)
    return round(red * 255), round(green * 255), round(blue * 255)


def _renamed(labels: Labels, names: Mapping[int, str] | LabelMap) -> Labels:
    if isinstance(names, LabelMap):
        return Labels.of_label_map(names, labels.edges)
    return replace(labels, names=dict(names))


class _Drawing:
    """One picture with what has been drawn so far; `labels` are the rectangles of its labels, `[N, 4]`."""

    def __init__(self, picture: Image.Image):
        self._picture, self._draw = picture, ImageDraw.Draw(picture)
        self._width, self._height = picture.size
        scale = (self._width * self._height) ** 0.5
        self._line = max(1, round(scale * _LINE))
        # In a very small picture a label may take a third of the height.
        self._letters = max(_LEAST_LETTERS, min(max(12, round(scale * _LETTERS)), self._height // 3))
        self._pad = max(1, self._letters // 6)
        self.labels = np.zeros([0, 4], np.int64)

    def add(self, detections: Detections, min_keypoint_score: float) -> None:
        """The surest last, so that they lie on top; labels after all boxes."""
        boxes = [self._inside(box) for box in detections.xyxy.tolist()]
        colors = [class_color(int(id)) for id in detections.classes]
        for index in reversed(range(len(detections))):
            self._outline(boxes[index], colors[index])
        for index in reversed(range(len(detections))):
            self._skeleton(detections, index, colors[index], min_keypoint_score)
        # The surest get the best places, and lie on top where there is too little room.
        letterings = [
            self._fitted(name, f"{score:.0%}") for name, score in zip(detections.names, detections.scores, strict=True)
        ]
        for box, lettering in zip(boxes, letterings, strict=True):
            self._place(box, lettering)
        for place, lettering, color in reversed(list(zip(self.labels.tolist(), letterings, colors, strict=True))):
            self._picture.paste(color, place)
            self._picture.paste(_ink(color), (place[0] + self._pad, place[1]), lettering)

    def _inside(self, box: list[float]) -> Rectangle:
        """The part of a box that can be seen; what lies beside the image becomes a line at its edge."""
        left, right = (min(max(x, 0.0), self._width - 1.0) for x in (box[0], box[2]))
        top, bottom = (min(max(y, 0.0), self._height - 1.0) for y in (box[1], box[3]))
        return left, top, max(left, right), max(top, bottom)

    def _outline(self, box: Rectangle, color: Color) -> None:
        # A dark edge tells the line apart from a ground of its own colour.
        self._draw.rectangle(box, outline=_DARK, width=self._line + max(1, self._line // 2))
        self._draw.rectangle(box, outline=color, width=self._line)

    def _skeleton(self, detections: Detections, index: int, color: Color, min_score: float) -> None:
        points = {
            at: (x, y) for at, (x, y, score) in detections.keypoints_of(index).items() if score >= min_score
        }
        for start, end in detections.labels.edges:
            if start in points and end in points:
                self._draw.line([points[start], points[end]], fill=_DARK, width=2 * self._line)
                self._draw.line([points[start], points[end]], fill=color, width=self._line)
        radius = 1.5 * self._line
        for at, (x, y) in points.items():
            place = (x - radius, y - radius, x + radius, y + radius)
            self._draw.ellipse(place, fill=class_color(at + 1), outline=_DARK)

    def _place(self, box: Rectangle, lettering: Image.Image) -> None:
        """Where a label hides least of those before it: above its box, else in it, else below."""
        width = min(lettering.width + 2 * self._pad, self._width)
        height = min(lettering.height, self._height)
        left, top, right, bottom = map(round, box)
        corners = [(x, y) for x in (left, right - width) for y in (top - height, top, bottom, bottom - height)]
        at = np.clip(corners, 0, [self._width - width, self._height - height])
        places = np.concatenate([at, at + [width, height]], 1)
        # `[places, labels, 2]`: width and height of what each place shares with each label.
        ends = np.minimum(places[:, None, 2:], self.labels[:, 2:])
        hidden = (ends - np.maximum(places[:, None, :2], self.labels[:, :2])).clip(0).prod(-1).sum(-1)
        self.labels = np.concatenate([self.labels, places[hidden.argmin()][None]])  # the first of equal ones

    def _fitted(self, name: str, score: str) -> Image.Image:
        """The letters of a label: in small pictures smaller ones, or only the beginning of the name."""
        # A font knows no line breaks and control characters.
        name = "".join(letter if letter.isprintable() else " " for letter in name)
        text, size, room = f"{name} {score}", self._letters, self._width - 2 * self._pad
        wanted = _lettering(text, size).width
        if wanted > room:
            size = max(_LEAST_LETTERS, int(size * room / wanted))
        while name and _lettering(text, size).width > room:
            name = name[:-1]
            text = f"{name}… {score}" if name else score
        return _lettering(text, size)


def _ink(color: Color) -> Color:
    """Black or white, whichever stands out (luma of ITU-R BT.601)."""
    red, green, blue = color
    return _DARK if 0.299 * red + 0.587 * green + 0.114 * blue > 140 else _LIGHT


@lru_cache(maxsize=512)  # in a folder of images the same few labels come again and again
def _lettering(text: str, size: int) -> Image.Image:
    """A text as a mask, 255 where there is ink."""
    font = _font(size)
    ascent, descent = font.getmetrics()
    mask = Image.new("L", (max(1, ceil(font.getlength(text))), ascent + descent))
    ImageDraw.Draw(mask).text((0, 0), text, fill=255, font=font)
    return mask


@lru_cache(maxsize=64)
def _font(size: int) -> ImageFont.FreeTypeFont:
    # DejaVu, which matplotlib brings along: it has Latin, Greek and Cyrillic letters. Importing matplotlib takes long.
    spec = find_spec("matplotlib")
    assert spec is not None and spec.submodule_search_locations is not None
    folder = Path(spec.submodule_search_locations[0]) / "mpl-data" / "fonts" / "ttf"
    return ImageFont.truetype(str(folder / "DejaVuSans.ttf"), size)
