"""Winograd's 3x3 convolution F(4x4, 3x3) (Lavin and Gray, arXiv:1509.09308): 36 products for 4x4 outputs, not 144.

The input is cut into overlapping tiles of 6x6 cells, a tile for every 4x4 cells of the output. Tiles and kernel are
transformed, multiplied place by place over the channels (36 matrix products, which run at a CPU's full rate), and
transformed back. oneDNN, which TensorFlow's CPU kernels use, convolves directly. Of its time this took 0.3 (40x40x1024,
512 filters) to 0.7 (80x80x128, 128 filters), backwards 0.4 to 0.75, with TensorFlow 2.20 on two cores with AVX-512, and
it rounds three times as coarsely: 2e-6 of the output's standard deviation.
"""

import numpy as np
import tensorflow as tf

_TILE, _STEP = 6, 4  # cells of an input tile, and of the output tile that it makes
_PLACES = _TILE**2
# With fewer channels the transforms cost more than the products save: 64 at 160x160 take as long as oneDNN.
_LEAST_CHANNELS = 128

# Toom and Cook's construction from the points 0, 1, -1, 1/2, -2 and infinity, which round half as coarsely as the usual
# 0, 1, -1, 2, -2; rows are scaled by powers of two so that input and kernel grow alike.
_OUTPUT = np.array(
    [
        [1, 1, 1, 1, 1, 0],
        [0, 1, -1, 1 / 2, -2, 0],
        [0, 1, 1, 1 / 4, 4, 0],
        [0, 1, -1, 1 / 8, -8, 1],
    ]
)
_KERNEL = np.array(
    [
        [2, 0, 0],
        [2 / 3, 2 / 3, 2 / 3],
        [-2 / 3, 2 / 3, -2 / 3],
        [-32 / 15, -16 / 15, -8 / 15],
        [2 / 15, -4 / 15, 8 / 15],
        [0, 0, 2],
    ]
)
_INPUT = np.array(
    [
        [1 / 2, -3 / 4, -1, 3 / 4, 1 / 2, 0],
        [0, -1 / 2, 1 / 4, 5 / 4, 1 / 2, 0],
        [0, 1 / 2, -5 / 4, 1 / 4, 1 / 2, 0],
        [0, -1, -1 / 2, 1, 1 / 2, 0],
        [0, 1 / 4, -1 / 2, -1 / 4, 1 / 2, 0],
        [0, 1 / 2, -3 / 4, -1, 3 / 4, 1 / 2],
    ]
)


def pays(x: tf.Tensor, kernel_shape: tf.TensorShape) -> bool:
    """Whether `convolve` can be had and is the faster way on a CPU.

    Args:
      x: `[N, H, W, C]`. kernel_shape: height, width, C and filters.
    """
    height, width, channels = x.shape[1:]
    if x.dtype != tf.float32 or kernel_shape[:2] != (3, 3) or height is None or width is None:
        return False
    rows, columns = _tiles(height, width)
    return min(channels, kernel_shape[3]) >= _LEAST_CHANNELS and rows * columns * _PLACES < 0.7 * 9 * height * width


def convolve(x: tf.Tensor, kernel: tf.Tensor, training: bool = True) -> tf.Tensor:
    """The SAME convolution of stride 1, in training with a gradient of the same kind.

    Args:
      x: `[N, H, W, C]` float32, H and W static.
      kernel: `[3, 3, C, K]` float32.
      training: False leaves the gradient to TensorFlow: it is slower, but for one of our own TensorFlow would keep the
        graph and its variables for ever.

    Returns:
      `[N, H, W, K]`.
    """
    if not training:
        return _forward(x, kernel)

    @tf.custom_gradient
    def convolution(x, kernel):
        def gradient(upstream):
            by_input = _forward(upstream, kernel, turned=True)
            # One after the other: each has four times the kernel at hand, which may be 75 MB.
            with tf.control_dependencies([by_input]):
                return by_input, _kernel_gradient(x, upstream)

        return _forward(x, kernel), gradient

    return convolution(x, kernel)


def _tiles(height: int, width: int) -> tuple[int, int]:
    """Rows and columns of tiles."""
    return -(-height // _STEP), -(-width // _STEP)


def _matrix(one_side: np.ndarray) -> tf.Tensor:
    """A transform of both sides at once."""
    return tf.constant(np.kron(one_side, one_side), tf.float32)


def _forward(x: tf.Tensor, kernel: tf.Tensor, turned: bool = False) -> tf.Tensor:
    """The convolution; `turned` for its transpose: the kernel rotated by half a turn, its channels exchanged."""
    height, width = x.shape[1:3]
    rows, columns = _tiles(height, width)
    filters = kernel.shape[2] if turned else kernel.shape[3]
    # The rows of the kernel's transform swap with the kernel's cells, so that the kernel itself stays where it is.
    by_kernel = _matrix(_KERNEL[:, ::-1] if turned else _KERNEL)
    # Four times the kernel: made when its turn comes, or training would hold those of all layers from its start.
    with tf.control_dependencies([x]):
        transformed = tf.reshape(tf.matmul(by_kernel, tf.reshape(kernel, [9, -1])), [_PLACES, *kernel.shape[2:]])
    products = tf.matmul(_transformed_tiles(x), transformed, transpose_b=turned)
    cells = tf.matmul(_matrix(_OUTPUT), tf.reshape(products, [_PLACES, -1]))
    cells = tf.reshape(cells, [_STEP, _STEP, -1, rows, columns, filters])
    whole = tf.reshape(tf.transpose(cells, [2, 3, 0, 4, 1, 5]), [-1, rows * _STEP, columns * _STEP, filters])
    return whole[:, :height, :width]


def _kernel_gradient(x: tf.Tensor, upstream: tf.Tensor) -> tf.Tensor:
    height, width, filters = upstream.shape[1:]
    rows, columns = _tiles(height, width)
    spare = [[0, 0], [0, rows * _STEP - height], [0, columns * _STEP - width], [0, 0]]
    cells = tf.reshape(tf.pad(upstream, spare), [-1, rows, _STEP, columns, _STEP, filters])
    cells = tf.reshape(tf.transpose(cells, [2, 4, 0, 1, 3, 5]), [_STEP**2, -1])
    products = tf.reshape(tf.matmul(_matrix(_OUTPUT), cells, transpose_a=True), [_PLACES, -1, filters])
    # The tiles are made again: kept, they would more than double what training keeps of a layer.
    transformed = tf.matmul(_transformed_tiles(x), products, transpose_a=True)
    by_kernel = _matrix(_KERNEL)
    return tf.reshape(
        tf.matmul(by_kernel, tf.reshape(transformed, [_PLACES, -1]), transpose_a=True), [3, 3, x.shape[3], filters]
    )


def _transformed_tiles(x: tf.Tensor) -> tf.Tensor:
    """`[N, H, W, C]` -> `[36, tiles of all N images, C]`."""
    height, width, channels = x.shape[1:]
    rows, columns = _tiles(height, width)
    tall, wide = rows * _STEP + 2, columns * _STEP + 2
    padded = tf.pad(x, [[0, 0], [1, tall - height - 1], [1, wide - width - 1], [0, 0]])
    place = np.add.outer(np.arange(_TILE) * wide, np.arange(_TILE)).reshape(-1, 1, 1)
    tile = np.add.outer(np.arange(rows) * _STEP * wide, np.arange(columns) * _STEP).reshape(1, 1, -1)
    image = tf.range(tf.shape(x)[0])[:, None] * (tall * wide)
    cells = tf.gather(tf.reshape(padded, [-1, channels]), tf.reshape(tf.constant(place + tile, tf.int32) + image, [-1]))
    return tf.reshape(tf.matmul(_matrix(_INPUT), tf.reshape(cells, [_PLACES, -1])), [_PLACES, -1, channels])
