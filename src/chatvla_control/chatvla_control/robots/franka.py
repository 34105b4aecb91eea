# SPDX-License-Identifier: Apache-2.0
"""Franka Emika Panda with a Robotiq 2F-85 gripper, at 15 Hz (ChatVLA-2, section 4.2).

Sources. Position and speed: Franka Control Interface documentation, "Robot and interface specifications", Panda joint
limits. Its accelerations are 15, 7.5, 10, 12.5, 15, 20, 20 rad/s^2; ours are half of those, since a 15 Hz grid leaves
the arm's own controller to fill in between ticks. Gripper: Robotiq 2F-85 manual, stroke 85 mm, 20 to 150 mm/s; its 0.6
m/s^2 is our own choice: full speed in 0.25 s, about four ticks.
"""

from __future__ import annotations

import math

from chatvla_control.robot_spec import ArmSpec, JointSpec, RobotSpec

__all__ = ["FRANKA"]

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
