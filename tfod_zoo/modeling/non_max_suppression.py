"""Exact greedy non-maximum suppression of batches, with static shapes (spec: Faster R-CNN, 7.2 and 7.3).

Two ways to the same result. Many boxes of one class (the anchors of a first stage) are sorted and taken a tile at a
time until enough are kept: usually a few thousand of them are looked at. Few boxes of many classes (the second stage)
are kept one a round in all classes at once.
"""

from typing import NamedTuple

import tensorflow as tf

from tfod_zoo.modeling.boxes import area, clip_to_window

TILE = 256  # sorted boxes taken at once: small enough for the cache, large enough to make operations cheap


class Detections(NamedTuple):
    """What suppression leaves, `M` rows per image by descending score; rows from `count` on are padding, all zero.

    Attributes:
      boxes: `[B, M, 4]` float32, clipped to the window.
      scores: `[B, M]` float32.
      classes: `[B, M]` int32, 0-based.
      count: `[B]` int32, how many rows are real.
      index: `[B, M]` int32, the box that a row comes from.
      fields: the additional fields, each `[B, M, ...]`.
    """

    boxes: tf.Tensor
    scores: tf.Tensor
    classes: tf.Tensor
    count: tf.Tensor
    index: tf.Tensor
    fields: dict[str, tf.Tensor]


def multiclass_non_max_suppression(
    boxes: tf.Tensor,
    scores: tf.Tensor,
    *,
    iou_threshold: float,
    max_per_class: int,
    max_total: int,
    score_threshold: float = 0.0,
    clip_window: tf.Tensor | None = None,
    change_coordinate_frame: bool = False,
    num_valid_boxes: tf.Tensor | None = None,
    additional_fields: dict[str, tf.Tensor] | None = None,
    keep_degenerate: bool = False,
) -> Detections:
    """Suppresses, per class, every box that overlaps a better one, and returns the best of all classes together.

    Boxes compete unclipped; those that have no area inside the window are dropped afterwards, so fewer than `max_total`
    may be left. Equal scores go to the lower class, then to the lower index.

    Args:
      boxes: `[B, N, q, 4]` float32 (ymin, xmin, ymax, xmax); q is 1 (one box for all classes) or C.
      scores: `[B, N, C]` float32.
      iou_threshold: a box is suppressed when its IoU with a kept one is greater, in 0..1.
      max_per_class, max_total: boxes kept per class, and returned per image.
      score_threshold: only greater scores compete.
      clip_window: `[B, 4]` or `[4]`, what boxes are clipped to; None leaves them as they are.
      change_coordinate_frame: returns boxes relative to the window, in 0..1.
      num_valid_boxes: `[B]` int32, only the first so many boxes compete; None for all.
      additional_fields: tensors `[B, N, ...]` to gather along with the boxes.
      keep_degenerate: keeps the boxes of rows that have no area inside the window, after `count`, instead of zeros.
    """
    count, classes = scores.shape[1:]
    ranked = tf.transpose(scores, [0, 2, 1])  # [B, C, N]
    eligible = ranked > score_threshold
    if num_valid_boxes is not None:
        eligible &= (tf.range(count) < num_valid_boxes[:, None])[:, None]
    window = None if clip_window is None else tf.broadcast_to(clip_window, [tf.shape(boxes)[0], 4])
    if classes == 1:
        index, kept = _keep_from_sorted(boxes[:, :, 0], ranked[:, 0], eligible[:, 0], iou_threshold, max_per_class)
        class_of = tf.zeros_like(index)
        values = tf.gather(ranked[:, 0], index, batch_dims=1)
        candidates = _clipped(tf.gather(boxes[:, :, 0], index, batch_dims=1), window)
    else:
        by_class = tf.transpose(boxes, [0, 2, 1, 3])
        candidates = _clipped(tf.reshape(by_class, [-1, by_class.shape[1] * count, 4]), window)
        candidates = tf.reshape(candidates, tf.shape(by_class)) + tf.zeros([classes, 1, 1])  # [B, C, N, 4]
        kept = _keep_one_a_round(
            by_class, ranked, eligible, area(candidates) > 0, iou_threshold, max_per_class, max_total
        )
        kept, values = (tf.reshape(tensor, [-1, classes * count]) for tensor in (kept, ranked))
        candidates = tf.reshape(candidates, [-1, classes * count, 4])
        every = tf.zeros_like(kept, tf.int32) + tf.range(classes * count)
        index, class_of = every % count, every // count
    # -1 as TFOD marks them: real detections come first, then those without area, and never a suppressed one.
    values = tf.where(kept & (area(candidates) > 0), values, tf.where(kept, -1.0, -2.0))

    values, best = tf.math.top_k(values, min(max_total, values.shape[1]))
    rows = [tf.gather(tensor, best, batch_dims=1) for tensor in (candidates, class_of, index)]
    spare = max_total - best.shape[1]
    values = tf.pad(values, [[0, 0], [0, spare]], constant_values=-2.0)
    out_boxes, out_classes, out_index = (
        tf.pad(row, [[0, 0], [0, spare]] + [[0, 0]] * (row.shape.rank - 2)) for row in rows
    )
    real = values >= 0
    if window is not None and change_coordinate_frame:
        corner, size = window[:, None, :2], window[:, None, 2:] - window[:, None, :2]
        out_boxes = (out_boxes - tf.tile(corner, [1, 1, 2])) * tf.tile(1.0 / size, [1, 1, 2])
    shown = values > -2 if keep_degenerate else real
    out_index = tf.where(real, out_index, 0)
    fields = {
        name: _zero_unless(real, tf.gather(value, out_index, batch_dims=1))
        for name, value in (additional_fields or {}).items()
    }
    return Detections(
        _zero_unless(shown, out_boxes),
        _zero_unless(real, values),
        _zero_unless(real, out_classes),
        tf.reduce_sum(tf.cast(real, tf.int32), -1),
        out_index,
        fields,
    )


def first_true(mask: tf.Tensor, count: int) -> tuple[tf.Tensor, tf.Tensor]:
    """Positions of the first `count` true values of each row of `[B, N]`.

    Returns:
      `[B, count]` int32 positions, 0 where there are no more; `[B, count]` bool, whether there is one.
    """
    size = mask.shape[1]
    countdown = tf.range(size, 0, -1)
    left, position = tf.math.top_k(tf.where(mask, countdown, 0), min(count, size))
    found = left > 0
    spare = [[0, 0], [0, count - position.shape[1]]]
    return tf.pad(tf.where(found, position, 0), spare), tf.pad(found, spare)


def _keep_from_sorted(
    boxes: tf.Tensor, scores: tf.Tensor, eligible: tf.Tensor, iou_threshold: float, limit: int
) -> tuple[tf.Tensor, tf.Tensor]:
    """The first `limit` boxes that greedy suppression keeps of `[B, N, 4]`, scores `[B, N]`: index and presence."""
    batch, count = tf.shape(scores)[0], scores.shape[1]
    limit = min(limit, count)
    lowest = scores.dtype.min
    scores, order = tf.math.top_k(tf.where(eligible, scores, lowest), count)
    spare = -count % TILE
    valid = tf.pad(scores > lowest, [[0, 0], [0, spare]])
    boxes = tf.pad(tf.gather(boxes, order, batch_dims=1), [[0, 0], [0, spare], [0, 0]])
    order = tf.pad(order, [[0, 0], [0, spare]])
    earlier = tf.range(limit + TILE)[None] < limit + tf.range(TILE)[:, None]  # [TILE, limit + TILE]

    def goes_on(start, kept_boxes, kept_index, kept):
        more = tf.gather(valid, tf.minimum(start, valid.shape[1] - 1), axis=1) & ~kept[:, -1]
        return (start < valid.shape[1]) & tf.reduce_any(more)

    def take_tile(start, kept_boxes, kept_index, kept):
        # tf.slice: XLA takes a start that it does not know, but not an end.
        tile = tf.slice(boxes, [0, start, 0], [batch, TILE, 4])
        pool = tf.concat([kept_boxes, tile], 1)
        overlaps = _overlaps(tile, pool, iou_threshold) & earlier
        free = tf.slice(valid, [0, start], [batch, TILE]) & ~tf.reduce_any(overlaps[..., :limit], -1)
        chosen = tf.concat([kept, _greedy_fixed_point(free, overlaps[..., limit:])], 1)
        slots, kept = first_true(chosen, limit)
        kept_boxes = _zero_unless(kept, tf.gather(pool, slots, batch_dims=1))
        indices = tf.concat([kept_index, tf.slice(order, [0, start], [batch, TILE])], 1)
        return start + TILE, kept_boxes, tf.gather(indices, slots, batch_dims=1), kept

    nothing = tf.zeros_like(order[:, :limit])
    _, _, index, kept = tf.while_loop(
        goes_on,
        take_tile,
        (tf.constant(0), tf.zeros_like(boxes[:, :limit]), nothing, nothing > 0),
        parallel_iterations=1,
    )
    return index, kept


def _greedy_fixed_point(free: tf.Tensor, overlaps: tf.Tensor) -> tf.Tensor:
    """Greedy choice within a tile: `free [B, T]`, and `overlaps [B, T, T]` of each box with earlier ones.

    A box stays when no earlier box that stays overlaps it. Applying that rule to all boxes at once settles at least one
    more of them in each round, and has only the greedy choice as its fixed point.
    """
    weights = tf.cast(overlaps, tf.float32)

    def step(chosen, _):
        again = free & (tf.linalg.matvec(weights, tf.cast(chosen, tf.float32)) < 0.5)
        return again, tf.reduce_any(tf.not_equal(again, chosen))

    chosen, _ = tf.while_loop(lambda _, changed: changed, step, step(free, None), parallel_iterations=1)
    return chosen


def _keep_one_a_round(
    boxes: tf.Tensor,
    scores: tf.Tensor,
    eligible: tf.Tensor,
    counts: tf.Tensor,
    iou_threshold: float,
    limit: int,
    enough: int,
) -> tf.Tensor:
    """Greedy choice in all classes side by side: boxes `[B, q, N, 4]`, scores `[B, C, N]` -> kept `[B, C, N]` bool.

    At most `limit` rounds, and none once an image has `enough` kept boxes that count, better than all that are left:
    what later rounds add would never be returned.
    """
    count = scores.shape[2]
    lowest = scores.dtype.min
    positions = tf.range(count)
    shared = boxes.shape[1] == 1
    if shared:
        overlaps = _overlaps(boxes[:, 0], boxes[:, 0], iou_threshold)  # [B, N, N]

    def goes_on(step, left, kept):
        next_score = tf.reduce_max(left, [1, 2], keepdims=True)
        better = tf.reduce_sum(tf.cast(kept & counts & (scores > next_score), tf.int32), [1, 2])
        return (step < limit) & tf.reduce_any((next_score[:, 0, 0] > lowest) & (better < enough))

    def keep_best(step, left, kept):
        best = tf.argmax(left, -1, output_type=tf.int32)  # [B, C]
        if shared:
            beaten = tf.gather(overlaps, best, batch_dims=1)
        else:
            winner = tf.gather(boxes, best[..., None], batch_dims=2)  # [B, C, 1, 4]
            beaten = _overlaps(winner, boxes, iou_threshold)[..., 0, :]
        chosen = tf.equal(positions, best[..., None]) & (left > lowest)
        return step + 1, tf.where(beaten | chosen, lowest, left), kept | chosen

    left = tf.where(eligible, scores, lowest)
    _, _, kept = tf.while_loop(
        goes_on, keep_best, (tf.constant(0), left, tf.zeros_like(eligible)), parallel_iterations=1
    )
    return kept


def _overlaps(some: tf.Tensor, others: tf.Tensor, iou_threshold: float) -> tf.Tensor:
    """Whether the IoU of boxes `[..., T, 4]` and `[..., N, 4]` is over the threshold: `[..., T, N]` bool.

    Without a division, which would cost as much as all the rest; boxes without area overlap nothing.
    """
    ymin, xmin, ymax, xmax = (side[..., :, None] for side in tf.unstack(some, axis=-1))
    other_ymin, other_xmin, other_ymax, other_xmax = (side[..., None, :] for side in tf.unstack(others, axis=-1))
    height = tf.maximum(tf.minimum(ymax, other_ymax) - tf.maximum(ymin, other_ymin), 0.0)
    width = tf.maximum(tf.minimum(xmax, other_xmax) - tf.maximum(xmin, other_xmin), 0.0)
    intersection = height * width
    areas = area(some)[..., :, None] + area(others)[..., None, :]
    return intersection > iou_threshold * (areas - intersection)


def _clipped(boxes: tf.Tensor, window: tf.Tensor | None) -> tf.Tensor:
    return boxes if window is None else clip_to_window(boxes, window)


def _zero_unless(mask: tf.Tensor, values: tf.Tensor) -> tf.Tensor:
    """Values `[B, M, ...]` where the mask `[B, M]` is true, zero elsewhere."""
    mask = tf.reshape(mask, tf.concat([tf.shape(mask), [1] * (values.shape.rank - 2)], 0))
    return tf.where(mask, values, tf.zeros_like(values))
