# SPDX-License-Identifier: Apache-2.0
"""Turn an action list into CARTESIAN_POSE rows that one arm plays while the others hold still.

Each action ends at rest: its way is 3 s^2 - 2 s^3 of the time it takes, long enough for the speeds and accelerations
of the robot's CartesianSpec. The filter of the paper's table and wall: a target is moved into the arm's workspace box
and over the table, and a way that the arm cannot go ends where it can (reach.py). So motion into the table or a wall is
left out, and the rest of the list goes on from where the tool then is.
Units m, rad, s. N actions; T rows; A arms; K anchors. (VLM2VLA, appendix D.2)
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from chatvla_control.cartesian import arm_models, cartesian_rows
from chatvla_control.cartesian_spec import POSE_WIDTH
from chatvla_control.robot_spec import RobotSpec
from chatvla_control.rotations import matrix_from_six, rotation_angle, six_from_matrix, slerp
from chatvla_policy.vlm2vla.config import RobotMotion
from chatvla_policy.vlm2vla.reach import Reach

__all__ = ["Played", "held_rows", "played_rows", "turn_at"]

Array = NDArray[np.float64]
SHARE = 0.5
"""Share of the robot's Cartesian limits that a way uses."""
LONGEST_S = 20.0
"""What would be played later is left out: whole actions, so that the arm ends at rest."""
_NEAREST = 4
_STEEPEST, _SHARPEST = 1.5, 6.0
"""Largest speed and acceleration of 3 s^2 - 2 s^3 over the unit time."""


@dataclass(frozen=True, kw_only=True)
class Played:
    """Rows of an action list."""

    rows: Array
    """Shape (T, 10 A); row 0 is where the arm is."""
    ends: tuple[int, ...]
    """Number of rows up to the end of each action; the arm rests there."""
    filtered: int
    """Actions that were cut short or left out: outside the workspace box, out of reach, too late."""


def held_rows(spec: RobotSpec, positions: Array, *, count: int = 10) -> Array:
    """Return rows that stay where the arms are, shape (count, 10 A)."""
    return np.repeat(cartesian_rows(spec, positions[None]), count, axis=0)


def turn_at(anchors_K9: Array, place: Array, otherwise: Array) -> Array:
    """Return how the tool is turned at `place` [m], shape (3, 3): as at the nearest anchors, else `otherwise`."""
    if not len(anchors_K9):
        return otherwise
    distance = np.linalg.norm(anchors_K9[:, :3] - place, axis=1)
    near = np.argsort(distance)[:_NEAREST]
    weight = 1.0 / (distance[near] + 1e-3) ** 2
    six = (weight[:, None] * anchors_K9[near, 3:]).sum(0) / weight.sum()
    try:
        return matrix_from_six(six)
    except ValueError:  # Opposite turns cancel each other: take the nearest as it is.
        return matrix_from_six(anchors_K9[near[0], 3:])


def played_rows(
    actions_N4: Array,
    *,
    spec: RobotSpec,
    arm: int,
    positions: Array,
    motion: RobotMotion,
    speed_m_s: float,
    grip_s: float,
    period_s: float,
    gripper_m: float,
) -> Played:
    """Return the rows of `actions_N4` for one arm, from the measured joints `positions` [rad, m], shape (D,).

    `gripper_m` is the arm's commanded opening so far: a gripper that holds something is measured wider.
    Raises ValueError for a robot without Cartesian data.
    """
    start = cartesian_rows(spec, positions[None])[0]
    model = arm_models(spec)[arm]
    limits, column = model.cartesian, model.column
    anchors = next((item.anchors for item in motion.arms if item.arm == spec.arms[arm].name), ())
    anchors_K9 = np.array(anchors, np.float64).reshape(-1, 9)
    place, turn = start[column : column + 3].copy(), matrix_from_six(start[column + 3 : column + 9])
    grip = gripper_m
    current = start.copy()
    current[column + POSE_WIDTH - 1] = grip
    reach = Reach(model, positions)
    rows, ends, filtered = [current.copy()], [], 0
    for number, (dx, dy, dz, opened) in enumerate(actions_N4):
        wanted = place + np.array([dx, dy, dz])
        target = np.clip(wanted, limits.lower, limits.upper)
        # Where the arm is outside its box by itself, it is not pulled in by an action that does not move it.
        target = np.where(np.array([dx, dy, dz]) == 0.0, place, target)
        turned = turn_at(anchors_K9, target, turn)
        target[2] += min(reach.lift_m(turned, target), max(0.0, place[2] - target[2]))
        share = reach.share(place, turn, target, turned)
        if share < 1.0:
            target, turned = place + share * (target - place), slerp(turn, turned, share)
        opening = motion.open_m if opened else motion.closed_m
        way_s = _way_s(
            float(np.linalg.norm(target - place)),
            float(rotation_angle(turn, turned)),
            speed_m_s=min(speed_m_s, SHARE * limits.speed_m_s),
            speed_rad_s=SHARE * limits.speed_rad_s,
            acceleration_m_s2=SHARE * limits.acceleration_m_s2,
        )
        ways = _shares(way_s, period_s)
        grips = _shares(grip_s, period_s) if abs(opening - grip) > 1e-6 else np.zeros(0)
        if (len(rows) + len(ways) + len(grips)) * period_s > LONGEST_S:
            filtered += len(actions_N4) - number
            break
        filtered += int(np.abs(target - wanted).max() > 1e-9)
        for done in ways:
            current = current.copy()
            current[column : column + 3] = place + done * (target - place)
            current[column + 3 : column + 9] = six_from_matrix(slerp(turn, turned, done))
            rows.append(current)
        for done in grips:
            current = current.copy()
            current[column + POSE_WIDTH - 1] = grip + done * (opening - grip)
            rows.append(current)
        ends.append(len(rows))
        place, turn, grip = target, turned, opening
    return Played(rows=np.array(rows), ends=tuple(ends), filtered=filtered)


def _way_s(
    distance_m: float, angle_rad: float, *, speed_m_s: float, speed_rad_s: float, acceleration_m_s2: float
) -> float:
    """Return how long a way takes [s]."""
    return max(
        _STEEPEST * distance_m / speed_m_s,
        _STEEPEST * angle_rad / speed_rad_s,
        math.sqrt(_SHARPEST * distance_m / acceleration_m_s2),
    )


def _shares(way_s: float, period_s: float) -> Array:
    """Return the share of the way done after each period, the last 1; empty for no way."""
    count = math.ceil(way_s / period_s - 1e-9)
    if count <= 0:
        return np.zeros(0)
    time = np.arange(1, count + 1) / count
    return time * time * (3.0 - 2.0 * time)
