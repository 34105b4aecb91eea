# SPDX-License-Identifier: Apache-2.0
"""Turn a planned trajectory into an action chunk, so that the driver checks and plays it like any other."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray
from trajectory_msgs.msg import JointTrajectory

from chatvla_control.contracts import ActionChunk, ActionMode
from chatvla_control.robot_spec import RobotSpec
from chatvla_control.ros.stamps import duration_from_msg

__all__ = ["planned_chunk"]

Array = NDArray[np.float64]
_LEAD_S = 0.2
_REST_S = 1.0
_MOST_S = 28.0


def planned_chunk(
    trajectory: JointTrajectory,
    spec: RobotSpec,
    *,
    joints: Mapping[str, str],
    measured: Array,
    now_s: float,
    chunk_id: str,
) -> ActionChunk:
    """Return the chunk that follows `trajectory` on the robot's grid, from 0.2 s after `now_s` on.

    `joints`: the trajectory's name of each rotary joint of `spec`; grippers keep their `measured` opening [m], shape
    (D,). Linear between the plan's points. Raises ValueError when the plan lacks a joint, is empty or longer than 28 s.
    """
    missing = [name for name in joints.values() if name not in trajectory.joint_names]
    if missing or not trajectory.points:
        raise ValueError(f"the plan lacks joint {missing[0]!r}" if missing else "the plan has no points")
    times = np.array([duration_from_msg(point.time_from_start) for point in trajectory.points])
    if times[-1] > _MOST_S or (np.diff(times) <= 0.0).any():
        raise ValueError(f"the plan takes {times[-1]:.1f} s, at most {_MOST_S:g} s in rising times; move in parts")
    planned_names = list(trajectory.joint_names)
    planned = np.array([point.positions for point in trajectory.points])
    period_s = 1.0 / spec.rate_hz
    grid = np.arange(0.0, times[-1] + period_s, period_s)
    rows = np.repeat(measured[None], len(grid), axis=0)
    for name, hardware in joints.items():
        column = planned[:, planned_names.index(hardware)]
        rows[:, spec.joint_names.index(name)] = np.interp(grid, times, column)
    return ActionChunk(
        id=chunk_id,
        actions=rows,
        joint_names=spec.joint_names,
        robot=spec.name,
        mode=ActionMode.JOINT_POSITION,
        stamp_s=now_s,
        start_s=now_s + _LEAD_S,
        step_period_s=period_s,
        valid_until_s=now_s + _LEAD_S + float(grid[-1]) + _REST_S,
        policy="moveit",
    )
