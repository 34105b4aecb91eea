# SPDX-License-Identifier: Apache-2.0
"""Plan smooth joint motions from any state to rest, within speed and acceleration limits. No simulator, no ROS.

Each segment is a quintic polynomial in time per joint, made longer until its peak speed and acceleration are within
limits.
Units: rad, m, s. D joints; N samples on a grid of step `period_s`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["MotionBuilder", "Trajectory"]

Array = NDArray[np.float64]
SAMPLES_PER_SEGMENT = 40
LONGEST_SEGMENT_S = 20.0


@dataclass(frozen=True, kw_only=True)
class Trajectory:
    """Joint positions over time; holds its last row after the end."""

    start_s: float
    period_s: float
    positions_ND: Array

    @property
    def end_s(self) -> float:
        """Time of the last row."""
        return self.start_s + (len(self.positions_ND) - 1) * self.period_s

    def sample(self, times_s: Array) -> Array:
        """Return positions at the given times, shape (len(times_s), D); linear between rows, held outside."""
        index = np.clip((times_s - self.start_s) / self.period_s, 0, len(self.positions_ND) - 1)
        low = np.minimum(index.astype(int), max(len(self.positions_ND) - 2, 0))
        high = np.minimum(low + 1, len(self.positions_ND) - 1)
        weight = (index - low)[:, None]
        return (1 - weight) * self.positions_ND[low] + weight * self.positions_ND[high]

    def velocity(self, time_s: float) -> Array:
        """Return the speed at one time by central difference, shape (D,)."""
        half = self.period_s / 2
        before, after = self.sample(np.array([time_s - half, time_s + half]))
        return (after - before) / self.period_s


def quintic(start: Array, speed: Array, end: Array, duration_s: float) -> Array:
    """Return coefficients (6, D) from `start` with `speed` to rest at `end`, accelerations 0 at both ends."""
    t = duration_s
    delta = end - start
    return np.array(
        [
            start,
            speed,
            np.zeros_like(start),
            (10 * delta - 6 * speed * t) / t**3,
            (-15 * delta + 8 * speed * t) / t**4,
            (6 * delta - 3 * speed * t) / t**5,
        ]
    )


def evaluate(coefficients: Array, times_s: Array, order: int = 0) -> Array:
    """Return the polynomial or its derivative at `times_s`, shape (len, D)."""
    powers = np.arange(6)
    factor = np.ones(6)
    for _ in range(order):
        factor, powers = factor * powers, np.maximum(powers - 1, 0)
    return (times_s[:, None] ** powers * factor) @ coefficients


class MotionBuilder:
    """Strings segments together, then gives one Trajectory."""

    def __init__(
        self,
        *,
        start_s: float,
        period_s: float,
        positions: Array,
        speed: Array,
        max_speed: Array,
        max_acceleration: Array,
    ) -> None:
        """Limits are per joint, shape (D,). The first segment starts at `positions` with `speed`."""
        self._start_s, self._period_s = start_s, period_s
        self._position, self._speed = positions.copy(), speed.copy()
        self._max_speed, self._max_acceleration = max_speed, max_acceleration
        self._rows: list[Array] = [positions[None].copy()]
        self._elapsed_s = 0.0

    @property
    def position(self) -> Array:
        """Where the motion so far ends, shape (D,)."""
        return self._position.copy()

    @property
    def time_s(self) -> float:
        """When the motion so far ends."""
        return self._start_s + self._elapsed_s

    def move(self, target: Array, *, least_s: float = 0.0) -> None:
        """Go to `target` (D,) and stop there, in no less than `least_s`."""
        duration = max(least_s, 2 * self._period_s, self._shortest(np.abs(target - self._position)))
        while duration < LONGEST_SEGMENT_S:
            coefficients = quintic(self._position, self._speed, target, duration)
            times = np.linspace(0, duration, SAMPLES_PER_SEGMENT)
            fast = np.abs(evaluate(coefficients, times, 1)) > 1.001 * np.maximum(self._max_speed, np.abs(self._speed))
            if not fast.any() and not (np.abs(evaluate(coefficients, times, 2)) > 1.001 * self._max_acceleration).any():
                break
            duration *= 1.1
        self._append(lambda t: evaluate(quintic(self._position, self._speed, target, duration), t), duration)
        self._position, self._speed = target.copy(), np.zeros_like(target)

    def follow(self, path_ND: Array) -> None:
        """Pass through the rows of `path_ND` from rest to rest; the first row must be the present position."""
        steps = np.linspace(0, 1, len(path_ND))
        slopes = np.gradient(path_ND, steps, axis=0)
        # Along s in 0..1 by minimum jerk: speed peaks at 1.875 / T, acceleration at 5.77 / T^2.
        duration = float(
            max(
                (1.875 * np.abs(slopes).max(axis=0) / self._max_speed).max(),
                np.sqrt(5.77 * np.abs(slopes).max(axis=0) / self._max_acceleration).max(),
                4 * self._period_s,
            )
        )

        def at(times_s: Array) -> Array:
            u = np.clip(times_s / duration, 0, 1)
            s = u**3 * (10 - 15 * u + 6 * u**2)
            return np.column_stack(
                [hermite(s, steps, path, slope) for path, slope in zip(path_ND.T, slopes.T, strict=True)]
            )

        self._append(at, duration)
        self._position = path_ND[-1].copy()
        self._speed = np.zeros_like(self._position)

    def hold(self, duration_s: float) -> None:
        """Stand still for `duration_s` (coming to rest first if still moving)."""
        self.move(self._position, least_s=duration_s)

    def build(self) -> Trajectory:
        """Return the whole motion."""
        last = self._position[None]
        return Trajectory(start_s=self._start_s, period_s=self._period_s, positions_ND=np.vstack([*self._rows, last]))

    def _shortest(self, distance: Array) -> float:
        by_speed = 1.875 * distance / self._max_speed
        by_acceleration = np.sqrt(5.77 * distance / self._max_acceleration)
        return float(max(by_speed.max(), by_acceleration.max()))

    def _append(self, at: Callable[[Array], Array], duration_s: float) -> None:
        first = sum(len(rows) for rows in self._rows)
        last = int(np.floor((self._elapsed_s + duration_s) / self._period_s + 1e-9))
        times = np.arange(first, last + 1) * self._period_s - self._elapsed_s
        if len(times):
            self._rows.append(at(times))
        self._elapsed_s += duration_s


def hermite(s: Array, knots: Array, values: Array, slopes: Array) -> Array:
    """Return the cubic Hermite interpolation of one joint at `s`."""
    index = np.clip(np.searchsorted(knots, s, side="right") - 1, 0, len(knots) - 2)
    width = knots[index + 1] - knots[index]
    u = (s - knots[index]) / width
    return (
        (1 + 2 * u) * (1 - u) ** 2 * values[index]
        + u * (1 - u) ** 2 * width * slopes[index]
        + u**2 * (3 - 2 * u) * values[index + 1]
        + u**2 * (u - 1) * width * slopes[index + 1]
    )
