"""Boxes, overlaps, matches and codes in plain Python, an image and a box at a time: what the batched must equal."""

import numpy as np


def random_boxes(seed, *shape, side=100):
    """Boxes yxyx with whole corners inside a square; some have no area, and equal overlaps are common."""
    corners = np.sort(np.random.default_rng(seed).integers(0, side, [*shape, 2, 2], endpoint=True), axis=-2)
    return corners.reshape(*shape, 4).astype(np.float32)


def overlap(a, b):
    """IoU of two boxes, rounded to float32 at the end only."""
    a, b = (np.asarray(box, np.float64) for box in (a, b))
    height = min(a[2], b[2]) - max(a[0], b[0])
    width = min(a[3], b[3]) - max(a[1], b[1])
    if height <= 0 or width <= 0:
        return np.float32(0)
    both = height * width
    return np.float32(both / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - both))


def matches(rows, columns, weights, matched, unmatched, force):
    """One image's matches: row index, -1 for background, -2 for neither."""
    table = np.array([[overlap(row, column) for column in columns] for row in rows], np.float32)
    result = []
    for column in range(len(columns)):
        row = int(table[:, column].argmax())
        value = table[row, column]
        result.append(row if value >= np.float32(matched) else -1 if value < np.float32(unmatched) else -2)
    if force:
        for row in reversed(range(len(rows))):  # the lowest row claims last and so keeps what it claims
            if weights[row] > 0:
                result[int(table[row].argmax())] = row
    return result


def code(box, anchor):
    """(ty, tx, th, tw) of a box relative to an anchor."""
    h, w, ah, aw = (
        side + 1e-8 for side in (box[2] - box[0], box[3] - box[1], anchor[2] - anchor[0], anchor[3] - anchor[1])
    )
    dy = (box[0] + box[2] - anchor[0] - anchor[2]) / 2
    dx = (box[1] + box[3] - anchor[1] - anchor[3]) / 2
    return [10 * dy / ah, 10 * dx / aw, 5 * np.log(h / ah), 5 * np.log(w / aw)]


def grid_anchors(cells, stride=16, side=256):
    """The zoo's anchors of a square map, clipped to the image (spec: Faster R-CNN, section 4)."""
    anchors = []
    for i in range(cells):
        for j in range(cells):
            for ratio in (0.5, 1, 2):
                for scale in (0.25, 0.5, 1, 2):
                    h, w = 256 * scale / np.sqrt(ratio), 256 * scale * np.sqrt(ratio)
                    anchors.append([i * stride - h / 2, j * stride - w / 2, i * stride + h / 2, j * stride + w / 2])
    return np.clip(np.array(anchors, np.float32), 0, side)


# Two images of 256 x 256 with 5 padded boxes each, normalised, and what TFOD's RPN assigner matched there.
REFERENCE_BOXES = np.array(
    [
        [
            [0.05, 0.08, 0.45, 0.33],
            [0.1, 0.4, 0.7, 0.95],
            [0.3, 0.05, 0.72, 0.3],
            [0.52, 0.33, 0.6, 0.41],
            [0.02, 0.6, 0.3, 0.78],
        ],
        [[0.12, 0.15, 0.66, 0.62], [0.4, 0.5, 0.75, 0.9], [0.05, 0.7, 0.2, 0.9], [0, 0, 0, 0], [0, 0, 0, 0]],
    ],
    np.float32,
)
REFERENCE_WEIGHTS = np.array([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]], np.float32)
REFERENCE_MATCHES = [
    {
        134: 1,
        146: 1,
        158: 1,
        324: 4,
        338: 1,
        516: 4,
        708: 4,
        750: 1,
        762: 1,
        777: 0,
        942: 1,
        1289: 1,
        1481: 1,
        1553: 2,
        1784: 3,
    },
    {348: 2, 1037: 0, 1229: 0, 1241: 0, 1421: 0, 1905: 1},
]
REFERENCE_IGNORED = [1637, 835]
REFERENCE_CODES = {  # (image, anchor): box target
    (0, 134): [0.65685, 0.12051, -0.82126, -0.95726],
    (0, 324): [1.68682, 0.14142, 0.78585, 0.09035],
    (1, 348): [0.22408, -0.70711, -2.33493, 0.61715],
    (1, 1229): [0.3, 0.2, 0.38481, -0.30938],
}
