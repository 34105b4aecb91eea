# SPDX-License-Identifier: Apache-2.0
"""No robot has a place of its own in policy, control's logic or eval's logic; each bench names the robot it holds."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from chatvla_control.robot_spec import robot_names
from chatvla_sim.bench import BenchError
from chatvla_sim.benches import bench_names, bench_robot, make_bench

ROOT = Path(__file__).parents[1]
PACKAGES = ("chatvla_policy", "chatvla_control", "chatvla_eval", "chatvla_sim")


def modules() -> list[Path]:
    """Return what must not name a robot: all but the robots' own files, their simulated arms, and the benches."""
    found = [path for package in PACKAGES for path in (ROOT / "src" / package / package).rglob("*.py")]
    own = ("robots", "arms", "math_match", "toy_placement")
    return [path for path in found if not (set(own) & set(path.parent.parts)) and path.name != "benches.py"]


def test_no_module_names_a_robot() -> None:
    paths = modules()
    assert len(paths) > 150
    names = re.compile("|".join(robot_names()))
    naming = {str(path.relative_to(ROOT)) for path in paths if names.search(path.read_text(encoding="utf-8"))}
    assert naming == set()


def test_a_bench_holds_the_robot_that_is_listed_for_it() -> None:
    for task in bench_names():
        bench = make_bench(task)
        assert bench.spec.name == bench_robot(task)
        bench.close()
    with pytest.raises(BenchError, match="math_match, toy_placement, toy_sorting"):
        bench_robot("nothing")
