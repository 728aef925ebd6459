"""1x1 convolutions with their bias or batch norm, for learning on a CPU: there passes over maps outlast arithmetic."""

import tensorflow as tf
import tf_keras

from tfod_zoo.modeling.placement import on_plain_cpu

# With more channels their covariance takes longer than the passes that it saves (TensorFlow 2.20, two cores with
# AVX-512, six times as many outputs as inputs: 0.6 of the time at 16 channels, 0.8 at 96, 1.2 at 160).
_MOST_CHANNELS = 96


@tf.custom_gradient
def plus_bias(x: tf.Tensor, bias: tf.Tensor):
    """`x + bias`, `[B, H, W, K]` and `[K]` of one float type, with the bias's gradient as a matrix product.

    TensorFlow joins the usual one with the kernel's into one operation, which on a CPU takes up to ten times as long as
    the two (TensorFlow 2.20, 1x1 kernels at 128x128); as a sum over three axes it takes as long as that.
    """

    def gradient(upstream: tf.Tensor):
        rows = tf.reshape(upstream, [-1, upstream.shape[-1]])
        return upstream, tf.matmul(tf.ones([1, tf.shape(rows)[0]], rows.dtype), rows)[0]

    return tf.nn.bias_add(x, bias), gradient


def normalizes(norm: tf_keras.layers.BatchNormalization, in_channels: int) -> bool:
    """Whether `convolve_and_normalize` can be had for what is being built, and is the faster way to train.

    Args:
      norm: the batch norm behind the convolution. in_channels: C of the convolution's input.
    """
    return (
        in_channels <= _MOST_CHANNELS
        and norm.compute_dtype == "float32"
        and on_plain_cpu()
        and tf.distribute.get_strategy().num_replicas_in_sync == 1  # others' shares may count, too
    )


def convolve_and_normalize(
    x: tf.Tensor, kernel: tf.Tensor, norm: tf_keras.layers.BatchNormalization
) -> tf.Tensor:
    """A 1x1 convolution and the batch norm behind it, in training.

    Mean m and covariance S of the input's channels give the statistics of the outputs: k.m and k.S.k for a kernel k.
    They are known before the convolution, then, and it normalises as it goes: of a dozen passes over the wide map and
    its gradient, four remain.

    Args:
      x: `[B, H, W, C]` float32. kernel: `[1, 1, C, K]`.
      norm: a layer of gamma and beta. Its moving averages are updated as it does by itself: the variance by
        n / (n - 1) times the batch's.

    Returns:
      `[B, H, W, K]`.
    """
    rows = tf.reshape(x, [-1, x.shape[3]])
    count = tf.cast(tf.shape(rows)[0], x.dtype)
    mean = tf.matmul(tf.ones([1, tf.shape(rows)[0]]), rows) / count
    # Of centred rows, or much would cancel; nothing flows back through the centre, as they sum to nothing.
    covariance = _gram(rows - tf.stop_gradient(mean)) / count
    matrix = tf.reshape(kernel, kernel.shape[2:])
    output_mean = tf.matmul(mean, matrix)[0]
    output_variance = tf.reduce_sum(matrix * tf.matmul(covariance, matrix), 0)
    unbiased = output_variance * count / tf.maximum(count - 1, 1)
    for average, value in ((norm.moving_mean, output_mean), (norm.moving_variance, unbiased)):
        average.assign_sub((average - tf.stop_gradient(value)) * (1 - tf.cast(norm.momentum, x.dtype)))
    scale = norm.gamma * tf.math.rsqrt(output_variance + norm.epsilon)
    return plus_bias(tf.nn.conv2d(x, kernel * scale, 1, "SAME"), norm.beta - output_mean * scale)


@tf.custom_gradient
def _gram(rows: tf.Tensor):
    """`rows`' times `rows`; its gradient is one product, not two."""
    return tf.matmul(rows, rows, transpose_a=True), lambda upstream: tf.matmul(rows, upstream + tf.transpose(upstream))
