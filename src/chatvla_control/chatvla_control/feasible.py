# SPDX-License-Identifier: Apache-2.0
"""Bend a raw chunk into one that the robot can follow exactly, by the same motion law as the player. No ROS.

For policies, before they publish: limits of position, speed and acceleration then hold on the chunk's own grid, so the
check passes and the player follows without lag. Units rad, m, s; rows of shape (T, D).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from chatvla_control.motion_limits import MotionLimits, braking_speed, next_motion
from chatvla_control.robot_spec import RobotSpec

__all__ = ["feasible_rows"]

Array = NDArray[np.float64]
_ROUNDING = 1e-9
"""Share of a limit that rounding may cost: rows that were bent once are feasible."""
_MET = 1e-12


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
    bent = np.minimum(np.maximum(rows, limits.lower), limits.upper)
    positions = np.minimum(np.maximum(start, limits.lower), limits.upper)
    velocities = np.zeros(spec.width) if start_velocity is None else start_velocity
    before = np.concatenate([positions[None], bent[:-1]])
    speeds = (bent - before) / period_s
    speeds_before = np.concatenate([velocities[None], speeds[:-1]])
    # Row by row costs 50 us each: where the motion has met the rows it goes on at the next row that is not feasible.
    infeasible = np.flatnonzero(~_feasible_steps(before, speeds_before, speeds, period_s, limits))
    row = 0
    while row < len(bent):
        if _met(positions, velocities, before[row], speeds_before[row], period_s):
            later = infeasible[np.searchsorted(infeasible, row) :]
            if not len(later):
                break
            if later[0] > row:
                row = int(later[0])
                positions, velocities = before[row], speeds_before[row]
        positions, velocities = next_motion(positions, velocities, bent[row], speeds[row], period_s, limits)
        bent[row] = positions
        row += 1
    return bent


def _feasible_steps(
    before: Array, speeds_before: Array, speeds: Array, h: float, limits: MotionLimits
) -> NDArray[np.bool_]:
    """Return which steps, shape (T,), keep the limits when the motion is on the rows at their beginning."""
    more = 1.0 + _ROUNDING
    fastest = np.minimum(limits.velocity, braking_speed(limits.upper - before, limits.acceleration, h)) * more
    slowest = np.minimum(limits.velocity, braking_speed(before - limits.lower, limits.acceleration, h)) * more
    steady = np.abs(speeds - speeds_before) <= limits.acceleration * h * more
    met: NDArray[np.bool_] = (speeds <= fastest + _MET) & (-speeds <= slowest + _MET) & steady
    return np.all(met, axis=1)


def _met(positions: Array, velocities: Array, row: Array, speed: Array, h: float) -> bool:
    """Return whether the motion is where the row is and as fast."""
    return bool(max(np.abs(positions - row).max(), h * np.abs(velocities - speed).max()) <= _MET)
