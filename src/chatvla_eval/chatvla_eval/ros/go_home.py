# SPDX-License-Identifier: Apache-2.0
"""Plan the way home: one chunk from where the arms are to the robot's home pose, well inside its limits.

q(s) = q0 + (q1 - q0) (10 s^3 - 15 s^4 + 6 s^5), s = t/T: at rest at both ends; its peak speed is 15/8 d/T and its peak
acceleration 10/sqrt(3) d/T^2 for a distance d. T is the shortest time that keeps every joint at SHARE of its limits.
Where a tool would leave its workspace on the straight way, it goes over poses between (clear_way), at rest in each.
"""

from __future__ import annotations

import math
import uuid
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from chatvla_control.clear_way import clear_way
from chatvla_control.contracts import ActionChunk, ActionMode
from chatvla_control.robot_spec import RobotSpec

__all__ = ["home_chunk", "is_home"]

SHARE = 0.4
NEAR_RAD = 0.1
_LEAST_S = 0.5
_LEAD_S = 0.05


def is_home(positions: NDArray[np.float64], spec: RobotSpec) -> bool:
    """Return whether every rotary joint lies within NEAR_RAD of home; grippers do not count."""
    rotary = np.array([joint.unit == "rad" for joint in spec.joints])
    return bool((np.abs(positions - np.array(spec.home))[rotary] < NEAR_RAD).all())


def home_chunk(positions: NDArray[np.float64], spec: RobotSpec, *, now_s: float) -> ActionChunk:
    """Return the chunk that drives the arms from `positions` [rad, m], shape (D,), home, starting at once.

    Where no way keeps the tools in their workspace it is the straight one, which the driver refuses with its reason.
    """
    start, home = np.clip(positions, spec.lower, spec.upper), np.array(spec.home)
    way = clear_way(spec, start, home)
    poses = np.stack([start, home]) if way is None else way
    rows = [move(first, second, spec) for first, second in pairwise(poses)]
    actions = np.concatenate([rows[0], *(part[1:] for part in rows[1:])])
    return ActionChunk(
        id=f"home-{uuid.uuid4().hex[:8]}",
        actions=actions,
        joint_names=spec.joint_names,
        robot=spec.name,
        mode=ActionMode.JOINT_POSITION,
        stamp_s=now_s,
        start_s=now_s + _LEAD_S,
        step_period_s=1.0 / spec.rate_hz,
        valid_until_s=now_s + _LEAD_S + len(actions) / spec.rate_hz + 1.0,
        policy="rollout",
    )


def move(start: NDArray[np.float64], end: NDArray[np.float64], spec: RobotSpec) -> NDArray[np.float64]:
    """Return joint positions, shape (T, D), on the straight way from `start` to `end`, at rest at both."""
    distance = end - start
    by_speed = 15 / 8 * np.abs(distance) / (SHARE * spec.velocity)
    by_acceleration = np.sqrt(10 / math.sqrt(3) * np.abs(distance) / (SHARE * spec.acceleration))
    duration_s = max(_LEAST_S, float(by_speed.max()), float(by_acceleration.max()))
    steps = math.ceil(duration_s * spec.rate_hz) + 1
    s = np.linspace(0.0, 1.0, steps)[:, None]
    return start + distance * (10 * s**3 - 15 * s**4 + 6 * s**5)
