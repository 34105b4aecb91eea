# SPDX-License-Identifier: Apache-2.0
"""Refuse action chunks that no robot should play, with a named fault and one sentence. No ROS; the clock is passed in.

Units: rad, m, s. T rows, D joints. Differences on the chunk's own grid: speed (r[k+1] - r[k]) / period,
acceleration (r[k+1] - 2 r[k] + r[k-1]) / period^2.

The check stops nonsense; the player guarantees the limits of what is executed. Position and speed limits are therefore
taken as they are. A learned chunk carries noise, and differencing twice magnifies it: 1 mrad at 50 Hz is up to 10
rad/s^2. So the check allows `acceleration_factor` times the acceleration limit (three: 60 rad/s^2 for the ARX R5, 24
mrad between second differences). Only the rows that can still be played count for speed, acceleration and the jump;
all rows count for position. What rows want of the tools is judged in cartesian_check.py.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from chatvla_control.cartesian import ArmModel, arm_models
from chatvla_control.cartesian_check import check_joint_rows, check_pose_jump, check_pose_rows
from chatvla_control.cartesian_spec import POSE_WIDTH, CartesianSpec, cartesian_names, cartesian_spec
from chatvla_control.chunk_fault import CheckSettings, ChunkFault, FaultCode
from chatvla_control.contracts import ActionChunk, ActionMode
from chatvla_control.robot_spec import RobotSpec

__all__ = ["CheckSettings", "ChunkFault", "FaultCode", "check_chunk"]

Array = NDArray[np.float64]
_TOLERANCE = 1e-6  # of a limit: room for rounding, far below any encoder


def check_chunk(
    chunk: ActionChunk,
    spec: RobotSpec,
    *,
    now_s: float,
    measured: Array | None = None,
    limits: CheckSettings | None = None,
    cartesian: CartesianSpec | None = None,
) -> ChunkFault | None:
    """Return why `chunk` must not be played at `now_s`, or None.

    `measured` are the joints' positions [rad, m], shape (D,); None skips the tests for a jump and for reach.
    `cartesian` replaces the robot's own Cartesian limits.
    """
    settings = limits or CheckSettings()
    cartesian = cartesian or cartesian_spec(spec.name)
    arms = arm_models(spec, cartesian)
    fault = _check_form(chunk, spec, arms, settings) or _check_times(chunk, now_s, settings)
    if fault is not None:
        return fault
    place = min(max((now_s - chunk.start_s) / chunk.step_period_s, 0.0), float(len(chunk.actions) - 1))
    if chunk.mode == ActionMode.CARTESIAN_POSE:
        fault = check_pose_rows(chunk, spec, arms, first=int(place), measured=measured, settings=settings)
        if fault is not None or measured is None:
            return fault
        lead_s = max(chunk.start_s - now_s, 0.0)
        return check_pose_jump(chunk, arms, place=place, lead_s=lead_s, measured=measured, reach_s=settings.jump_s)
    guarded = arms if cartesian is not None and cartesian.guards_joint_chunks else ()
    return (
        _check_motion(chunk, spec, now_s, settings)
        or (None if measured is None else _check_jump(chunk, spec, now_s, measured, settings))
        or check_joint_rows(chunk, guarded, measured, settings)
    )


def _check_form(
    chunk: ActionChunk, spec: RobotSpec, arms: Sequence[ArmModel], settings: CheckSettings
) -> ChunkFault | None:
    names = spec.joint_names
    shape = chunk.actions.shape
    if chunk.robot != spec.name:
        return _fault(FaultCode.WRONG_ROBOT, f"chunk is for robot {chunk.robot!r:.60}, this driver moves {spec.name!r}")
    played = (ActionMode.JOINT_POSITION, ActionMode.CARTESIAN_POSE)[: 2 if arms else 1]
    if chunk.mode not in played:
        known = " and ".join(f"{mode.name} ({mode.value})" for mode in played)
        return _fault(FaultCode.UNKNOWN_MODE, f"chunk has mode {chunk.mode!r:.60}; {spec.name} plays only {known}")
    columns = cartesian_names(spec) if chunk.mode == ActionMode.CARTESIAN_POSE else names
    width = POSE_WIDTH * len(arms) if chunk.mode == ActionMode.CARTESIAN_POSE else spec.width
    if tuple(chunk.joint_names) != names:
        if sorted(chunk.joint_names) == sorted(names):
            wrong = next(k for k in range(len(names)) if chunk.joint_names[k] != names[k])
            return _fault(
                FaultCode.WRONG_ORDER,
                f"joint {wrong} of the chunk is {chunk.joint_names[wrong]!r:.60}, expected {names[wrong]!r}; "
                f"send the joints in the order of {spec.name}",
            )
        if len(chunk.joint_names) != len(names):
            return _fault(
                FaultCode.WRONG_NAMES,
                f"chunk names {len(chunk.joint_names)} joints, {spec.name} expects {len(names)} "
                f"({names[0]} .. {names[-1]}); see joint_names",
            )
        strange = next(name for name in chunk.joint_names if name not in names or chunk.joint_names.count(name) > 1)
        return _fault(
            FaultCode.WRONG_NAMES, f"chunk names {strange!r:.60}, {spec.name} expects each of: {', '.join(names)}"
        )
    if len(shape) != 2 or shape[1] != width or shape[0] < 1 or shape[0] > settings.max_steps:
        return _fault(
            FaultCode.WRONG_SIZE,
            f"chunk has shape {shape}, expected (T, {width}) with T from 1 to {settings.max_steps}",
        )
    if not np.isfinite(chunk.actions).all():
        row, joint = (int(place) for place in np.argwhere(~np.isfinite(chunk.actions))[0])
        return _fault(
            FaultCode.NOT_FINITE,
            f"row {row}, {columns[joint]} is {chunk.actions[row, joint]}; every action must be a finite number",
        )
    if not settings.min_period_s <= chunk.step_period_s <= settings.max_period_s:
        return _fault(
            FaultCode.BAD_PERIOD,
            f"step period is {chunk.step_period_s:.6g} s, "
            f"expected {settings.min_period_s} to {settings.max_period_s} s",
        )
    return None


def _check_times(chunk: ActionChunk, now_s: float, settings: CheckSettings) -> ChunkFault | None:
    for name, time_s in (("stamp", chunk.stamp_s), ("start", chunk.start_s), ("valid_until", chunk.valid_until_s)):
        if not math.isfinite(time_s):
            return _fault(FaultCode.NOT_FINITE, f"{name} is {time_s}; every time must be a finite number of seconds")
    age_s, lead_s = now_s - chunk.stamp_s, chunk.start_s - now_s
    end_s = chunk.start_s + (len(chunk.actions) - 1) * chunk.step_period_s
    if not age_s <= settings.max_age_s:
        return _fault(
            FaultCode.STALE_STAMP,
            f"chunk rests on an observation {age_s:.3f} s old, limit {settings.max_age_s} s; "
            "infer faster or check the clocks",
        )
    if -age_s > settings.max_stamp_ahead_s:
        return _fault(
            FaultCode.FUTURE_STAMP,
            f"chunk's observation lies {-age_s:.3f} s in the future, "
            f"limit {settings.max_stamp_ahead_s} s; check the clocks",
        )
    if -lead_s > settings.max_start_behind_s:
        return _fault(
            FaultCode.START_IN_PAST,
            f"chunk started {-lead_s:.3f} s ago, limit {settings.max_start_behind_s} s; "
            "start it at its observation's stamp",
        )
    if lead_s > settings.max_start_ahead_s:
        return _fault(
            FaultCode.START_IN_FUTURE,
            f"chunk starts in {lead_s:.3f} s, limit {settings.max_start_ahead_s} s; send it later",
        )
    if chunk.valid_until_s < chunk.start_s or chunk.valid_until_s - now_s > settings.max_valid_ahead_s:
        return _fault(
            FaultCode.BAD_VALIDITY,
            f"chunk is valid until {chunk.valid_until_s - chunk.start_s:.3f} s after its start, expected 0 or more "
            f"and at most {settings.max_valid_ahead_s} s from now",
        )
    if now_s > min(chunk.valid_until_s, end_s):
        return _fault(
            FaultCode.EXPIRED,
            f"chunk's last row or validity ended {now_s - min(chunk.valid_until_s, end_s):.3f} s ago; "
            "nothing is left to play",
        )
    return None


def _check_motion(chunk: ActionChunk, spec: RobotSpec, now_s: float, settings: CheckSettings) -> ChunkFault | None:
    rows, period_s = np.asarray(chunk.actions, np.float64), chunk.step_period_s
    slack = np.where(_rotary(spec), settings.position_slack_rad, settings.position_slack_m)
    # Clipped first: a value near the largest float would overflow when differenced.
    outside = np.maximum(
        spec.lower - slack - np.minimum(rows, spec.upper), np.maximum(rows, spec.lower) - spec.upper - slack
    )
    if (outside > _TOLERANCE).any():
        row, joint = (int(place) for place in np.argwhere(outside > _TOLERANCE)[0])
        return _fault(
            FaultCode.POSITION_LIMIT,
            f"row {row}, {_named(spec, joint, rows[row, joint])} is outside "
            f"{spec.lower[joint]:.4g} .. {spec.upper[joint]:.4g} "
            f"{spec.joints[joint].unit}; check units and normalisation",
        )
    rows = rows[max(0, min(len(rows) - 1, int((now_s - chunk.start_s) / period_s))) :]
    speed = np.diff(rows, axis=0) / period_s
    rotary = _rotary(spec)
    for name, code, values, limit, unit in (
        (
            "speed",
            FaultCode.VELOCITY_LIMIT,
            speed,
            spec.velocity * np.where(rotary, 1.0, settings.gripper_speed_factor),
            "/s",
        ),
        (
            "acceleration",
            FaultCode.ACCELERATION_LIMIT,
            np.diff(speed, axis=0) / period_s,
            np.where(rotary, settings.acceleration_factor * spec.acceleration, np.inf),
            "/s^2",
        ),
    ):
        beyond = np.abs(values) > limit * (1.0 + _TOLERANCE)
        if beyond.any():
            row, joint = (int(place) for place in np.argwhere(beyond)[0])
            return _fault(
                code,
                f"{name} of {_named(spec, joint, values[row, joint])}{unit} "
                f"from row {len(chunk.actions) - len(rows) + row} on, "
                f"limit {limit[joint]:.4g} {spec.joints[joint].unit}{unit}; slow the chunk down or smooth it",
            )
    return None


def _check_jump(
    chunk: ActionChunk, spec: RobotSpec, now_s: float, measured: Array, settings: CheckSettings
) -> ChunkFault | None:
    place = min(max((now_s - chunk.start_s) / chunk.step_period_s, 0.0), float(len(chunk.actions) - 1))
    row = min(int(place), len(chunk.actions) - 1)
    following = min(row + 1, len(chunk.actions) - 1)
    target = chunk.actions[row] + (place - row) * (chunk.actions[following] - chunk.actions[row])
    reach = spec.velocity * (settings.jump_s + max(chunk.start_s - now_s, 0.0))
    # `not <=`: a measured NaN counts as a jump.
    beyond = ~(np.abs(target - measured) <= reach) & _rotary(spec)
    if beyond.any():
        joint = int(np.argmax(beyond))
        return _fault(
            FaultCode.JUMP,
            f"chunk wants {_named(spec, joint, target[joint])} now, measured is {measured[joint]:.4g}, "
            f"limit {reach[joint]:.3g} {spec.joints[joint].unit} apart; start the chunk at the measured position",
        )
    return None


def _rotary(spec: RobotSpec) -> NDArray[np.bool_]:
    return np.array([joint.unit == "rad" for joint in spec.joints])


def _named(spec: RobotSpec, joint: int, value: float) -> str:
    return f"{spec.joints[joint].name} = {value:.4g} {spec.joints[joint].unit}"


def _fault(code: FaultCode, message: str) -> ChunkFault:
    return ChunkFault(code=code, message=message)
