# SPDX-License-Identifier: Apache-2.0
"""Compare two policies on the same trials.

Success: McNemar's exact test (Q. McNemar, Psychometrika 12, 1947, p. 153; exact form: two-sided binomial test with
share 1/2 on the trials where exactly one of the two succeeded).
Scores: mean difference, or ratio of means, with the percentile bootstrap 95% interval over trials (B. Efron, 1979),
fixed seed; the two scores of a trial stay together.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from chatvla_eval.statistics import MeanInterval, RatioInterval, mean_interval, ratio_interval

__all__ = ["McNemar", "compared", "mcnemar", "paired_difference", "paired_ratio"]


@dataclass(frozen=True, kw_only=True)
class McNemar:
    """Trials by who succeeded, and how likely such an imbalance is when both are equally good."""

    both: int
    only_first: int
    only_second: int
    neither: int
    p: float
    """Two-sided exact p-value; 1 where the two never differ."""


def mcnemar(first: Sequence[bool], second: Sequence[bool]) -> McNemar:
    """Return McNemar's exact test of two lists over the same trials. Raises ValueError when lengths differ."""
    pairs = list(zip(first, second, strict=True))
    only_first = sum(a and not b for a, b in pairs)
    only_second = sum(b and not a for a, b in pairs)
    differ = only_first + only_second
    tail = sum(math.comb(differ, k) for k in range(min(only_first, only_second) + 1)) / 2**differ
    return McNemar(
        both=sum(a and b for a, b in pairs),
        only_first=only_first,
        only_second=only_second,
        neither=sum(not a and not b for a, b in pairs),
        p=min(1.0, 2 * tail),
    )


def paired_difference(first: Sequence[float], second: Sequence[float]) -> MeanInterval:
    """Return the mean of second minus first over the same trials, with its 95% interval. Raises ValueError."""
    return mean_interval([b - a for a, b in zip(first, second, strict=True)])


def paired_ratio(first: Sequence[float], second: Sequence[float]) -> RatioInterval:
    """Return the mean of second over that of first, the same trials, with its 95% interval. Raises ValueError."""
    return ratio_interval([(b, a) for a, b in zip(first, second, strict=True)])


def compared(
    first: Sequence[Mapping[str, Any]], second: Sequence[Mapping[str, Any]], measures: Sequence[str] = ()
) -> dict[str, Any]:
    """Return the comparison of two lists of results.json trials; trials are matched by seed, the rest is left out.

    `measures` are keys with points. Where both have a success it is compared too.
    """
    later = {trial["seed"]: trial for trial in second}
    pairs = [(trial, later[trial["seed"]]) for trial in first if trial["seed"] in later]
    found: dict[str, Any] = {"n": len(pairs)}
    if pairs and all("success" in trial for pair in pairs for trial in pair):
        found["success"] = asdict(mcnemar([a["success"] for a, _ in pairs], [b["success"] for _, b in pairs]))
    for measure in measures:
        interval = paired_difference([a[measure] for a, _ in pairs], [b[measure] for _, b in pairs])
        found[measure] = {
            "difference": None if math.isnan(interval.mean) else round(interval.mean, 6),
            "low": None if math.isnan(interval.low) else round(interval.low, 6),
            "high": None if math.isnan(interval.high) else round(interval.high, 6),
        }
    return found
