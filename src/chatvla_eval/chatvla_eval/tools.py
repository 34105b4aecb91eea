# SPDX-License-Identifier: Apache-2.0
"""Say where the grippers are, by forward kinematics, and which object they came nearest to. Units m."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib import import_module

import numpy as np
from numpy.typing import NDArray

from chatvla_control.robot_spec import robot_spec
from chatvla_eval.session import Watch

__all__ = ["NEAR_M", "TOOLS", "Approach", "tool_points"]

NEAR_M = 0.08
"""A tool point this near to an object's centre has come to it: cards lie at least 0.09 m apart."""
TOOLS: Mapping[str, str] = {"math_match": "chatvla_eval.tools:_arx_on_math_bench"}
"""Task to `module:function` that returns joint positions (D,) -> tool points (arms, 3)."""

ToolPoints = Callable[[NDArray[np.float64]], NDArray[np.float64]]


@cache
def tool_points(task: str) -> ToolPoints | None:
    """Return the function from joint positions (D,) to tool points (arms, 3) [m]; None for a task without."""
    if task not in TOOLS:
        return None
    module, _, name = TOOLS[task].partition(":")
    return getattr(import_module(module), name)()


def _arx_on_math_bench() -> ToolPoints:
    from chatvla_sim.arms.x5 import arm_chain
    from chatvla_sim.math_match.geometry import ARM_BASES

    spec = robot_spec("arx_r5")
    arms = [
        (arm_chain(spec, arm, ARM_BASES[arm.name]), [spec.joint_names.index(name) for name in arm.joints])
        for arm in spec.arms
    ]
    return lambda joints: np.array([chain.forward(joints[index])[:3, 3] for chain, index in arms])


@dataclass
class Approach:
    """The object that a gripper came nearest to while nothing was taken."""

    name: str = ""
    distance_m: float = field(default=NEAR_M)

    def see(self, watch: Watch) -> None:
        """Take note of one watch; one without joints, or of a task without kinematics, says nothing."""
        tools = tool_points(watch.truth.task)
        if tools is None or watch.joints is None:
            return
        points = tools(watch.joints)
        for item in watch.truth.objects:
            distance = float(np.linalg.norm(points - np.array(item.pose.position), axis=1).min())
            if distance < self.distance_m and not item.placed:
                self.name, self.distance_m = item.name, distance
