"""Anchors: the boxes from which the region proposal network's codes are measured (spec, section 4)."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from tfod_zoo.errors import ZooError

FeatureSizes = Sequence[tuple[int, int]]  # (height, width) in cells, one of each feature map


def anchors_per_cell(generator: Any) -> int:
    """How many anchors a cell of any feature map has, by an AnchorGenerator message.

    Raises:
      ZooError: the generator is not supported, or has no anchors.
    """
    kind, options = _options(generator)
    scales = len(options.scales) if kind == "grid_anchor_generator" else options.scales_per_octave
    return scales * len(options.aspect_ratios)


def anchor_levels(generator: Any) -> list[int] | None:
    """The pyramid levels that the generator is for; None for the single map of a grid."""
    kind, options = _options(generator)
    return None if kind == "grid_anchor_generator" else list(range(options.min_level, options.max_level + 1))


def generate_anchors(generator: Any, feature_sizes: FeatureSizes) -> np.ndarray:
    """All anchors in the order of the network's outputs: map by map, row-major over cells, innermost over shapes.

    Within a cell the aspect ratio is the outer loop and the scale the inner one.

    Args:
      generator: AnchorGenerator message.
      feature_sizes: of the maps, one for a grid, one a level for the multiscale generator.

    Returns:
      `[A, 4]` float32 yxyx in pixels of the network's input, reaching over its edges.
    """
    kind, options = _options(generator)
    if kind == "grid_anchor_generator":
        ((height, width),) = feature_sizes
        return _grid(
            height,
            width,
            stride=(options.height_stride, options.width_stride),
            offset=(options.height_offset, options.width_offset),
            base=(options.height, options.width),
            scales=options.scales,
            ratios=options.aspect_ratios,
        )
    scales = [2 ** (step / options.scales_per_octave) for step in range(options.scales_per_octave)]
    grids = []
    for level, (height, width) in zip(anchor_levels(generator) or [], feature_sizes, strict=True):
        stride = 2**level
        grids.append(
            _grid(
                height,
                width,
                stride=(stride, stride),
                offset=(stride / 2, stride / 2),
                base=(stride * options.anchor_scale,) * 2,
                scales=scales,
                ratios=options.aspect_ratios,
            )
        )
    return np.concatenate(grids)


def clip_anchors(anchors: np.ndarray, height: int, width: int) -> np.ndarray:
    """Anchors `[A, 4]` with every corner moved into the padded input of height x width pixels."""
    limits = np.array([height, width, height, width], np.float32)
    return np.clip(anchors, np.float32(0), limits)


def inside_window(anchors: np.ndarray, height: int, width: int) -> np.ndarray:
    """`[A]` bool: which anchors `[A, 4]` do not stick out of the padded input of height x width pixels at all."""
    return (anchors[:, :2] >= 0).all(-1) & (anchors[:, 2] <= height) & (anchors[:, 3] <= width)


def _grid(
    height: int,
    width: int,
    *,
    stride: tuple[float, float],
    offset: tuple[float, float],
    base: tuple[float, float],
    scales: Sequence[float],
    ratios: Sequence[float],
) -> np.ndarray:
    """Boxes of every shape around every cell; float32 throughout, as TFOD computes them."""
    as_float: Callable = np.float32
    ratio, scale = (
        grid.reshape(-1) for grid in np.meshgrid(as_float(list(ratios)), as_float(list(scales)), indexing="ij")
    )
    root = np.sqrt(ratio)
    sizes = np.stack([scale / root * as_float(base[0]), scale * root * as_float(base[1])], -1)  # [shapes, 2]
    rows = np.arange(height, dtype=np.float32) * as_float(stride[0]) + as_float(offset[0])
    columns = np.arange(width, dtype=np.float32) * as_float(stride[1]) + as_float(offset[1])
    centers = np.stack(np.meshgrid(rows, columns, indexing="ij"), -1)[:, :, None]  # [height, width, 1, 2]
    half = sizes / 2
    return np.concatenate([centers - half, centers + half], -1).reshape(-1, 4)


def _options(generator: Any) -> tuple[str, Any]:
    where = "model.faster_rcnn.first_stage_anchor_generator"
    kind = generator.WhichOneof("anchor_generator_oneof")
    if kind not in ("grid_anchor_generator", "multiscale_anchor_generator"):
        raise ZooError(
            f"{where}: {kind or 'none set'} is not supported; use grid_anchor_generator or multiscale_anchor_generator."
        )
    options = getattr(generator, kind)
    if not options.aspect_ratios or (kind == "grid_anchor_generator" and not options.scales):
        raise ZooError(f"{where}.{kind} needs at least one aspect ratio and one scale.")
    if kind == "multiscale_anchor_generator" and options.normalize_coordinates:
        raise ZooError(
            f"{where}.{kind}.normalize_coordinates is not supported: anchors are in pixels; set it to false."
        )
    return kind, options
