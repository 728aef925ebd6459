"""The peaks of a heatmap: cells that are the maximum of their neighbourhood (spec: CenterNet, section 6)."""

import tensorflow as tf

from tfod_zoo.modeling.placement import on_plain_cpu

PEAK_TOLERANCE = 1e-6  # a cell within this of its neighbourhood's maximum is a peak


def heatmap_peaks(probabilities: tf.Tensor, kernel_size: int = 3) -> tf.Tensor:
    """Keeps a cell's probability where it is the maximum of its neighbourhood in its channel, zero elsewhere.

    Args:
      probabilities: `[B, H, W, C]` float32 in 0..1.
      kernel_size: side of the neighbourhood in cells; 0 or 1 keeps everything.
    """
    if kernel_size <= 1:
        return probabilities
    highest = tf.nn.max_pool2d(probabilities, kernel_size, strides=1, padding="SAME")
    return tf.where(highest - probabilities < PEAK_TOLERANCE, probabilities, 0.0)


def top_k_peaks(peaks: tf.Tensor, k: int) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor, tf.Tensor]:
    """The k highest cells over positions and classes together; ties go to the lower flat index.

    Args:
      peaks: `[B, H, W, C]` float32, static H, W and C; k at most H x W x C.

    Returns:
      scores `[B, k]` float32, descending; y, x and class, each `[B, k]` int32.
    """
    height, width, channels = peaks.shape[1:]
    by_cell = tf.reshape(peaks, [-1, height * width, channels])
    # The k best values lie in the k cells with the best maxima, so the sort that costs is over cells alone.
    _, cells = tf.math.top_k(tf.reduce_max(by_cell, -1), min(k, height * width))
    cells = tf.sort(cells, axis=-1)  # in the map's order, which settles ties
    candidates = tf.gather(by_cell, cells, batch_dims=1)
    scores, index = tf.math.top_k(tf.reshape(candidates, [-1, cells.shape[1] * channels]), k)
    cell = tf.gather(cells, index // channels, batch_dims=1)
    return scores, cell // width, cell % width, index % channels


# Cells, and then values, that `highest_peaks` looks at for each peak sought. Of 128x128 maps 1.0 to 2.9 a peak are as
# high as the last peak, of random weights (MobileNetV2-FPN, ResNet-50 V2) as of trained ones (blood cells).
_CANDIDATES = 4
_LEAST_CANDIDATES = 256


def highest_peaks(
    logits: tf.Tensor, inside: tf.Tensor, k: int, classes: int
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor, tf.Tensor]:
    """`top_k_peaks` of `heatmap_peaks` of a map's probabilities, mostly without computing these.

    A CPU would pass six times over a million values to find a hundred. Instead: some hundred of the highest values are
    compared with their neighbours, in the order of `top_k_peaks`, ties included (a map in low precision has many).
    Where there are as many peaks among them as are sought, no other value comes before one of these. Where there are
    fewer, as on a map with few peaks at all, everything is looked at.

    Args:
      logits: `[B, H, W, D]` float32, static H, W and D; channels from `classes` on have the probability 0.
      inside: `[B, H, W, 1]` float32; 0 makes a cell's probabilities 0.
      k: see `top_k_peaks`.
      classes: C, at most D.

    Returns:
      See `top_k_peaks`.
    """

    def among_all() -> tuple[tf.Tensor, tf.Tensor, tf.Tensor, tf.Tensor]:
        return top_k_peaks(heatmap_peaks(tf.sigmoid(logits[..., :classes]) * inside), k)

    height, width, channels = logits.shape[1:]
    count = max(_CANDIDATES * k, _LEAST_CANDIDATES)
    if height * width <= count or not on_plain_cpu():
        return among_all()
    flat_inside = tf.reshape(inside, [-1, height * width])
    best = tf.sigmoid(tf.reshape(tf.reduce_max(logits, -1), [-1, height * width])) * flat_inside
    _, cells = tf.math.top_k(best, count)  # the `count` highest values lie in these
    cells = tf.sort(cells, axis=-1)  # in the map's order, which settles ties
    by_cell = tf.gather(tf.reshape(logits, [-1, height * width, channels]), cells, batch_dims=1)
    values = tf.sigmoid(by_cell[..., :classes]) * tf.gather(flat_inside, cells, batch_dims=1)[..., None]
    values, index = tf.math.top_k(tf.reshape(values, [-1, count * classes]), count)
    cell, channel = tf.gather(cells, index // classes, batch_dims=1), index % classes
    y, x = cell // width, cell % width

    around = tf.constant([[i, j] for i in (-1, 0, 1) for j in (-1, 0, 1)])
    rows, columns = y[..., None] + around[:, 0], x[..., None] + around[:, 1]
    on_map = (rows >= 0) & (rows < height) & (columns >= 0) & (columns < width)
    near = tf.clip_by_value(rows, 0, height - 1) * width + tf.clip_by_value(columns, 0, width - 1)
    flat_logits = tf.reshape(logits, [-1, height * width * channels])
    neighbours = tf.sigmoid(tf.gather(flat_logits, near * channels + channel[..., None], batch_dims=1))
    neighbours *= tf.gather(flat_inside, near, batch_dims=1)
    highest = tf.reduce_max(tf.where(on_map, neighbours, 0.0), -1)
    scores, chosen = tf.math.top_k(tf.where(highest - values < PEAK_TOLERANCE, values, 0.0), k)
    found = (scores, *(tf.gather(of, chosen, batch_dims=1) for of in (y, x, channel)))
    return tf.cond(tf.reduce_all(scores > 0), lambda: found, among_all)
