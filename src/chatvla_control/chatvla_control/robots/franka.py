# SPDX-License-Identifier: Apache-2.0
"""Franka Emika Panda with a Robotiq 2F-85 gripper, at 15 Hz (ChatVLA-2, section 4.2).

Base frame: panda_link0 (x forward, y left, z up), standing on the table: its top is z = 0.

Sources. Position and speed: Franka Control Interface documentation, "Robot and interface specifications", Panda joint
limits. Its accelerations are 15, 7.5, 10, 12.5, 15, 20, 20 rad/s^2; ours are half of those, since a 15 Hz grid leaves
the arm's own controller to fill in between ticks. Gripper: Robotiq 2F-85 manual, stroke 85 mm, 20 to 150 mm/s; its 0.6
m/s^2 is our own choice: full speed in 0.25 s, about four ticks. Chain: joint origins of Franka's own description
(panda_arm.xacro), equal to the DH table of the FCI documentation. Tool: 0.107 m to the flange, 0.163 m to the finger
tips (2F-85 manual), tool point 18 mm before them, between the pads; mounted like Franka's hand, turned by -45 degrees.
Tool speeds: the FCI documentation allows 1.7 m/s, 2.5 rad/s and 13 m/s^2; box, table and the lower speed are our own
choice for a table-top cell.
"""

from __future__ import annotations

import math

from chatvla_control.cartesian_spec import ArmCartesian, CartesianSpec
from chatvla_control.kinematics import Link
from chatvla_control.robot_spec import ArmSpec, JointSpec, RobotSpec

__all__ = ["FRANKA", "FRANKA_CARTESIAN", "PANDA_LINKS"]

_LOWER_RAD = (-2.8973, -1.7628, -2.8973, -3.0718, -2.8973, -0.0175, -2.8973)
_UPPER_RAD = (2.8973, 1.7628, 2.8973, -0.0698, 2.8973, 3.7525, 2.8973)
_SPEED_RAD_S = (2.175, 2.175, 2.175, 2.175, 2.61, 2.61, 2.61)
_ACCELERATION_RAD_S2 = (7.5, 3.75, 5.0, 6.25, 7.5, 10.0, 10.0)
_GRIPPER_WIDTH_M = 0.085
_SOURCE = "position, speed: Franka Control Interface documentation, Panda; acceleration: half of that document's"

_JOINTS = tuple(
    JointSpec(
        name=f"panda_joint{index + 1}",
        unit="rad",
        lower=_LOWER_RAD[index],
        upper=_UPPER_RAD[index],
        velocity=_SPEED_RAD_S[index],
        acceleration=_ACCELERATION_RAD_S2[index],
        source=_SOURCE,
    )
    for index in range(7)
)
_GRIPPER = JointSpec(
    name="gripper",
    unit="m",
    lower=0.0,
    upper=_GRIPPER_WIDTH_M,
    velocity=0.15,
    acceleration=0.6,
    source="stroke, speed: Robotiq 2F-85 manual; acceleration: our own",
)

FRANKA = RobotSpec(
    name="franka",
    joints=(*_JOINTS, _GRIPPER),
    arms=(ArmSpec(name="arm", joints=tuple(joint.name for joint in _JOINTS), gripper="gripper"),),
    rate_hz=15.0,
    home=(0.0, -math.pi / 4, 0.0, -3 * math.pi / 4, 0.0, math.pi / 2, math.pi / 4, _GRIPPER_WIDTH_M),
    base_frame="panda_link0",
)
"""Joint order: panda_joint1..7, gripper; home is the pose of Franka's own examples."""

_QUARTER = math.pi / 2
_Z = (0.0, 0.0, 1.0)
PANDA_LINKS = (
    Link(offset=(0.0, 0.0, 0.333), axis=_Z),
    Link(offset=(0.0, 0.0, 0.0), axis=_Z, roll_pitch_yaw=(-_QUARTER, 0.0, 0.0)),
    Link(offset=(0.0, -0.316, 0.0), axis=_Z, roll_pitch_yaw=(_QUARTER, 0.0, 0.0)),
    Link(offset=(0.0825, 0.0, 0.0), axis=_Z, roll_pitch_yaw=(_QUARTER, 0.0, 0.0)),
    Link(offset=(-0.0825, 0.384, 0.0), axis=_Z, roll_pitch_yaw=(-_QUARTER, 0.0, 0.0)),
    Link(offset=(0.0, 0.0, 0.0), axis=_Z, roll_pitch_yaw=(_QUARTER, 0.0, 0.0)),
    Link(offset=(0.088, 0.0, 0.0), axis=_Z, roll_pitch_yaw=(_QUARTER, 0.0, 0.0)),
)

FRANKA_CARTESIAN = CartesianSpec(
    arms=(
        ArmCartesian(
            base=(0.0, 0.0, 0.0),
            links=PANDA_LINKS,
            tool=(0.0, 0.0, 0.107 + 0.145),
            tool_roll_pitch_yaw=(0.0, -_QUARTER, -math.pi / 4),
            finger_reach_m=0.018,
            lower=(0.20, -0.60, 0.005),
            upper=(0.80, 0.60, 0.80),
            table_z_m=0.0,
            clearance_m=0.002,
            joint_clearances_m=(0.0, 0.0, 0.0, 0.09, 0.08, 0.08, 0.07),
            highest_approach=math.sin(math.radians(10.0)),
            speed_m_s=1.0,
            speed_rad_s=2.5,
            acceleration_m_s2=6.5,
            source="chain, speeds: Franka Control Interface documentation; gripper: Robotiq 2F-85 manual; box: our own",
        ),
    ),
    guards_joint_chunks=True,
)
