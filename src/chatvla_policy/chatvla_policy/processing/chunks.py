# SPDX-License-Identifier: Apache-2.0
"""Bring chunks between the model's grid and the robot: keep within limits, line up with the chunk being played.

Units: rad, m, s. Shapes: T chunk steps, D joints, P committed steps.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from chatvla_control.contracts import ActionChunk
from chatvla_control.feasible import feasible_rows
from chatvla_control.motion_limits import MotionLimits, braking_speed
from chatvla_control.robot_spec import RobotSpec

__all__ = ["committed_rows", "playable_rows"]


def playable_rows(rows: NDArray[np.float64], spec: RobotSpec, *, step_period_s: float) -> NDArray[np.float64]:
    """Return rows, shape (T, D), that follow `rows` as closely as the limits of `spec` allow.

    The motion is taken to run already at the chunk's own first speed, as it does when one chunk follows another.
    """
    limits = MotionLimits.of(spec)
    first = np.clip(rows[0], limits.lower, limits.upper)
    speed = (np.clip(rows[min(1, len(rows) - 1)], limits.lower, limits.upper) - first) / step_period_s
    up = braking_speed(limits.upper - first, limits.acceleration, step_period_s)
    down = braking_speed(first - limits.lower, limits.acceleration, step_period_s)
    speed = np.clip(speed, -np.minimum(limits.velocity, down), np.minimum(limits.velocity, up))
    start = np.clip(first - speed * step_period_s, limits.lower, limits.upper)
    return feasible_rows(rows, spec, start=start, period_s=step_period_s, start_velocity=speed)


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
