# SPDX-License-Identifier: Apache-2.0
"""Give 95% intervals for success rates and mean scores.

Success: Wilson score interval, k of n, z = 1.96 (E. B. Wilson, JASA 22, 1927, p. 209):
    centre = (k/n + z^2/2n) / (1 + z^2/n),  half = z / (1 + z^2/n) * sqrt(k/n (1 - k/n) / n + z^2/4n^2)
Mean scores: percentile bootstrap over trials (B. Efron, Annals of Statistics 7, 1979, p. 1) with a fixed seed, so that
the same scores always give the same interval.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["MeanInterval", "Proportion", "RatioInterval", "mean_interval", "proportion", "ratio_interval"]

Z_95 = 1.959963984540054
RESAMPLES = 10_000
_SEED = 20_251
_MOST_PICKS = 2**22
"""So many picks are drawn at once: all resamples of a hundred thousand scores would take gigabytes."""


@dataclass(frozen=True, kw_only=True)
class Proportion:
    """k of n with the bounds of its 95% interval; the bounds are 0 and 1 when n is 0."""

    k: int
    n: int
    low: float
    high: float


@dataclass(frozen=True, kw_only=True)
class MeanInterval:
    """Mean of n scores with the bounds of its 95% interval; all NaN when n is 0."""

    mean: float
    n: int
    low: float
    high: float


@dataclass(frozen=True, kw_only=True)
class RatioInterval:
    """Ratio of two means over the same n trials with the bounds of its 95% interval; all NaN when it is none."""

    ratio: float
    n: int
    low: float
    high: float
    """Infinity when too many resamples have nothing below the line."""


def proportion(k: int, n: int) -> Proportion:
    """Return k of n with its Wilson 95% interval. Raises ValueError unless 0 <= k <= n."""
    if not 0 <= k <= n:
        raise ValueError(f"{k} of {n} is no proportion: k must lie in 0..n")
    if n == 0:
        return Proportion(k=0, n=0, low=0.0, high=1.0)
    share = k / n
    scale = 1.0 + Z_95**2 / n
    centre = (share + Z_95**2 / (2 * n)) / scale
    half = Z_95 / scale * math.sqrt(share * (1.0 - share) / n + Z_95**2 / (4 * n * n))
    # The bounds are 0 and 1 at the ends by the formula; rounding may leave them by 1e-17.
    low = 0.0 if k == 0 else max(0.0, centre - half)
    high = 1.0 if k == n else min(1.0, centre + half)
    return Proportion(k=k, n=n, low=low, high=high)


def mean_interval(scores: Sequence[float]) -> MeanInterval:
    """Return the mean of `scores` with its bootstrap 95% interval."""
    n = len(scores)
    if n == 0:
        return MeanInterval(mean=math.nan, n=0, low=math.nan, high=math.nan)
    values = np.asarray(scores, dtype=np.float64)
    low, high = np.quantile(_resampled(values[:, None])[:, 0], (0.025, 0.975))
    return MeanInterval(mean=float(values.mean()), n=n, low=float(low), high=float(high))


def ratio_interval(pairs: Sequence[tuple[float, float]]) -> RatioInterval:
    """Return the ratio of the means of `pairs`, first over second, with its bootstrap 95% interval over pairs.

    Scores are at least 0. A resample whose second mean is 0 counts as infinite: it bounds nothing from above.
    """
    n = len(pairs)
    values = np.asarray(pairs, dtype=np.float64).reshape(n, 2)
    if n == 0 or values[:, 1].mean() == 0.0:
        return RatioInterval(ratio=math.nan, n=n, low=math.nan, high=math.nan)
    above, below = _resampled(values).T
    ratios = np.divide(above, below, out=np.full(RESAMPLES, np.inf), where=below > 0.0)
    low, high = np.quantile(ratios, (0.025, 0.975), method="nearest")
    ratio = values[:, 0].mean() / values[:, 1].mean()
    return RatioInterval(ratio=float(ratio), n=n, low=float(low), high=float(high))


def _resampled(values_NK: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the means of RESAMPLES resamples of the rows, shape (RESAMPLES, K): the same whatever _MOST_PICKS is."""
    n, columns = values_NK.shape
    rng = np.random.default_rng(_SEED)
    means = np.empty((RESAMPLES, columns))
    step = max(1, _MOST_PICKS // n)
    for first in range(0, RESAMPLES, step):
        block = means[first : first + step]
        picks = rng.integers(0, n, size=(len(block), n))
        for column in range(columns):
            block[:, column] = values_NK[:, column][picks].mean(axis=1)
    return means
