# SPDX-License-Identifier: Apache-2.0
"""Bend a raw chunk into one that the robot can follow exactly, by the same motion law as the player. No ROS.

For policies, before they publish: limits of position, speed and acceleration then hold on the chunk's own grid, so the
check passes and the player follows without lag. Units rad, m, s; rows of shape (T, D).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from chatvla_control.motion_limits import MotionLimits, next_motion
from chatvla_control.robot_spec import RobotSpec

__all__ = ["feasible_rows"]

Array = NDArray[np.float64]


def feasible_rows(
    rows: Array, spec: RobotSpec, *, start: Array, period_s: float, start_velocity: Array | None = None
) -> Array:
    """Return rows, shape (T, D), that follow `rows` as closely as the limits allow.

    The motion starts at `start` [rad, m], shape (D,), one period before row 0, at `start_velocity` (else at rest).
    Rows that are feasible already come back unchanged. Raises ValueError for shapes or values that are no motion.
    """
    if rows.ndim != 2 or rows.shape[1] != spec.width or start.shape != (spec.width,):
        raise ValueError(f"rows {rows.shape}, start {start.shape} are not of {spec.width} joints")
    if not (np.isfinite(rows).all() and np.isfinite(start).all() and period_s > 0.0):
        raise ValueError("rows and start must be finite and the period positive")
    limits = MotionLimits.of(spec)
    wanted = np.clip(rows, limits.lower, limits.upper)
    positions = np.clip(start, limits.lower, limits.upper)
    velocities = np.zeros(spec.width) if start_velocity is None else start_velocity
    bent = np.empty_like(wanted)
    before = positions
    for row, reference in enumerate(wanted):
        speed = (reference - before) / period_s
        positions, velocities = next_motion(positions, velocities, reference, speed, period_s, limits)
        bent[row], before = positions, reference
    return bent
