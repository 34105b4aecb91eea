# SPDX-License-Identifier: Apache-2.0
"""Make benches by name. A new bench is one entry here."""

from __future__ import annotations

from typing import Any

from chatvla_sim.bench import Bench, BenchError

__all__ = ["bench_names", "bench_robot", "make_bench"]

BENCHES = {
    "math_match": "chatvla_sim.math_match.bench:MathMatchBench",
    "toy_placement": "chatvla_sim.toy_placement.bench:ToyPlacementBench",
    "toy_sorting": "chatvla_sim.toy_placement.sorting_bench:ToySortingBench",
}
ROBOTS = {"math_match": "arx_r5", "toy_placement": "franka", "toy_sorting": "franka"}
"""Robot of each bench; here, so that nodes know it without loading the bench."""


def bench_names() -> tuple[str, ...]:
    """Names of the benches that exist, sorted."""
    return tuple(sorted(BENCHES))


def bench_robot(task: str) -> str:
    """Return the name of the robot of bench `task`. Raises BenchError, listing the tasks that exist."""
    if task not in ROBOTS:
        raise BenchError(f"no bench {task!r}; there are: {', '.join(bench_names())}")
    return ROBOTS[task]


def make_bench(task: str, **options: Any) -> Bench:
    """Return a new bench for `task`; options go to its constructor. Raises BenchError, listing the tasks that exist."""
    from importlib import import_module

    if task not in BENCHES:
        raise BenchError(f"no bench {task!r}; there are: {', '.join(bench_names())}")
    module, _, name = BENCHES[task].partition(":")
    return getattr(import_module(module), name)(**options)
