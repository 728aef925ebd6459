"""A picture of a data set's images with their boxes, class names and keypoints, to look at before training."""

from __future__ import annotations

import colorsys
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from tfod_zoo.data.check import DataReport, Part, read_images
from tfod_zoo.data.errors import DataError

SHEET_IMAGES = 24
_COLUMNS = 6
_CELL = (260, 320)  # height and width in pixels; the caption stands below
_CAPTION = 16
_GOLDEN = 0.618034  # hues of neighbouring ids lie far apart


def draw_sheet(parts: Sequence[Part], report: DataReport, path: str | Path, images: int = SHEET_IMAGES) -> None:
    """Writes a contact sheet: first images of what was found, then others from all over the data set.

    Boxes are as written; those that cannot be used are drawn as far as they can be seen.

    Args:
      parts: the sources that were checked. report: of `check_data`.
      path: a PNG or JPEG file.
      images: how many at most.

    Raises:
      DataError: the file cannot be written.
    """
    reasons = _chosen(parts, report, images)
    cells = []
    for part in parts:
        wanted = {index: why for (name, index), why in reasons.items() if name == part.name}
        for record in read_images(part, set(wanted)):
            cells.append(_cell(part, record, wanted[int(record["index"])]))
    columns = max(1, min(_COLUMNS, len(cells)))
    rows = max(1, -(-len(cells) // columns))
    height, width = _CELL[0] + _CAPTION, _CELL[1]
    sheet = Image.new("RGB", (columns * width, rows * height), "white")
    for number, cell in enumerate(cells):
        sheet.paste(cell, (number % columns * width, number // columns * height))
    path = Path(path)
    partial = path.with_name(f".{os.getpid()}.{path.name}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        sheet.save(partial)
        os.replace(partial, path)
    except (OSError, ValueError) as error:
        raise DataError(f"{path} cannot be written ({error}); name a .png file in a folder that can be.") from error
    finally:
        partial.unlink(missing_ok=True)


def _chosen(parts: Sequence[Part], report: DataReport, images: int) -> dict[tuple[str, int], str]:
    """(part, record) -> why it is shown: one image of each finding in turn, up to half, then evenly spaced ones."""
    chosen: dict[tuple[str, int], str] = {}
    deepest = max((len(finding.images) for finding in report.findings), default=0)
    for depth in range(deepest):
        for finding in report.findings:
            if depth < len(finding.images) and len(chosen) < (images + 1) // 2:
                part, index, _ = finding.images[depth]
                if index >= 0:
                    chosen.setdefault((part, index), finding.what)
    everything = [(part.name, index) for part in parts for index in range(report.parts[part.name].images)]
    for place in np.linspace(0, len(everything) - 1, num=images).round().astype(int) if everything else ():
        if len(chosen) < images:
            chosen.setdefault(everything[place], "")
    return chosen


def _cell(part: Part, record: dict[str, Any], why: str) -> Image.Image:
    cell = Image.new("RGB", (_CELL[1], _CELL[0] + _CAPTION), "white")
    draw = ImageDraw.Draw(cell)
    font = ImageFont.load_default()
    name = record["name"].decode(errors="replace")
    caption = f"{part.name}: {name}" + (f" - {why}" if why else "")
    pixels = record["image"]
    if pixels.size:
        picture = Image.fromarray(pixels)
        scale = min((_CELL[1] - 4) / picture.width, (_CELL[0] - 4) / picture.height)
        size = max(1, round(picture.width * scale)), max(1, round(picture.height * scale))
        cell.paste(picture.resize(size, Image.Resampling.BILINEAR), (2, 2))
        for row, (box, id) in enumerate(zip(record["boxes"], record["classes"], strict=True)):
            if np.isfinite(box).all():
                points = record["keypoints"][row] if "keypoints" in record else np.zeros([0, 2])
                title = part.label_map.category_name(int(id)) if part.label_map else str(id)
                _draw_object(draw, np.clip(box, -1, 2), title, _color(int(id)), points, size, font)
        # What lies outside the picture belongs to no cell.
        draw.rectangle((0, size[1] + 2, _CELL[1], _CELL[0] + _CAPTION), fill="white")
    draw.text((3, _CELL[0]), caption, fill="red" if why else "black", font=font)
    return cell


def _draw_object(
    draw: Any, box: np.ndarray, title: str, color: tuple[int, int, int], points: np.ndarray, size: tuple[int, int],
    font: Any,
) -> None:
    width, height = size
    ymin, xmin, ymax, xmax = (box * [height, width, height, width] + 2).tolist()
    left, right, top, bottom = min(xmin, xmax), max(xmin, xmax), min(ymin, ymax), max(ymin, ymax)
    draw.rectangle((left, top, right, bottom), outline=color, width=2)
    at = (max(left, 2), max(top - 11, 2))
    draw.rectangle(draw.textbbox(at, title, font=font), fill=color)
    draw.text(at, title, fill="black", font=font)
    for y, x in points[np.isfinite(points).all(axis=-1)] if len(points) else ():
        draw.ellipse((x * width, y * height, x * width + 4, y * height + 4), fill=color, outline="black")


def _color(id: int) -> tuple[int, int, int]:
    red, green, blue = colorsys.hsv_to_rgb(id * _GOLDEN % 1.0, 0.75, 1.0)
    return round(red * 255), round(green * 255), round(blue * 255)
