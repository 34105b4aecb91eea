# SPDX-License-Identifier: Apache-2.0
"""Intervals agree with published values and behave at the ends."""

import math

import pytest

from chatvla_eval.statistics import mean_interval, proportion


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


def test_mean_of_nothing_is_not_a_number():
    assert math.isnan(mean_interval([]).mean)
