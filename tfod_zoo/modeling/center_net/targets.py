"""What CenterNet's maps should say, from ground truth (spec: CenterNet, section 9)."""

import tensorflow as tf


def gaussian_sigma(height: tf.Tensor, width: tf.Tensor, min_iou: float) -> tf.Tensor:
    """Spread of a box's centre Gaussian: how far a corner may move before the IoU falls under `min_iou`.

    The quadratic's root is divided by 2 instead of 2a, as the original CenterNet has it and as every zoo model was
    trained (spec, 9.1, "wrong root").

    Args:
      height, width: box sizes in output cells, any shape, float32.
      min_iou: `min_box_overlap_iou`, in 0..1.

    Returns:
      Standard deviations in output cells, of the same shape, at least 1/6.
    """
    total, area = height + width, height * width
    discriminants = (
        (total, total**2 - 4 * area * (1 - min_iou) / (1 + min_iou)),
        (2 * total, 4 * total**2 - 16 * (1 - min_iou) * area),
        (-2 * min_iou * total, 4 * min_iou**2 * total**2 + 16 * min_iou * (1 - min_iou) * area),
    )
    roots = [(linear + tf.sqrt(tf.maximum(square, 0.0))) / 2 for linear, square in discriminants]
    radius = tf.minimum(tf.minimum(roots[0], roots[1]), roots[2])
    return (2 * tf.maximum(tf.floor(radius), 0.0) + 1) / 6


def gaussians(y: tf.Tensor, x: tf.Tensor, sigma: tf.Tensor, height: int, width: int) -> tf.Tensor:
    """Unit Gaussians around integer centres y, x with spread sigma, each `[...]` -> `[..., height, width]`."""
    spread = 2 * tf.square(sigma)[..., None]
    rows = tf.exp(-tf.square(tf.range(height, dtype=tf.float32) - y[..., None]) / spread)
    columns = tf.exp(-tf.square(tf.range(width, dtype=tf.float32) - x[..., None]) / spread)
    return rows[..., :, None] * columns[..., None, :]


def class_heatmap(
    y: tf.Tensor,
    x: tf.Tensor,
    sigma: tf.Tensor,
    weights: tf.Tensor,
    classes: tf.Tensor,
    height: int,
    width: int,
    num_classes: int,
) -> tf.Tensor:
    """`[B, height, width, num_classes]` in 0..1: per class the highest weighted Gaussian of any object.

    Every object adds to its own class alone, which is what `compute_heatmap_sparse` asks for; the numbers are the same.

    Args:
      y, x, sigma, weights: `[B, M]`: whole cells of the centres, spreads in cells, and objects' weights.
      classes: `[B, M]` int32.
    """
    each = gaussians(y, x, sigma, height, width) * weights[..., None, None]
    batch, objects = each.shape[0] or tf.shape(each)[0], each.shape[1] or tf.shape(each)[1]
    # Padding takes no part: segments below 0 are left out.
    segments = tf.where(weights > 0, tf.range(batch)[:, None] * num_classes + classes, -1)
    highest = tf.math.unsorted_segment_max(
        tf.reshape(each, [batch * objects, height * width]), tf.reshape(segments, [-1]), batch * num_classes
    )
    # A class without objects comes out of the segment maximum as the lowest float.
    by_class = tf.reshape(tf.maximum(highest, 0.0), [batch, num_classes, height, width])
    return tf.transpose(by_class, [0, 2, 3, 1])


def center_targets(
    groundtruth: dict[str, tf.Tensor], height: int, width: int, num_classes: int, min_iou: float
) -> dict[str, tf.Tensor]:
    """Targets of the centre, size and offset heads.

    Args:
      groundtruth: `boxes [B, M, 4]` normalised to the padded input, `classes [B, M]` int32 0-based, `weights [B, M]`;
        padded rows have weight 0.
      height, width: of the output map, in cells.
      num_classes: channels of the heatmap.
      min_iou: see `gaussian_sigma`.

    Returns:
      `heatmap [B, height, width, C]` in 0..1, exactly 1 only at the centres of objects of weight 1; `y`, `x [B, M]`
      int32 centre cells; `size [B, M, 2]` and `offset [B, M, 2]` in cells; `weights [B, M]`. No gradient flows.
    """
    weights = groundtruth["weights"]
    ymin, xmin, ymax, xmax = tf.unstack(groundtruth["boxes"] * tf.constant([height, width] * 2, tf.float32), axis=-1)
    box_height, box_width = ymax - ymin, xmax - xmin
    y_center, x_center = ymin + box_height / 2, xmin + box_width / 2
    y, x = tf.floor(y_center), tf.floor(x_center)

    sigma = gaussian_sigma(box_height, box_width, min_iou)
    targets = {
        "heatmap": class_heatmap(y, x, sigma, weights, groundtruth["classes"], height, width, num_classes),
        "y": tf.cast(y, tf.int32),
        "x": tf.cast(x, tf.int32),
        "size": tf.stack([box_height, box_width], -1),
        "offset": tf.stack([y_center - y, x_center - x], -1),
        "weights": weights,
    }
    return {key: tf.stop_gradient(value) for key, value in targets.items()}
