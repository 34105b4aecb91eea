# SPDX-License-Identifier: Apache-2.0
"""Describe where a robot's tool may go and how fast: kinematic chain, workspace box, table, speeds. No ROS, no torch.

Kept apart from RobotSpec: a cell may narrow its box without making a checkpoint's robot another one.
Frames: base (x forward, y left, z up, stated per robot); tool (x out of the gripper, y across the fingers, origin
between the finger pads). Units m, rad and s.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from chatvla_control.kinematics import Chain, Link
from chatvla_control.robot_spec import RobotSpec
from chatvla_control.rotations import pose_matrix, rotation_xyz

__all__ = ["POSE_WIDTH", "ArmCartesian", "CartesianSpec", "cartesian_names", "cartesian_spec"]

POSE_WIDTH = 10
"""Values per arm in a CARTESIAN_POSE row: x y z, 6D rotation, gripper opening."""

Vector = tuple[float, float, float]


@dataclass(frozen=True, kw_only=True)
class ArmCartesian:
    """One arm's chain and the limits of its tool."""

    base: Vector
    """Position of the first link's frame in the robot's base frame, m; not turned."""
    links: tuple[Link, ...]
    """One per rotary joint of the arm, in its order."""
    tool: Vector
    """Position of the tool frame in the last link's frame, m."""
    tool_roll_pitch_yaw: Vector
    """rad, fixed-axis x then y then z."""
    finger_reach_m: float
    """How far the finger tips reach beyond the tool point, along the tool's x."""
    lower: Vector
    """Lower corner of the tool point's workspace box in the base frame, m."""
    upper: Vector
    table_z_m: float
    """Height of the table's top in the base frame."""
    clearance_m: float
    """Distance the finger tips keep from the table."""
    joint_clearances_m: tuple[float, ...]
    """Height each joint's origin keeps above the table: the link's radius; 0 where a joint cannot come near."""
    highest_approach: float
    """Largest z of the unit vector out of the gripper: 0 is horizontal, -1 straight down."""
    speed_m_s: float
    """Largest speed of the tool point."""
    speed_rad_s: float
    """Largest speed at which the tool turns."""
    acceleration_m_s2: float
    """What a chunk's rows may ask of the tool point; joint accelerations bound what is executed."""
    source: str
    """Where the numbers come from."""


@dataclass(frozen=True, kw_only=True)
class CartesianSpec:
    """The arms of one robot, in the order of RobotSpec.arms."""

    arms: tuple[ArmCartesian, ...]
    guards_joint_chunks: bool
    """True: the tool's limits hold for JOINT_POSITION chunks too; False: for CARTESIAN_POSE chunks only."""

    @property
    def width(self) -> int:
        """Values in a CARTESIAN_POSE row."""
        return POSE_WIDTH * len(self.arms)

    def chains(self, spec: RobotSpec) -> tuple[Chain, ...]:
        """Return each arm's chain with the joint limits of `spec`."""
        chains: list[Chain] = []
        for arm, cartesian in zip(spec.arms, self.arms, strict=True):
            places = [spec.joint_names.index(name) for name in arm.joints]
            chains.append(
                Chain(
                    base=pose_matrix(np.eye(3), np.array(cartesian.base)),
                    links=cartesian.links,
                    tool=pose_matrix(rotation_xyz(*cartesian.tool_roll_pitch_yaw), np.array(cartesian.tool)),
                    lower=spec.lower[places],
                    upper=spec.upper[places],
                )
            )
        return tuple(chains)


def cartesian_spec(name: str) -> CartesianSpec | None:
    """Return the Cartesian data of robot `name`; None when it has none and plays joint positions only."""
    from chatvla_control.robots import CARTESIAN

    return CARTESIAN.get(name)


def cartesian_names(spec: RobotSpec) -> tuple[str, ...]:
    """Return names of a CARTESIAN_POSE row's values: ARM_x, ARM_y, ARM_z, ARM_r1 .. ARM_r6 and the gripper's name."""
    parts = ("x", "y", "z", *(f"r{number}" for number in range(1, 7)))
    return tuple(name for arm in spec.arms for name in (*(f"{arm.name}_{part}" for part in parts), arm.gripper))
