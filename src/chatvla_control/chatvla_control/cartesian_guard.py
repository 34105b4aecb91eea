# SPDX-License-Identifier: Apache-2.0
"""Keep a tool inside its workspace, above the table and below its speed, at every tick and for any joint command.

How. A command passes only if the arm could brake from it without leaving the limits: after the tick all joints slow
down in proportion, v(t) = v (1 - t/T) with T = max |v| / a, along one straight segment of joint space, from q to
q + v T / 2. The tick's own way and that segment are sampled; workspace, table, approach and speed are judged at every
sample. What does not pass is mixed with braking until it does; pure braking stays on a segment that was judged before,
because a discrete tick of braking ends on it, earlier and not faster. So limits hold for any command, tick length and
clock. From outside the limits (an arm that was parked there) only motion that leads no farther out passes.
Units rad, m, s. K candidates, S samples, J joints. No ROS, no clock.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from chatvla_control.cartesian import ArmModel
from chatvla_control.motion_limits import braking_speed
from chatvla_control.robot_spec import RobotSpec
from chatvla_control.rotations import rotation_angle

__all__ = ["MARGIN", "CartesianGuard", "margin_names", "margins"]

Array = NDArray[np.float64]
MARGIN = 0.002
"""Distance [m], and cosine, that samples keep from a limit: the arm's way between two samples bends by less."""
_SPEED_SHARE = 0.98
_TICK_SHARES = np.array([1.0, 2.0, 3.0]) / 3.0
_STOP_SHARES = np.arange(0.0, 7.0) / 6.0
_MIXES = np.array([0.8, 0.6, 0.4, 0.2, 0.1])


def margin_names(arm: ArmModel) -> tuple[str, ...]:
    """Return what each column of `margins` is the distance to."""
    sides = tuple(f"{end} {axis}" for end in ("lower", "upper") for axis in "xyz")
    joints = tuple(
        f"table under joint {place + 1}" for place, radius in enumerate(arm.cartesian.joint_clearances_m) if radius
    )
    return (*sides, "table", "approach", *joints)


def margins(arm: ArmModel, positions_NJ: Array) -> tuple[Array, Array]:
    """Return how far inside its limits the arm is, shape (N, M), negative outside, and the tool poses (N, 4, 4).

    Distances in m; "approach" is a cosine. Columns: `margin_names`.
    """
    limits = arm.cartesian
    poses, _, origins = arm.chain.walk(positions_NJ)
    places = [place for place, radius in enumerate(limits.joint_clearances_m) if radius]
    heights = origins[:, places, 2] - limits.table_z_m - np.array(limits.joint_clearances_m)[places]
    return np.concatenate([pose_margins(arm, poses), heights], axis=1), poses


def pose_margins(arm: ArmModel, poses: Array) -> Array:
    """Return the columns of `margins` that depend on the tool's pose (N, 4, 4) alone, shape (N, 8)."""
    limits = arm.cartesian
    tools, approach = poses[:, :3, 3], poses[:, 2, 0]
    tips = tools[:, 2] + limits.finger_reach_m * approach - limits.table_z_m - limits.clearance_m
    sides = (tools - np.array(limits.lower), np.array(limits.upper) - tools)
    return np.concatenate([*sides, tips[:, None], (limits.highest_approach - approach)[:, None]], axis=1)


class CartesianGuard:
    """Limits the joint commands of one robot's arms."""

    def __init__(self, spec: RobotSpec, arms: Sequence[ArmModel]) -> None:
        self._arms = arms
        self._lower, self._upper, self._acceleration = spec.lower, spec.upper, spec.acceleration
        self._holds = True

    @property
    def holds(self) -> bool:
        """True when the limits hold: since the arms were at rest, or since a command first passed after `release`."""
        return self._holds

    def release(self) -> None:
        """Say that the arms move by commands that were not judged here."""
        self._holds = False

    def limited(self, positions: Array, velocities: Array, wanted: Array, h: float) -> tuple[Array, Array]:
        """Return positions [rad, m] and speeds, shape (D,), after a tick of `h` s at `wanted` speeds or slower.

        `positions` and `velocities` are those of the last command; `wanted` keeps the joints' own limits already.
        """
        chosen, passed_all = wanted, True
        for arm in self._arms:
            now, speed, wish = (vector[arm.places] for vector in (positions, velocities, wanted))
            if not wish.any() or self._safe(arm, now, wish[None], h)[0]:
                continue
            stop_s = self._stop_s(arm, speed[None])[0]
            brake = speed * max(0.0, 1.0 - h / stop_s) if stop_s > 0.0 else np.zeros_like(speed)
            mixed = self._stoppable(arm, now, brake + _MIXES[:, None] * (wish - brake), h)
            passed = np.flatnonzero(self._safe(arm, now, mixed, h))
            passed_all &= bool(passed.size)
            chosen = chosen.copy()
            chosen[arm.places] = mixed[passed[0]] if passed.size else self._stoppable(arm, now, brake, h)
        self._holds |= passed_all
        return np.minimum(np.maximum(positions + chosen * h, self._lower), self._upper), chosen

    def _stoppable(self, arm: ArmModel, now: Array, speeds: Array, h: float) -> Array:
        """Return `speeds`, shape (J,) or (K, J), cut to those at which each joint can still stop at its own limit.

        Braking in proportion takes some joints farther than braking each for itself, which is what holds before the
        guard does.
        """
        places = arm.places
        below, above = np.maximum(now - self._lower[places], 0.0), np.maximum(self._upper[places] - now, 0.0)
        acceleration = self._acceleration[places]
        slowest, fastest = -braking_speed(below, acceleration, h), braking_speed(above, acceleration, h)
        return np.minimum(np.maximum(speeds, slowest), fastest)

    def _stop_s(self, arm: ArmModel, speeds_KJ: Array) -> Array:
        return (np.abs(speeds_KJ) / self._acceleration[arm.places]).max(axis=1)

    def _safe(self, arm: ArmModel, now: Array, speeds_KJ: Array, h: float) -> NDArray[np.bool_]:
        """Return which of K joint speeds may be held for `h` seconds from `now`, shape (K,)."""
        count = len(speeds_KJ)
        stop_s = self._stop_s(arm, speeds_KJ)[:, None, None]
        travel = np.concatenate([np.zeros(1), _TICK_SHARES * h])[:, None] * speeds_KJ[:, None]
        ahead = travel[:, -1:] + 0.5 * stop_s * _STOP_SHARES[1:, None] * speeds_KJ[:, None]
        path = now + np.concatenate([travel, ahead], axis=1)
        samples = path.shape[1]
        room, poses = margins(arm, path.reshape(count * samples, -1))
        room, poses = room.reshape(count, samples, -1), poses.reshape(count, samples, 4, 4)
        # Never farther out than now, and inside by the margin when the arm is inside.
        inside = (room[:, 1:] >= np.minimum(room[:, :1], MARGIN) - 1e-12).all(axis=(1, 2))
        last = path[:, -1]
        inside &= ((last >= self._lower[arm.places] - 1e-9) & (last <= self._upper[arm.places] + 1e-9)).all(axis=1)
        moved = np.linalg.norm(np.diff(poses[:, :, :3, 3], axis=1), axis=-1)
        turned = rotation_angle(poses[:, :-1, :3, :3], poses[:, 1:, :3, :3])
        # Seconds that the braking arm takes for a segment, at the speed it has at the segment's beginning.
        shares = _STOP_SHARES[:-1]
        tick = np.full((count, len(_TICK_SHARES)), h / len(_TICK_SHARES))
        braking = np.diff(_STOP_SHARES) * np.maximum(stop_s[:, 0], 1e-9) / (2.0 * np.sqrt(1.0 - shares))
        seconds = np.concatenate([tick, braking], axis=1) * _SPEED_SHARE
        limits = arm.cartesian
        slow = (moved <= limits.speed_m_s * seconds) & (turned <= limits.speed_rad_s * seconds)
        return inside & slow.all(axis=1)
