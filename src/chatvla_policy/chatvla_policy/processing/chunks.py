# SPDX-License-Identifier: Apache-2.0
"""Bring chunks between the model's grid and the robot: keep within limits, line up with the chunk being played.

Units: rad, m, s. Shapes: T chunk steps, D joints, P committed steps.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from chatvla_control.contracts import ActionChunk
from chatvla_control.motion_limits import MotionLimits, braking_speed, next_motion
from chatvla_control.robot_spec import RobotSpec

__all__ = ["committed_rows", "feasible_rows"]


def feasible_rows(rows: NDArray[np.float64], spec: RobotSpec, *, step_period_s: float) -> NDArray[np.float64]:
    """Return the nearest rows, shape (T, D), that keep position, speed and acceleration limits of `spec`.

    Each step moves toward its row as far as the limits allow; rows within the limits come back unchanged.
    """
    limits = MotionLimits.of(spec)
    wanted = np.clip(rows, limits.lower, limits.upper)
    position = wanted[0]
    follow = np.diff(wanted, axis=0, prepend=wanted[:1]) / step_period_s
    first = follow[1] if len(follow) > 1 else follow[0]
    up = braking_speed(limits.upper - position, limits.acceleration, step_period_s)
    down = braking_speed(position - limits.lower, limits.acceleration, step_period_s)
    velocity = np.clip(first, -np.minimum(limits.velocity, down), np.minimum(limits.velocity, up))
    kept = [position]
    for row, speed in zip(wanted[1:], follow[1:], strict=True):
        position, velocity = next_motion(position, velocity, row, speed, step_period_s, limits)
        kept.append(position)
    return np.stack(kept)


def committed_rows(
    previous: ActionChunk, *, start_s: float, step_period_s: float, until_s: float, horizon: int
) -> NDArray[np.float64] | None:
    """Return the rows of a chunk starting at `start_s` that the previous chunk already decides, or None.

    These are its values at the new grid's times up to `until_s`, linear between its rows; shape (P, D), P < horizon.
    """
    times = start_s + step_period_s * np.arange(horizon - 1)
    grid = previous.start_s + previous.step_period_s * np.arange(len(previous.actions))
    last = min(until_s, grid[-1], previous.valid_until_s)
    times = times[(times <= last + 1e-9)]
    if not len(times) or times[0] < grid[0] - 1e-9:
        return None
    columns = [np.interp(times, grid, previous.actions[:, joint]) for joint in range(previous.actions.shape[1])]
    return np.stack(columns, axis=1)
