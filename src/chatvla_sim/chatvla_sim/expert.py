# SPDX-License-Identifier: Apache-2.0
"""Make the scripted expert of a task: a policy that sees the scene's truth. No ROS.

It is named `expert` and is privileged: its results are never results of learning.
"""

from __future__ import annotations

from collections.abc import Callable

from chatvla_control.contracts import Policy
from chatvla_control.robot_spec import RobotSpec
from chatvla_control.scene import SceneTruth
from chatvla_sim.bench import BenchError

__all__ = ["make_expert"]

EXPERTS = {
    "math_match": "chatvla_sim.math_match.expert:MathMatchExpert",
    "toy_placement": "chatvla_sim.toy_placement.expert:ToyPlacementExpert",
    "toy_sorting": "chatvla_sim.toy_placement.sorting_expert:ToySortingExpert",
}


def make_expert(task: str, spec: RobotSpec, truth: Callable[[], SceneTruth]) -> Policy:
    """Return the expert of `task` for robot `spec`; `truth` gives the newest truth of the scene.

    Raises BenchError, listing the tasks that have an expert.
    """
    from importlib import import_module

    if task not in EXPERTS:
        raise BenchError(f"no expert for task {task!r}; there are experts for: {', '.join(sorted(EXPERTS))}")
    module, _, name = EXPERTS[task].partition(":")
    return getattr(import_module(module), name)(spec, truth)
