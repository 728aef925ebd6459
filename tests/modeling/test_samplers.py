"""The balanced samplers: exact counts, fill-up, chance (spec: Faster R-CNN, section 8)."""

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from tfod_zoo.modeling.faster_rcnn.samplers import balanced_sample

masks = st.integers(1, 24).flatmap(
    lambda n: st.lists(st.lists(st.sampled_from("p-.P"), min_size=n, max_size=n), min_size=1, max_size=2)
)


def sample(pattern, size, fraction, *, function=balanced_sample, **kinds):
    """Patterns of p (positive candidate), - (negative candidate), P (positive, no candidate), . (neither)."""
    pattern = np.array(pattern)
    candidates, positives = np.isin(pattern, ["p", "-"]), np.isin(pattern, ["p", "P"])
    kinds = {"deterministic": False, "static": False} | kinds
    chosen = function(tf.constant(candidates), tf.constant(positives), size, fraction, **kinds).numpy()
    return candidates, positives, chosen


@settings(max_examples=60, deadline=None)
@given(pattern=masks, size=st.integers(1, 12), fraction=st.sampled_from([0.0, 0.25, 0.5, 1.0]), seed=st.integers(0, 99))
def test_dynamic_counts(pattern, size, fraction, seed):
    candidates, positives, chosen = sample(pattern, size, fraction, seed=tf.constant([seed, 1]))
    for c, p, s in zip(candidates, positives, chosen, strict=True):
        from_positives = min((c & p).sum(), int(fraction * size))
        assert (s & p).sum() == from_positives
        assert (s & ~p).sum() == min((c & ~p).sum(), size - from_positives)
        assert not (s & ~c).any()


@settings(max_examples=60, deadline=None)
@given(pattern=masks, size=st.integers(1, 12), fraction=st.sampled_from([0.0, 0.25, 0.5, 1.0]), seed=st.integers(0, 99))
def test_static_counts(pattern, size, fraction, seed):
    candidates, positives, chosen = sample(pattern, size, fraction, static=True, seed=tf.constant([seed, 1]))
    for c, p, s in zip(candidates, positives, chosen, strict=True):
        filled = c.copy()
        for index in range(len(c)):
            if filled.sum() < size:
                filled[index] = True
        from_positives = min((filled & p).sum(), int(fraction * size))
        from_negatives = min((filled & ~p).sum(), size - from_positives)
        # In the reference's sorted list others stand between negatives and surplus positives.
        surplus = max(0, min(size, len(c)) - from_positives - from_negatives - (~filled).sum())
        assert (s & ~p).sum() == from_negatives
        assert (s & p).sum() == from_positives + surplus
        assert not (s & ~filled).any()


@settings(max_examples=60, deadline=None)
@given(pattern=masks, size=st.integers(1, 12), fraction=st.sampled_from([0.0, 0.25, 0.5, 1.0]), static=st.booleans())
def test_deterministic_is_the_first_in_index_order(pattern, size, fraction, static):
    candidates, positives, chosen = sample(pattern, size, fraction, deterministic=True, static=static)
    for c, p, s in zip(candidates, positives, chosen, strict=True):
        first = np.flatnonzero(c & p)[: int(fraction * size)]
        want = [*first, *np.flatnonzero(c & ~p)[: size - len(first)]]
        assert np.flatnonzero(s).tolist() == sorted(want)


@pytest.mark.parametrize("static", [False, True])
def test_every_candidate_has_the_same_chance(static):
    """2000 images at once: each of 10 positives is among the 2 chosen a fifth of the time, of 20 negatives the 6."""
    pattern = [list("p--" * 10)] * 2000
    _, positives, chosen = sample(pattern, 8, 0.25, static=static, seed=tf.constant([3, 4]))
    rates = chosen.mean(0)
    np.testing.assert_allclose(rates[positives[0]], 0.2, atol=0.05)
    np.testing.assert_allclose(rates[~positives[0]], 0.3, atol=0.05)


def test_a_step_draws_anew_and_a_seed_repeats():
    pattern = [list("p---" * 50)] * 2
    _, _, first = sample(pattern, 8, 0.25)
    _, _, second = sample(pattern, 8, 0.25)
    assert (first != second).any() and (first[0] != first[1]).any()
    _, _, first = sample(pattern, 8, 0.25, seed=tf.constant([5, 6]))
    _, _, second = sample(pattern, 8, 0.25, seed=tf.constant([5, 6]))
    np.testing.assert_array_equal(first, second)


@pytest.mark.parametrize("kinds", [{}, {"static": True}, {"deterministic": True}])
def test_compiled(kinds):
    function = tf.function(balanced_sample, jit_compile=True)
    pattern = [list("p--.P" * 30), list("..P-p" * 30)]
    _, _, want = sample(pattern, 40, 0.25, seed=tf.constant([1, 2]), **kinds)
    _, _, got = sample(pattern, 40, 0.25, seed=tf.constant([1, 2]), function=function, **kinds)
    if "deterministic" in kinds:
        np.testing.assert_array_equal(got, want)
    # Compiled, the generator may be another one; the counts are not.
    np.testing.assert_array_equal(got.sum(-1), want.sum(-1))
    _, _, unseeded = sample(pattern, 40, 0.25, function=function, **kinds)
    np.testing.assert_array_equal(unseeded.sum(-1), want.sum(-1))
