# SPDX-License-Identifier: Apache-2.0
"""Know benchmarks by the names of their files: which metric is theirs, and what their own score has beyond it."""

from __future__ import annotations

import re
from dataclasses import dataclass

__all__ = ["Benchmark", "UnknownMetricError", "benchmark_of", "default_metric"]


class UnknownMetricError(ValueError):
    """The benchmark's own metric is not here; the message says why and what to do."""


@dataclass(frozen=True, kw_only=True)
class Benchmark:
    """One benchmark."""

    pattern: str
    """Regular expression that finds it in the small letters of a file's name."""
    metric: str = ""
    """A key of METRICS; empty for a benchmark whose own metric is not here."""
    left_out: str = ""
    """What its own score has beyond the mean over questions, or how it is scored when its metric is not here."""


_JUDGE = "answers are judged by a model"
_BENCHMARKS = (
    Benchmark(pattern="textvqa", metric="vqa"),
    Benchmark(pattern="vqav2", metric="vqa"),
    Benchmark(pattern="docvqa", metric="anls"),
    Benchmark(pattern="infovqa", metric="anls"),
    Benchmark(pattern="chartqa", metric="relaxed"),
    Benchmark(pattern="ocrbench.?v2", left_out="each of its tasks has a metric of its own"),
    Benchmark(pattern="ocrbench", metric="ocrbench"),
    Benchmark(
        pattern="mtvqa",
        metric="mtvqa",
        left_out="a model that judges answers without the reference in them (newer versions of VLMEvalKit)",
    ),
    Benchmark(
        pattern=r"(?<![a-z])mme(?![a-z])",
        metric="yes_no",
        left_out="accuracy+ (both questions of an image right) and the sum over categories",
    ),
    Benchmark(
        pattern="hall(usion)?_?bench",
        metric="yes_no",
        left_out="accuracy by figure (fAcc) and by question pair (qAcc), and a model as judge of unclear answers",
    ),
    Benchmark(pattern="mm.?vet", left_out=_JUDGE),
    Benchmark(pattern="mathvista", left_out=_JUDGE),
    Benchmark(pattern="llava.?bench", left_out=_JUDGE),
)
"""The first that fits counts."""


def benchmark_of(name: str) -> Benchmark | None:
    """Return the benchmark that a file's name tells, None where it tells none."""
    lowered = name.lower()
    return next((known for known in _BENCHMARKS if re.search(known.pattern, lowered)), None)


def default_metric(name: str) -> str:
    """Return the metric of the benchmark that a file's name tells; "exact" where it tells none.

    Raises UnknownMetricError for a benchmark whose metric is not here.
    """
    known = benchmark_of(name)
    if known is None:
        return "exact"
    if not known.metric:
        raise UnknownMetricError(
            f"{name} is of a benchmark whose own metric is not here ({known.left_out}); "
            "choose another one knowingly, such as --metric exact, or run the benchmark's own harness"
        )
    return known.metric
