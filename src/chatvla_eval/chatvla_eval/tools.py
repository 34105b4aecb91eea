# SPDX-License-Identifier: Apache-2.0
"""Say where the grippers are, by forward kinematics, and which object they came nearest to. Units m."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib import import_module

import numpy as np
from numpy.typing import NDArray

from chatvla_control.scene import SceneTruth
from chatvla_eval.session import Watch

__all__ = ["NEAR_M", "TOOLS", "Approach", "tool_points"]

NEAR_M = 0.08
"""A tool point this near to an object's centre has come to it: cards lie at least 0.09 m apart."""
TOOLS: Mapping[str, str] = {
    "math_match": "chatvla_sim.math_match.motions:tool_points",
    "toy_placement": "chatvla_sim.toy_placement.motions:tool_points",
}
"""Task to `module:function` that returns a function from joint positions (D,) to tool points (arms, 3)."""

ToolPoints = Callable[[NDArray[np.float64]], NDArray[np.float64]]


@cache
def tool_points(task: str) -> ToolPoints | None:
    """Return the function from joint positions (D,) to tool points (arms, 3) [m]; None for a task without."""
    if task not in TOOLS:
        return None
    module, _, name = TOOLS[task].partition(":")
    return getattr(import_module(module), name)()


@dataclass
class Approach:
    """The object that a gripper came nearest to over a trial.

    Each truth is paired with the newest joints that are not later, so that the answer does not depend on when a session
    looked: a rollout and its bag give the same.
    """

    _truths: dict[float, SceneTruth] = field(default_factory=dict)
    _joints: dict[float, NDArray[np.float64]] = field(default_factory=dict)

    def see(self, watch: Watch) -> None:
        """Take note of one watch."""
        self._truths |= {truth.stamp_s: truth for truth in (*watch.seen, watch.truth)}
        if watch.joints is not None and not watch.motion:
            self._joints[watch.clock_s] = watch.joints
        self._joints |= dict(watch.motion)

    @property
    def name(self) -> str:
        """Name of the object, "" when none came within NEAR_M or nothing is known of the grippers."""
        nearest, name = NEAR_M, ""
        times = np.array(sorted(self._joints))
        for stamp_s, truth in sorted(self._truths.items()):
            tools = tool_points(truth.task)
            index = int(np.searchsorted(times, stamp_s, side="right")) - 1
            if tools is None or index < 0:
                continue
            points = tools(self._joints[float(times[index])])
            for item in truth.objects:
                distance = float(np.linalg.norm(points - np.array(item.pose.position), axis=1).min())
                if distance < nearest and not item.placed and item.role != "fixture":
                    nearest, name = distance, item.name
        return name
