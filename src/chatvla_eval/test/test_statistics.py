# SPDX-License-Identifier: Apache-2.0
"""Intervals agree with published values and behave at the ends."""

import math
import tracemalloc

import numpy as np
import pytest

from chatvla_eval import statistics
from chatvla_eval.statistics import RESAMPLES, mean_interval, proportion, ratio_interval


@pytest.mark.parametrize(
    ("k", "n", "low", "high"),
    [
        # Newcombe, Statistics in Medicine 17 (1998), table I, score method without continuity correction.
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ],
)
def test_wilson_interval_agrees_with_published_values(k, n, low, high):
    interval = proportion(k, n)
    assert (interval.low, interval.high) == (pytest.approx(low, abs=6e-5), pytest.approx(high, abs=6e-5))


def test_proportion_is_bounded_and_symmetric():
    for n in (1, 2, 13, 52, 1000):
        for k in range(0, n + 1, max(1, n // 10)):
            interval, mirrored = proportion(k, n), proportion(n - k, n)
            assert 0.0 <= interval.low <= k / n <= interval.high <= 1.0
            assert interval.low == pytest.approx(1.0 - mirrored.high)


def test_nothing_known_is_the_whole_range():
    assert (proportion(0, 0).low, proportion(0, 0).high) == (0.0, 1.0)


@pytest.mark.parametrize(("k", "n"), [(-1, 3), (4, 3)])
def test_impossible_counts_are_refused(k, n):
    with pytest.raises(ValueError, match=r"0\.\.n"):
        proportion(k, n)


def test_mean_interval_of_equal_scores_is_a_point():
    interval = mean_interval([4, 4, 4])
    assert (interval.mean, interval.low, interval.high) == (4.0, 4.0, 4.0)


def test_mean_interval_is_near_the_normal_one_and_repeatable():
    scores = [0, 1, 2, 3, 4] * 40
    interval = mean_interval(scores)
    half = 1.96 * math.sqrt(2.0 / len(scores))
    assert interval.mean == 2.0
    assert interval.low == pytest.approx(2.0 - half, abs=0.02)
    assert interval.high == pytest.approx(2.0 + half, abs=0.02)
    assert mean_interval(scores) == interval


@pytest.mark.parametrize("n", [1, 3, 52, 419, 2000])
def test_intervals_are_those_of_all_resamples_drawn_at_once(n):
    rng = np.random.default_rng(n)
    above, below = rng.random(n), rng.random(n) + 0.1
    picks = np.random.default_rng(statistics._SEED).integers(0, n, size=(RESAMPLES, n))
    low, high = np.quantile(above[picks].mean(axis=1), (0.025, 0.975))
    found = mean_interval(above.tolist())
    assert (found.low, found.high) == (low, high)
    ratios = above[picks].mean(axis=1) / below[picks].mean(axis=1)
    low, high = np.quantile(ratios, (0.025, 0.975), method="nearest")
    found = ratio_interval(list(zip(above.tolist(), below.tolist(), strict=True)))
    assert (found.low, found.high) == (low, high)


def test_memory_does_not_grow_with_the_number_of_scores(monkeypatch):
    monkeypatch.setattr(statistics, "RESAMPLES", 200)
    tracemalloc.start()
    mean_interval([0.0, 1.0] * 100_000)
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    # All picks at once are 320 MB.
    assert most < 120e6


def test_mean_of_nothing_is_not_a_number():
    assert math.isnan(mean_interval([]).mean)


def test_ratio_of_equal_scores_is_a_point_however_they_spread():
    interval = ratio_interval([(score, 2 * score) for score in (0.1, 0.9, 0.4)])
    assert (interval.ratio, interval.n) == (pytest.approx(0.5), 3)
    assert (interval.low, interval.high) == (pytest.approx(0.5), pytest.approx(0.5))


def test_ratio_interval_is_near_the_delta_methods_and_repeatable():
    rng = np.random.default_rng(0)
    below = rng.random(400)
    above = 0.8 * below + 0.1 * rng.random(400)
    pairs = list(zip(above.tolist(), below.tolist(), strict=True))
    interval = ratio_interval(pairs)
    ratio = above.mean() / below.mean()
    half = 1.96 * (above - ratio * below).std() / below.mean() / 20
    assert interval.ratio == pytest.approx(ratio)
    assert interval.low == pytest.approx(ratio - half, abs=0.1 * half)
    assert interval.high == pytest.approx(ratio + half, abs=0.1 * half)
    assert ratio_interval(pairs) == interval


def test_ratio_over_nothing_is_none_and_over_almost_nothing_has_no_upper_bound():
    for pairs in ([], [(1.0, 0.0), (0.5, 0.0)]):
        assert all(math.isnan(value) for value in (ratio_interval(pairs).ratio, ratio_interval(pairs).high))
    rare = ratio_interval([(1.0, 1.0), *[(0.0, 0.0)] * 4])
    assert (rare.ratio, rare.low, rare.high) == (1.0, 1.0, math.inf)
