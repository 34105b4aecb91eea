# SPDX-License-Identifier: Apache-2.0
"""Judge what a chunk wants of the tools: rotations, workspace, table, approach, speed, jump, reach. No ROS, no clock.

Units rad, m, s. Serves CARTESIAN_POSE rows, and joint rows of robots whose CartesianSpec guards them. The check stops
nonsense early; cartesian_guard.py holds the limits of what is executed.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from chatvla_control.cartesian import ArmModel
from chatvla_control.cartesian_guard import margin_names, margins, pose_margins
from chatvla_control.cartesian_spec import POSE_WIDTH
from chatvla_control.chunk_fault import CheckSettings, ChunkFault, FaultCode
from chatvla_control.contracts import ActionChunk
from chatvla_control.robot_spec import RobotSpec
from chatvla_control.rotations import matrix_from_six, pose_matrix, rotation_angle, slerp

__all__ = ["check_joint_rows", "check_pose_jump", "check_pose_rows"]

Array = NDArray[np.float64]
_MOST_SOLVED_ROWS = 12
"""Rows whose reach is tried by inverse kinematics, 0.5 ms each: the control loop waits meanwhile."""


def check_joint_rows(
    chunk: ActionChunk, arms: Sequence[ArmModel], measured: Array | None, settings: CheckSettings
) -> ChunkFault | None:
    """Return why joint rows would lead a tool out of its workspace, or None."""
    for arm in arms:
        room, _ = margins(arm, chunk.actions[:, arm.places])
        fault = _check_room(arm, room, _room_now(arm, measured, room.shape[1]), settings)
        if fault is not None:
            return fault
    return None


def check_pose_rows(
    chunk: ActionChunk,
    spec: RobotSpec,
    arms: Sequence[ArmModel],
    *,
    first: int,
    measured: Array | None,
    settings: CheckSettings,
) -> ChunkFault | None:
    """Return why pose rows must not be played, or None; rows before `first` have passed and count for places only."""
    for arm in arms:
        rows = chunk.actions[:, arm.column : arm.column + POSE_WIDTH]
        fault = _check_rotations(arm, rows, settings) or _check_gripper(arm, spec, rows, chunk.step_period_s, settings)
        if fault is not None:
            return fault
        poses = _poses(rows)
        room = pose_margins(arm, poses)
        fault = _check_room(arm, room, _room_now(arm, measured, room.shape[1]), settings) or _check_speed(
            arm, poses[first:], first, chunk.step_period_s, settings
        )
        if fault is not None:
            return fault
        if measured is not None:
            fault = _check_reach(arm, spec, poses[first:], first, chunk.step_period_s, measured)
            if fault is not None:
                return fault
    return None


def check_pose_jump(
    chunk: ActionChunk, arms: Sequence[ArmModel], *, place: float, lead_s: float, measured: Array, reach_s: float
) -> ChunkFault | None:
    """Return why the pose at row number `place` lies too far from the measured one, or None."""
    row = min(int(place), len(chunk.actions) - 1)
    following = min(row + 1, len(chunk.actions) - 1)
    for arm in arms:
        poses = _poses(chunk.actions[[row, following], arm.column : arm.column + POSE_WIDTH])
        point = poses[0, :3, 3] + (place - row) * (poses[1, :3, 3] - poses[0, :3, 3])
        rotation = slerp(poses[0, :3, :3], poses[1, :3, :3], place - row)
        now = arm.chain.forward(measured[arm.places])
        away_m = float(np.linalg.norm(point - now[:3, 3]))
        away_rad = float(rotation_angle(rotation, now[:3, :3]))
        limit_m = arm.cartesian.speed_m_s * (reach_s + lead_s)
        limit_rad = arm.cartesian.speed_rad_s * (reach_s + lead_s)
        # `not <=`: a measured NaN counts as a jump.
        if not (away_m <= limit_m and away_rad <= limit_rad):
            return ChunkFault(
                code=FaultCode.JUMP,
                message=f"chunk wants the tool of {arm.name} {away_m:.3g} m and {away_rad:.2f} rad from where it is, "
                f"limit {limit_m:.3f} m and {limit_rad:.2f} rad; start the chunk at the measured pose",
            )
    return None


def _poses(rows: Array) -> Array:
    poses = np.tile(np.eye(4), (len(rows), 1, 1))
    poses[:, :3, :3] = matrix_from_six(rows[:, 3:9])
    poses[:, :3, 3] = rows[:, :3]
    return poses


def _check_rotations(arm: ArmModel, rows: Array, settings: CheckSettings) -> ChunkFault | None:
    first, second = rows[:, 3:6], rows[:, 6:9]
    # Clipped first: the product of values near the largest float is none.
    first, second = np.clip(first, -1e3, 1e3), np.clip(second, -1e3, 1e3)
    off = np.abs(np.stack([np.linalg.norm(first, axis=1) - 1, np.linalg.norm(second, axis=1) - 1]))
    off = np.concatenate([off, np.abs((first * second).sum(1))[None]]).max(axis=0)
    if (off > settings.rotation_slack).any():
        row = int(np.argmax(off > settings.rotation_slack))
        return ChunkFault(
            code=FaultCode.BAD_ROTATION,
            message=f"row {row}, {arm.name}: the 6D rotation is {off[row]:.3g} from two orthogonal unit vectors, "
            f"limit {settings.rotation_slack}; send the first two columns of a rotation matrix",
        )
    return None


def _check_gripper(
    arm: ArmModel, spec: RobotSpec, rows: Array, period_s: float, settings: CheckSettings
) -> ChunkFault | None:
    joint, openings = spec.joints[arm.gripper], rows[:, 9]
    outside = np.maximum(joint.lower - openings, openings - joint.upper)
    if (outside > settings.position_slack_m + 1e-9).any():
        row = int(np.argmax(outside))
        return ChunkFault(
            code=FaultCode.POSITION_LIMIT,
            message=f"row {row}, {joint.name} = {openings[row]:.4g} m is outside "
            f"{joint.lower:.4g} .. {joint.upper:.4g} m; check units and normalisation",
        )
    speed = np.abs(np.diff(openings)) / period_s
    if (speed > settings.gripper_speed_factor * joint.velocity).any():
        return ChunkFault(
            code=FaultCode.VELOCITY_LIMIT,
            message=f"{joint.name} is asked for {speed.max():.3g} m/s, limit "
            f"{settings.gripper_speed_factor * joint.velocity:.3g} m/s; slow the chunk down",
        )
    return None


def _room_now(arm: ArmModel, measured: Array | None, columns: int) -> Array:
    if measured is None or not np.isfinite(measured).all():
        return np.zeros(columns)
    return margins(arm, measured[arm.places][None])[0][0, :columns]


def _check_room(arm: ArmModel, room: Array, now: Array, settings: CheckSettings) -> ChunkFault | None:
    # An arm that stands outside may come back: rows may be as far out as it is.
    beyond = np.minimum(now, 0.0) - settings.workspace_slack_m - room
    if not (beyond > 0.0).any():
        return None
    row, column = (int(place) for place in np.argwhere(beyond > 0.0)[0])
    name, out = margin_names(arm)[column], -float(room[row, column])
    limits = arm.cartesian
    if name == "approach":
        return ChunkFault(
            code=FaultCode.ORIENTATION,
            message=f"row {row} points the gripper of {arm.name} upwards, its direction's z is {out:.2f} above the "
            f"limit {limits.highest_approach:.2f} (-1 is straight down); check the rotation's convention",
        )
    if name.startswith("table"):
        return ChunkFault(
            code=FaultCode.TABLE,
            message=f"row {row} brings {arm.name} {out:.3g} m too near the table ({name}), which is at "
            f"z = {limits.table_z_m:.3f} m; raise the target or check the frame",
        )
    return ChunkFault(
        code=FaultCode.WORKSPACE,
        message=f"row {row} puts the tool of {arm.name} {out:.3g} m beyond the workspace's {name} "
        f"({limits.lower} .. {limits.upper} m); check units, frame and the driver's workspace",
    )


def _check_speed(
    arm: ArmModel, poses: Array, first: int, period_s: float, settings: CheckSettings
) -> ChunkFault | None:
    limits = arm.cartesian
    velocity = np.diff(poses[:, :3, 3], axis=0) / period_s
    speed = np.linalg.norm(velocity, axis=1)
    turning = rotation_angle(poses[:-1, :3, :3], poses[1:, :3, :3]) / period_s
    change = np.linalg.norm(np.diff(velocity, axis=0), axis=1) / period_s
    for name, values, limit, unit, code in (
        ("moves", speed, limits.speed_m_s, "m/s", FaultCode.VELOCITY_LIMIT),
        ("turns", turning, limits.speed_rad_s, "rad/s", FaultCode.VELOCITY_LIMIT),
        (
            "accelerates",
            change,
            settings.acceleration_factor * limits.acceleration_m_s2,
            "m/s^2",
            FaultCode.ACCELERATION_LIMIT,
        ),
    ):
        if (values > limit * (1.0 + 1e-6)).any():
            row = int(np.argmax(values > limit * (1.0 + 1e-6)))
            return ChunkFault(
                code=code,
                message=f"tool of {arm.name} {name} at {values[row]:.3g} {unit} from row {first + row} on, limit "
                f"{limit:.3g} {unit}; slow the chunk down or smooth it",
            )
    return None


def _check_reach(
    arm: ArmModel, spec: RobotSpec, poses: Array, first: int, period_s: float, measured: Array
) -> ChunkFault | None:
    chosen = np.unique(np.linspace(0, len(poses) - 1, min(len(poses), _MOST_SOLVED_ROWS)).astype(int))
    positions = measured[arm.places]
    before: Array | None = None
    for number, row in enumerate(chosen):
        positions, off_m, off_rad = arm.chain.nearest(
            pose_matrix(poses[row, :3, :3], poses[row, :3, 3]), positions, iterations=30, position_tolerance_m=1e-3
        )
        if off_m > 0.01 or off_rad > 0.05:
            return ChunkFault(
                code=FaultCode.UNREACHABLE,
                message=f"row {first + int(row)}: {arm.name} cannot reach {np.round(poses[row, :3, 3], 3).tolist()} m, "
                f"it comes within {1000 * off_m:.0f} mm and {np.degrees(off_rad):.0f} deg; keep nearer or turn less",
            )
        if before is not None:
            seconds = period_s * float(row - chosen[number - 1])
            speed = np.abs(positions - before) / seconds
            limit = spec.velocity[arm.places]
            # Twice the limit: the player slows single joints down, this stops what only a change of posture could do.
            if (speed > 2.0 * limit).any():
                joint = int(np.argmax(speed / limit))
                return ChunkFault(
                    code=FaultCode.VELOCITY_LIMIT,
                    message=f"row {first + int(row)} needs {spec.joints[int(arm.places[joint])].name} to turn at "
                    f"{speed[joint]:.3g} rad/s, limit {limit[joint]:.3g} rad/s; keep away from the stretched arm",
                )
        before = positions
    return None
