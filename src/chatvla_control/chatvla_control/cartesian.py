# SPDX-License-Identifier: Apache-2.0
"""Turn joint positions into CARTESIAN_POSE rows and back, for every robot with a CartesianSpec. No ROS, no simulator.

A row holds, per arm in the order of RobotSpec.arms: x y z [m], 6D rotation (see rotations.py), gripper opening [m], all
in the robot's base frame. T rows, A arms, D joints.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from chatvla_control.cartesian_spec import POSE_WIDTH, ArmCartesian, CartesianSpec, cartesian_spec
from chatvla_control.kinematics import Chain, IkError
from chatvla_control.robot_spec import RobotSpec
from chatvla_control.rotations import matrix_from_six, pose_matrix, six_from_matrix

__all__ = ["ArmModel", "arm_models", "cartesian_rows", "joint_rows", "tool_poses"]

Array = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class ArmModel:
    """One arm: where its joints and its gripper stand in the robot's vectors, its chain and its limits."""

    name: str
    places: NDArray[np.intp]
    """Indices of the rotary joints in RobotSpec order."""
    gripper: int
    """Index of the gripper in RobotSpec order."""
    column: int
    """First column of the arm in a CARTESIAN_POSE row."""
    chain: Chain
    cartesian: ArmCartesian


@lru_cache(maxsize=16)
def arm_models(spec: RobotSpec, cartesian: CartesianSpec | None = None) -> tuple[ArmModel, ...]:
    """Return the arms of `spec`; empty for a robot without Cartesian data."""
    cartesian = cartesian or cartesian_spec(spec.name)
    if cartesian is None:
        return ()
    names = spec.joint_names
    return tuple(
        ArmModel(
            name=arm.name,
            places=np.array([names.index(joint) for joint in arm.joints]),
            gripper=names.index(arm.gripper),
            column=place * POSE_WIDTH,
            chain=chain,
            cartesian=limits,
        )
        for place, (arm, chain, limits) in enumerate(
            zip(spec.arms, cartesian.chains(spec), cartesian.arms, strict=True)
        )
    )


def tool_poses(spec: RobotSpec, positions: Array) -> Array:
    """Return base_from_tool of each arm, shape (A, 4, 4), at joint positions [rad, m], shape (D,).

    Raises ValueError for a robot without Cartesian data.
    """
    return np.stack([arm.chain.forward(positions[arm.places]) for arm in _arms(spec)])


def cartesian_rows(spec: RobotSpec, rows: Array) -> Array:
    """Return CARTESIAN_POSE rows, shape (T, 10 A), of joint rows [rad, m], shape (T, D). Raises ValueError as above."""
    parts: list[Array] = []
    for arm in _arms(spec):
        poses = arm.chain.forward(rows[:, arm.places])
        parts += [poses[:, :3, 3], six_from_matrix(poses[:, :3, :3]), rows[:, [arm.gripper]]]
    return np.concatenate(parts, axis=1)


def joint_rows(spec: RobotSpec, rows: Array, *, start: Array) -> Array:
    """Return joint rows [rad, m], shape (T, D), of CARTESIAN_POSE rows (T, 10 A).

    Row by row from `start` [rad, m], shape (D,), so that the arm keeps its posture. Raises IkError when a row cannot be
    reached, ValueError when its rotation is none or the robot has no Cartesian data.
    """
    solved = np.repeat(start[None].astype(np.float64), len(rows), axis=0)
    for arm in _arms(spec):
        rotations = matrix_from_six(rows[:, arm.column + 3 : arm.column + 9])
        positions = start[arm.places]
        for number, row in enumerate(rows):
            target = pose_matrix(rotations[number], row[arm.column : arm.column + 3])
            try:
                positions = arm.chain.inverse(target, positions)
            except IkError as error:
                raise IkError(f"row {number} of {arm.name}: {error}") from error
            solved[number, arm.places] = positions
        solved[:, arm.gripper] = rows[:, arm.column + POSE_WIDTH - 1]
    return solved


def _arms(spec: RobotSpec) -> tuple[ArmModel, ...]:
    arms = arm_models(spec)
    if not arms:
        raise ValueError(
            f"robot {spec.name!r} has no Cartesian data; send joint positions or add a CartesianSpec (docs/robots.md)"
        )
    return arms
