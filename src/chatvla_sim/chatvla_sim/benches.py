# SPDX-License-Identifier: Apache-2.0
"""Make benches by name. A new bench is one entry here."""

from __future__ import annotations

from typing import Any

from chatvla_sim.bench import Bench, BenchError

__all__ = ["bench_names", "make_bench"]

BENCHES = {
    "math_match": "chatvla_sim.math_match.bench:MathMatchBench",
    "toy_placement": "chatvla_sim.toy_placement.bench:ToyPlacementBench",
}


def bench_names() -> tuple[str, ...]:
    """Names of the benches that exist, sorted."""
    return tuple(sorted(BENCHES))


def make_bench(task: str, **options: Any) -> Bench:
    """Return a new bench for `task`; options go to its constructor. Raises BenchError, listing the tasks that exist."""
    from importlib import import_module

    if task not in BENCHES:
        raise BenchError(f"no bench {task!r}; there are: {', '.join(bench_names())}")
    module, _, name = BENCHES[task].partition(":")
    return getattr(import_module(module), name)(**options)
