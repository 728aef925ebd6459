"""Which ground-truth box an anchor or a proposal answers for (spec, section 10.1)."""

import tensorflow as tf

from tfod_zoo.modeling.boxes import pairwise_iou

NEGATIVE, IGNORED = -1, -2

# Overlaps are worked out for this many columns at a time: 204,600 anchors with 100 boxes would take 82 MB an image, and
# several times that on the way. Proposals and small inputs fit into one slice.
_COLUMNS_AT_A_TIME = 16384


def match(
    rows: tf.Tensor,
    columns: tf.Tensor,
    weights: tf.Tensor,
    *,
    matched_threshold: float,
    unmatched_threshold: float,
    force_match_rows: bool,
) -> tf.Tensor:
    """The row that each column belongs to, by their overlap.

    A column takes the row it overlaps most, the lowest one of equals: from `matched_threshold` on it is matched, under
    `unmatched_threshold` negative, in between ignored. A forced row claims the column that it overlaps most, the first
    one of equals, whatever the thresholds say; of several claims the lowest row's holds.

    Args:
      rows: ground-truth boxes `[B, M, 4]`, M at least 1.
      columns: anchors or proposals, `[N, 4]` or `[B, N, 4]` in the same units; N is static.
      weights: `[B, M]`; rows of weight 0, such as padding, are never forced.
      matched_threshold, unmatched_threshold: IoU in 0..1, the first no less than the second.
      force_match_rows: whether every row of positive weight claims a column.

    Returns:
      `[B, N]` int32: a row, NEGATIVE or IGNORED.
    """
    best_row, best_iou, best_column = _best_overlaps(rows, columns)
    matches = tf.where(best_iou >= matched_threshold, best_row, IGNORED)
    matches = tf.where(best_iou < unmatched_threshold, NEGATIVE, matches)
    if not force_match_rows:
        return matches
    batch, count = tf.shape(rows)[0], tf.shape(rows)[1]
    image = tf.tile(tf.range(batch)[:, None], [1, count])
    # A row that must not claim bids with an index past the last row, which changes nothing.
    bids = tf.where(weights > 0, tf.range(count)[None], count)
    claims = tf.tensor_scatter_nd_min(tf.fill(tf.shape(matches), count), tf.stack([image, best_column], -1), bids)
    return tf.where(claims < count, claims, matches)


def _best_overlaps(rows: tf.Tensor, columns: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Per column its best row and the IoU with it, both `[B, N]`; per row its best column, `[B, M]`."""
    total = columns.shape[-2]
    if total <= _COLUMNS_AT_A_TIME:
        row, iou, column, _ = _best_in_slice(rows, columns)
        return row, iou, column
    slices = -(-total // _COLUMNS_AT_A_TIME)
    width = -(-total // slices)
    # The empty boxes at the end overlap nothing and come last, so that they are nobody's first best.
    leading = [[0, 0]] * (columns.shape.rank - 2)
    padded = tf.pad(columns, [*leading, [0, slices * width - total], [0, 0]])
    if columns.shape.rank == 2:
        sliced = tf.reshape(padded, [slices, width, 4])
    else:
        sliced = tf.transpose(tf.reshape(padded, [-1, slices, width, 4]), [1, 0, 2, 3])
    row, iou, column, column_iou = tf.map_fn(
        lambda part: _best_in_slice(rows, part),
        sliced,
        fn_output_signature=(tf.int32, tf.float32, tf.int32, tf.float32),
        parallel_iterations=1,  # the point is to hold one slice at a time
    )
    first = tf.argmax(column_iou, axis=0, output_type=tf.int32)  # [B, M]: the slice with the row's best column
    inside = tf.gather(tf.transpose(column, [1, 2, 0]), first, batch_dims=2)
    return _joined(row)[:, :total], _joined(iou)[:, :total], first * width + inside


def _best_in_slice(rows: tf.Tensor, columns: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor, tf.Tensor]:
    iou = pairwise_iou(rows, columns)
    return (
        tf.argmax(iou, axis=1, output_type=tf.int32),
        tf.reduce_max(iou, axis=1),
        tf.argmax(iou, axis=2, output_type=tf.int32),
        tf.reduce_max(iou, axis=2),
    )


def _joined(slices: tf.Tensor) -> tf.Tensor:
    """`[slices, B, width]` -> `[B, slices * width]`."""
    return tf.reshape(tf.transpose(slices, [1, 0, 2]), [tf.shape(slices)[1], slices.shape[0] * slices.shape[2]])


def gather_matched(values: tf.Tensor, matches: tf.Tensor, *, matmul: bool) -> tf.Tensor:
    """What each column's row has to say; anything finite where a column has no row.

    Args:
      values: `[B, M, D]` float32. matches: `[B, N]` int32, from `match`.
      matmul: gather by a one-hot matrix product (`use_matmul_gather_in_matcher`), which TPUs do faster. The numbers
        are the same to the last bit; it takes `B * N * M` floats of memory.

    Returns:
      `[B, N, D]`.
    """
    if not matmul:
        return tf.gather(values, tf.maximum(matches, 0), batch_dims=1)
    one_hot = tf.one_hot(matches, tf.shape(values)[1])
    pieces = tf.matmul(one_hot, tf.concat(_eight_bit_pieces(values), -1))
    high, middle, low = tf.split(pieces, 3, axis=-1)
    return high + (middle + low)


def _eight_bit_pieces(values: tf.Tensor) -> list[tf.Tensor]:
    """Three floats of 8 significant bits each that add up to the value's 24.

    Matrix units round what they multiply, to bfloat16 on TPUs and to TF32 on GPUs: boxes in pixels would move. These
    pieces pass through unrounded. The bits are masked, since XLA may drop a cast to bfloat16 and back.
    """
    pieces = []
    for _ in range(2):
        high = tf.bitcast(tf.bitwise.bitwise_and(tf.bitcast(values, tf.int32), -0x10000), tf.float32)
        pieces.append(high)
        values = values - high
    return [*pieces, values]
