# SPDX-License-Identifier: Apache-2.0
"""ARX R5, two arms with 6 rotary joints and a gripper each, at 50 Hz (ChatVLA-2, section 4.1: 14-dim state and action).

Sources. Position, speed and gripper: the X5 configuration built into arx5_interface 0.1.5 (`RobotConfigFactory`,
`joint_pos_min`, `joint_pos_max`, `joint_vel_max`, `gripper_width`, `gripper_vel_max`); the R5 shares the X5's motors
and link lengths (X5liteaa0.urdf of arx-r5-sdk 1.0.0). Neither source states accelerations. Ours: 20 rad/s^2 for each
joint, far below what the motors can do (torque 30 Nm at the shoulder against about 0.5 kg m^2 of stretched arm and 12
Nm of gravity leaves 36 rad/s^2), so full speed takes 0.25 s. Gripper 3 m/s^2: full speed in 0.1 s. Chain: joint
origins of X5.urdf in arx5_interface 0.1.5. Base frame: on the table between the arms, which stand at y = +-0.28 m.
"""

from __future__ import annotations

from chatvla_control.cartesian_spec import ArmCartesian, CartesianSpec
from chatvla_control.kinematics import Link
from chatvla_control.robot_spec import ArmSpec, JointSpec, RobotSpec

__all__ = ["ARX_R5", "ARX_R5_CARTESIAN", "FINGER_REACH_M", "TOOL_OFFSET_M", "X5_LINKS"]

_LOWER_RAD = (-3.14, -0.05, -0.1, -1.6, -1.57, -2.0)
_UPPER_RAD = (2.618, 3.5, 3.2, 1.55, 1.57, 2.0)
_SPEED_RAD_S = (5.0, 5.0, 5.5, 5.5, 5.0, 5.0)
_ACCELERATION_RAD_S2 = 20.0
_GRIPPER_WIDTH_M = 0.088
_GRIPPER_SPEED_M_S = 0.3
_GRIPPER_ACCELERATION_M_S2 = 3.0
_SOURCE = "position, speed: arx5_interface 0.1.5, X5 configuration; acceleration: our own, conservative"

_ARM_HOME_RAD = (0.0, 1.0, 0.9, -0.6, 0.0, 0.0)


def _arm(side: str) -> tuple[JointSpec, ...]:
    rotary = tuple(
        JointSpec(
            name=f"{side}_joint{index + 1}",
            unit="rad",
            lower=_LOWER_RAD[index],
            upper=_UPPER_RAD[index],
            velocity=_SPEED_RAD_S[index],
            acceleration=_ACCELERATION_RAD_S2,
            source=_SOURCE,
        )
        for index in range(6)
    )
    gripper = JointSpec(
        name=f"{side}_gripper",
        unit="m",
        lower=0.0,
        upper=_GRIPPER_WIDTH_M,
        velocity=_GRIPPER_SPEED_M_S,
        acceleration=_GRIPPER_ACCELERATION_M_S2,
        source=_SOURCE,
    )
    return (*rotary, gripper)


ARX_R5 = RobotSpec(
    name="arx_r5",
    joints=(*_arm("left"), *_arm("right")),
    arms=tuple(
        ArmSpec(name=side, joints=tuple(f"{side}_joint{index + 1}" for index in range(6)), gripper=f"{side}_gripper")
        for side in ("left", "right")
    ),
    rate_hz=50.0,
    home=(*_ARM_HOME_RAD, _GRIPPER_WIDTH_M, *_ARM_HOME_RAD, _GRIPPER_WIDTH_M),
)
"""Joint order: left joint1..6, left gripper, right joint1..6, right gripper."""

_FLIP = (-3.1416, 0.0, 0.0)
X5_LINKS = (
    Link(offset=(0.0, 0.0, 0.0603), axis=(0, 0, 1)),
    Link(offset=(0.02, 0.0, 0.0402), axis=(0, 1, 0)),
    Link(offset=(-0.264, 0.0, 0.0), axis=(0, 1, 0), roll_pitch_yaw=_FLIP),
    Link(offset=(0.245, 0.0, -0.056), axis=(0, 1, 0)),
    Link(offset=(0.06575, -0.001, -0.0825), axis=(0, 0, 1)),
    Link(offset=(0.02845, 0.0, 0.0825), axis=(1, 0, 0), roll_pitch_yaw=_FLIP),
)
TOOL_OFFSET_M = 0.145
"""From the last joint to the tool point between the fingers, along x."""
FINGER_REACH_M = 0.020
"""How far the finger tips reach beyond the tool point."""

ARX_R5_CARTESIAN = CartesianSpec(
    arms=tuple(
        ArmCartesian(
            base=(0.0, y_m, 0.0),
            links=X5_LINKS,
            tool=(TOOL_OFFSET_M, 0.0, 0.0),
            tool_roll_pitch_yaw=(0.0, 0.0, 0.0),
            finger_reach_m=FINGER_REACH_M,
            lower=(0.05, -0.60, 0.005),
            upper=(0.60, 0.60, 0.60),
            table_z_m=0.0,
            clearance_m=0.001,
            joint_clearances_m=(0.0, 0.0, 0.0, 0.03, 0.03, 0.03),
            highest_approach=0.5,
            speed_m_s=1.5,
            speed_rad_s=5.0,
            acceleration_m_s2=10.0,
            source="chain: X5.urdf of arx5_interface 0.1.5; box and speeds: our own",
        )
        for y_m in (0.28, -0.28)
    ),
    # The bench's own motions are judged by their joints; no tool limit is known for the real arms.
    guards_joint_chunks=False,
)
