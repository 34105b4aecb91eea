# SPDX-License-Identifier: Apache-2.0
"""Keep commanded motion inside position, speed and acceleration limits, whatever the reference. No ROS, no clock.

Symbols: p position, v commanded speed, a acceleration limit, h time since the last command [s], lower/upper position
limits. One tick moves p to p + v' h with the newly chosen v'. Units rad, m and s. All arrays broadcast: shape (D,) for
one robot or (N, D) for N robots at once.

Invariant, kept for any h >= 0 from tick to tick: lower + v^2/(2a) <= p (v < 0), p <= upper - v^2/(2a) (v > 0): the
joint can always stop before its limit. Proof: braking fully gives v' = v - a h, and (v - a h) h + (v - a h)^2/(2a) =
v^2/(2a) - a h^2/2.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from chatvla_control.robot_spec import RobotSpec

__all__ = ["MotionLimits", "braking_speed", "next_motion", "stopping_point"]

Array = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class MotionLimits:
    """Limits of D joints, each of shape (D,), rad or m and s."""

    lower: Array
    upper: Array
    velocity: Array
    acceleration: Array

    @classmethod
    def of(cls, spec: RobotSpec) -> MotionLimits:
        """Return the limits of `spec`."""
        return cls(lower=spec.lower, upper=spec.upper, velocity=spec.velocity, acceleration=spec.acceleration)


def braking_speed(distance: Array, acceleration: Array, h: float | Array) -> Array:
    """Return the largest speed [unit/s] for the next `h` seconds that still lets a joint stop within `distance` >= 0.

    Solves v h + v^2/(2a) = distance for v. Small distances give distance/h: the joint arrives in one tick.
    """
    step = acceleration * h
    # The textbook form -ah + sqrt((ah)^2 + 2ad) cancels badly for small d.
    return 2.0 * acceleration * distance / (step + np.sqrt(step * step + 2.0 * acceleration * distance) + 1e-300)


def stopping_point(positions: Array, velocities: Array, limits: MotionLimits) -> Array:
    """Return where the joints come to rest [rad, m] when they brake fully from now on."""
    stop = positions + velocities * np.abs(velocities) / (2.0 * limits.acceleration)
    return np.minimum(np.maximum(stop, limits.lower), limits.upper)


def next_motion(
    positions: Array,
    velocities: Array,
    reference: Array,
    reference_velocity: Array,
    h: float | Array,
    limits: MotionLimits,
    *,
    catch_up: float = 0.5,
) -> tuple[Array, Array]:
    """Return the next (positions [rad, m], velocities [rad/s, m/s]) on the way to a moving reference.

    `reference` is where the joints should be at the end of the tick, `reference_velocity` its mean speed over the
    tick, `h` the tick's length [s], > 0 (a float, or (N, 1) for a batch). Law: v' = reference_velocity + w, where |w|
    is the braking speed for the remaining error with `catch_up` of the acceleration limit; then v' is cut to the
    limits. With no error left the reference is followed exactly, without lag. The start must satisfy the invariant
    above; so does the result.
    """
    error = reference - reference_velocity * h - positions
    catch_up_speed = braking_speed(np.abs(error), catch_up * limits.acceleration, h)
    wanted = reference_velocity + np.copysign(catch_up_speed, error)
    # np.maximum and np.minimum in place of np.clip: half the time for 14 joints.
    step = limits.acceleration * h
    fastest = np.minimum(velocities + step, limits.velocity)
    slowest = np.maximum(velocities - step, -limits.velocity)
    fastest = np.minimum(fastest, braking_speed(np.maximum(limits.upper - positions, 0.0), limits.acceleration, h))
    slowest = np.maximum(slowest, -braking_speed(np.maximum(positions - limits.lower, 0.0), limits.acceleration, h))
    chosen = np.minimum(np.maximum(wanted, slowest), fastest)
    moved = np.minimum(np.maximum(positions + chosen * h, limits.lower), limits.upper)
    return moved, chosen
