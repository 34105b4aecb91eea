# SPDX-License-Identifier: Apache-2.0
"""Pose chunks for tests, for any robot with Cartesian data."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from chatvla_control.cartesian import cartesian_rows
from chatvla_control.contracts import ActionChunk, ActionMode
from chatvla_control.robot_spec import RobotSpec, robot_spec

FRANKA = robot_spec("franka")
HOME = np.array(FRANKA.home)
NOW_S = 1000.0
PERIOD_S = 1.0 / 15.0


def still_rows(spec: RobotSpec = FRANKA, steps: int = 16) -> np.ndarray:
    """The pose at home, `steps` times."""
    return cartesian_rows(spec, np.repeat(np.array(spec.home)[None], steps, axis=0))


def arc_rows(spec: RobotSpec = FRANKA, steps: int = 31, reach_m: float = 0.06) -> np.ndarray:
    """Rows that leave home and come back, at rest at both ends: every tool goes down and out together."""
    rows = still_rows(spec, steps)
    away = (1 - np.cos(2 * np.pi * np.arange(steps) / (steps - 1)))[:, None]
    for column in range(0, rows.shape[1], 10):
        rows[:, column : column + 3] += reach_m / 2 * away * np.array([0.4, 0.6, -0.7])
    return rows


def pose_chunk(rows: np.ndarray | None = None, spec: RobotSpec = FRANKA, **changes: Any) -> ActionChunk:
    """A good pose chunk that starts at NOW_S, with `changes`."""
    actions = arc_rows(spec) if rows is None else rows
    good = ActionChunk(
        id="p1",
        actions=actions,
        joint_names=spec.joint_names,
        robot=spec.name,
        mode=ActionMode.CARTESIAN_POSE,
        stamp_s=NOW_S,
        start_s=NOW_S,
        step_period_s=PERIOD_S,
        valid_until_s=NOW_S + len(actions) * PERIOD_S + 0.5,
        policy="test",
    )
    return dataclasses.replace(good, **changes)
