"""Which anchors and proposals count in a training step: a fixed number, with few enough negatives (spec, section 8)."""

import tensorflow as tf


def balanced_sample(
    candidates: tf.Tensor,
    positives: tf.Tensor,
    size: int,
    positive_fraction: float,
    *,
    deterministic: bool,
    static: bool,
    seed: tf.Tensor | None = None,
) -> tf.Tensor:
    """Chooses `size` of the N candidates of an image: positives up to a fraction of them, then negatives.

    At most int(positive_fraction * size) positives are chosen, then negatives until there are `size`. The dynamic
    sampler stops where either runs out. The static one, which always has `size` of something, first makes candidates
    of the first others in index order until there are `size`, and fills up with further positives where every element
    is a candidate and negatives run out. Where TFOD's static sampler would choose an element that is no candidate for
    want of a negative, this one leaves the place empty.

    Args:
      candidates: `[B, N]` bool, N static. positives: `[B, N]` bool; other candidates are negatives.
      size: wanted number an image. positive_fraction: in 0..1.
      deterministic: choose the first in index order, by the dynamic rule, instead of at random.
      static: fill up, as above.
      seed: int32 `[2]` for a choice that can be repeated, or `[B, 2]` for one that depends on its image's seed alone
        and not on the batch around it (B static); None for the next one of `tf.random`.

    Returns:
      `[B, N]` bool: at most `size` an image; all of them candidates, filled-up ones counted in.
    """
    shape, count = tf.shape(candidates), candidates.shape[-1]
    # Of equals, `top_k` takes those of the lowest index.
    priority = tf.zeros(shape) if deterministic else _random(shape, seed)
    fill_up = static and not deterministic
    if fill_up:
        missing = size - tf.reduce_sum(tf.cast(candidates, tf.int32), -1, keepdims=True)
        place_among_others = tf.cumsum(tf.cast(~candidates, tf.int32), axis=-1)
        candidates |= place_among_others <= missing
    positives &= candidates

    # Keys over 0 are taken by random priority, 0 never; where there are too few of them, keys under 0.
    positive_keys = tf.where(positives, 1 + priority, 0.0)
    negative_keys = tf.where(candidates & ~positives, 1 + priority, 0.0)
    if fill_up:
        negative_keys = tf.where(positives, -1 - priority, negative_keys)
    keys, first = tf.math.top_k(positive_keys, min(int(positive_fraction * size), count))
    is_first = keys > 0
    keys, second = tf.math.top_k(negative_keys, min(size, count))
    places = size - tf.reduce_sum(tf.cast(is_first, tf.int32), -1, keepdims=True)
    is_second = (keys != 0) & (tf.range(second.shape[-1]) < places)

    chosen, index = tf.concat([is_first, is_second], -1), tf.concat([first, second], -1)
    image = tf.broadcast_to(tf.range(shape[0])[:, None], tf.shape(index))
    return tf.scatter_nd(tf.stack([image, index], -1), tf.cast(chosen, tf.int32), shape) > 0


def _random(shape: tf.Tensor, seed: tf.Tensor | None) -> tf.Tensor:
    """Uniform in 0..1 of shape `[B, N]`; see `balanced_sample` for the seed."""
    if seed is None:
        return tf.random.uniform(shape)
    if seed.shape.rank == 1:
        return tf.random.stateless_uniform(shape, seed)
    return tf.stack([tf.random.stateless_uniform(shape[1:], each) for each in tf.unstack(seed)])
