# SPDX-License-Identifier: Apache-2.0
"""Universal Robots UR5e with a Robotiq 2F-85 gripper, at 20 Hz: the example of docs/add_a_robot.md.

Sources. Position and speed: UR5e user manual 5.8, as in joint_limits.yaml of Universal_Robots_ROS2_Description (the
elbow at half its range, as there). Accelerations are not published; ours is that file's 180 deg/s^2. Chain: the maker's
DH table, "DH parameters for calculations of kinematics and dynamics", UR5e. Gripper: see franka.py. Base frame:
base_link of that description (x forward, y left, z up), standing on the table: its top is z = 0.
"""

from __future__ import annotations

import math

from chatvla_control.cartesian_spec import ArmCartesian, CartesianSpec
from chatvla_control.kinematics import Link
from chatvla_control.robot_spec import ArmSpec, JointSpec, RobotSpec

__all__ = ["UR5E", "UR5E_CARTESIAN"]

_NAMES = ("shoulder_pan_joint", "shoulder_lift_joint", "elbow_joint", "wrist_1_joint", "wrist_2_joint", "wrist_3_joint")
_REACH_RAD = (2 * math.pi, 2 * math.pi, math.pi, 2 * math.pi, 2 * math.pi, 2 * math.pi)
_QUARTER = math.pi / 2
_Z = (0.0, 0.0, 1.0)

_JOINTS = tuple(
    JointSpec(
        name=name,
        unit="rad",
        lower=-reach,
        upper=reach,
        velocity=math.pi,
        acceleration=math.pi,
        source="position, speed: UR5e user manual 5.8; acceleration: joint_limits.yaml of ur_description",
    )
    for name, reach in zip(_NAMES, _REACH_RAD, strict=True)
)
_GRIPPER = JointSpec(
    name="gripper",
    unit="m",
    lower=0.0,
    upper=0.085,
    velocity=0.15,
    acceleration=0.6,
    source="stroke, speed: Robotiq 2F-85 manual; acceleration: our own",
)

UR5E = RobotSpec(
    name="ur5e",
    joints=(*_JOINTS, _GRIPPER),
    arms=(ArmSpec(name="arm", joints=_NAMES, gripper="gripper"),),
    rate_hz=20.0,
    home=(0.0, -_QUARTER, _QUARTER, -_QUARTER, -_QUARTER, 0.0, 0.085),
    base_frame="base_link",
)
"""Joint order: the maker's, from the base out, then the gripper; at home the gripper points down."""

UR5E_CARTESIAN = CartesianSpec(
    arms=(
        ArmCartesian(
            base=(0.0, 0.0, 0.0),
            # The DH table counts from the controller's base frame, turned by half against base_link.
            links=(
                Link(offset=(0.0, 0.0, 0.0), axis=_Z, roll_pitch_yaw=(0.0, 0.0, math.pi)),
                Link(offset=(0.0, 0.0, 0.1625), axis=_Z, roll_pitch_yaw=(_QUARTER, 0.0, 0.0)),
                Link(offset=(-0.425, 0.0, 0.0), axis=_Z),
                Link(offset=(-0.3922, 0.0, 0.0), axis=_Z),
                Link(offset=(0.0, 0.0, 0.1333), axis=_Z, roll_pitch_yaw=(_QUARTER, 0.0, 0.0)),
                Link(offset=(0.0, 0.0, 0.0997), axis=_Z, roll_pitch_yaw=(-_QUARTER, 0.0, 0.0)),
            ),
            tool=(0.0, 0.0, 0.0996 + 0.145),
            tool_roll_pitch_yaw=(0.0, -_QUARTER, 0.0),
            finger_reach_m=0.018,
            lower=(0.20, -0.60, 0.005),
            upper=(0.80, 0.60, 0.80),
            table_z_m=0.0,
            clearance_m=0.002,
            joint_clearances_m=(0.0, 0.0, 0.06, 0.05, 0.05, 0.05),
            highest_approach=math.sin(math.radians(10.0)),
            speed_m_s=1.0,
            speed_rad_s=3.0,
            acceleration_m_s2=6.0,
            source="chain: the maker's DH table; gripper: Robotiq 2F-85 manual; box and speeds: our own",
        ),
    ),
    guards_joint_chunks=True,
)
