# SPDX-License-Identifier: Apache-2.0
"""The Franka Emika Panda with a parallel gripper of 85 mm: kinematic chain and MuJoCo body of primitive shapes.

Joint origins and tool are the robot's own (chatvla_control, Cartesian data), joint limits the RobotSpec's. Link shapes
are coarse capsules after franka_description's Panda; link masses as identified by Gaz et al. 2019, rounded. The gripper
has the stroke and the length of a Robotiq 2F-85, with two sliding fingers in place of its linkage. Servo gains are our
choice.
Tool frame: x out of the gripper (approach), y across the fingers. Units m, kg, rad, Nm, N.
"""

from __future__ import annotations

from dataclasses import dataclass

import mujoco
import numpy as np

from chatvla_control.cartesian_spec import ArmCartesian, cartesian_spec
from chatvla_control.kinematics import Chain, Link, pose_matrix, rotation_xyz
from chatvla_control.robot_spec import ArmSpec, RobotSpec

__all__ = ["HELD_JOINT", "elbow_up_chain", "panda_actuators_xml", "panda_body_xml", "panda_chain"]

FLANGE_M = 0.107
"""From the last joint to the flange, along its axis."""
HELD_JOINT = 2
"""Number of the joint that `elbow_up_chain` holds at 0."""
TORQUE_NM = (87.0, 87.0, 87.0, 87.0, 12.0, 12.0, 12.0)
POSITION_GAINS = (4500.0, 4500.0, 3500.0, 3500.0, 2000.0, 2000.0, 2000.0)
GRIPPER_FORCE_N = 40.0
GRIPPER_GAINS = (2500.0, 80.0)
PAD_HALF_M = (0.026, 0.006, 0.011)
WRIST_CAMERA_M = (0.02, 0.0, -0.075)
"""Place of the camera `wrist` in the hand's frame: on the side that faces away from the robot."""
WRIST_FOVY_DEG = 66.0

WHITE, DARK, STEEL = "0.9 0.91 0.93 1", "0.15 0.16 0.18 1", "0.42 0.44 0.47 1"


@dataclass(frozen=True, kw_only=True)
class Body:
    """Mass and shapes of one link; shapes are MuJoCo geom attributes without class and name."""

    mass: float
    centre: tuple[float, float, float]
    shapes: tuple[str, ...]


def capsule(radius: float, start: str, end: str, colour: str = WHITE) -> str:
    return f'type="capsule" size="{radius}" fromto="{start} {end}" rgba="{colour}"'


BODIES = (
    Body(mass=3.0, centre=(0, 0, -0.07), shapes=(capsule(0.06, "0 0 -.19", "0 0 0"),)),
    Body(mass=1.0, centre=(0, -0.03, 0), shapes=(capsule(0.06, "0 0 -.06", "0 0 .06"),)),
    Body(
        mass=3.2,
        centre=(0.03, 0, -0.07),
        shapes=(capsule(0.058, "0 0 -.22", "0 0 -.05"), capsule(0.045, "0 0 -.05", ".0825 0 0")),
    ),
    Body(mass=3.6, centre=(-0.05, 0.1, 0), shapes=(capsule(0.058, "0 0 -.06", "0 0 .06"),)),
    Body(
        mass=1.2,
        centre=(0, 0.04, -0.1),
        shapes=(
            capsule(0.056, "0 0 -.33", "0 0 -.21"),
            capsule(0.028, "0 .06 -.22", "0 .085 -.06"),
            capsule(0.05, "0 0 -.02", "0 .03 -.05"),
        ),
    ),
    Body(
        mass=1.7,
        centre=(0.06, -0.02, 0),
        shapes=(capsule(0.05, "0 0 -.07", "0 0 .01"), capsule(0.045, "0 0 0", ".088 0 0")),
    ),
    Body(mass=0.7, centre=(0, 0, 0.06), shapes=(capsule(0.04, "0 0 -.04", "0 0 .06"),)),
)


def arm_cartesian(spec: RobotSpec) -> ArmCartesian:
    """Return links and tool of the robot's one arm."""
    found = cartesian_spec(spec.name)
    if found is None or len(found.arms) != 1:
        raise ValueError(f"robot {spec.name!r} has no Cartesian data of one arm")
    return found.arms[0]


def panda_chain(spec: RobotSpec) -> Chain:
    """Return the kinematic chain of the robot's one arm, with the limits of `spec`."""
    found = cartesian_spec(spec.name)
    if found is None:
        raise ValueError(f"robot {spec.name!r} has no Cartesian data")
    (chain,) = found.chains(spec)
    return chain


def elbow_up_chain(spec: RobotSpec) -> Chain:
    """Return the chain with joint 3 held at 0: 6 joints, so that a tool pose has one answer, elbow straight above."""
    arm = arm_cartesian(spec)
    third, fourth = arm.links[2], arm.links[3]
    turn = rotation_xyz(*third.roll_pitch_yaw)
    # Both turn about the same axis, so that their angles add.
    merged = Link(
        offset=tuple(np.add(third.offset, turn @ fourth.offset).tolist()),
        axis=fourth.axis,
        roll_pitch_yaw=tuple(np.add(third.roll_pitch_yaw, fourth.roll_pitch_yaw).tolist()),
    )
    kept = [spec.joint_names.index(name) for number, name in enumerate(spec.arms[0].joints) if number != HELD_JOINT]
    return Chain(
        base=pose_matrix(np.eye(3), np.array(arm.base)),
        links=(*arm.links[:2], merged, *arm.links[4:]),
        tool=pose_matrix(rotation_xyz(*arm.tool_roll_pitch_yaw), np.array(arm.tool)),
        lower=spec.lower[kept],
        upper=spec.upper[kept],
    )


def numbers(values: tuple[float, ...]) -> str:
    return " ".join(f"{value:.6g}" for value in values)


def wrist_axes(tip_m: float) -> str:
    """Return the wrist camera's x and y axes in the hand's frame: it looks at the finger tips, `tip_m` ahead."""
    forward = np.array([tip_m, 0.0, 0.0]) - WRIST_CAMERA_M
    forward /= np.linalg.norm(forward)
    # The hand's z points back to the robot: what is farther from the robot is up in the picture.
    right = np.cross(forward, [0.0, 0.0, -1.0])
    right /= np.linalg.norm(right)
    return numbers((*right.tolist(), *np.cross(right, forward).tolist()))


def gripper_xml(spec: RobotSpec, arm: ArmSpec) -> str:
    cartesian = arm_cartesian(spec)
    width = spec.upper[spec.joint_names.index(arm.gripper)]
    quaternion = np.zeros(4)
    mujoco.mju_mat2Quat(quaternion, rotation_xyz(*cartesian.tool_roll_pitch_yaw).flatten())
    # In the hand's frame, which is the tool's moved back to the flange.
    tip = cartesian.tool[2] - FLANGE_M + cartesian.finger_reach_m
    xml = (
        f'<body name="{arm.name}_hand" pos="0 0 {FLANGE_M}" quat="{numbers(tuple(quaternion))}" gravcomp="1">'
        '<inertial pos=".05 0 0" mass=".9" diaginertia="1e-3 1e-3 1e-3"/>'
        f'<geom type="cylinder" size=".037 .012" pos=".012 0 0" euler="0 1.5708 0" rgba="{STEEL}"/>'
        f'<geom type="box" size=".034 .036 .026" pos=".058 0 0" rgba="{DARK}"/>'
        f'<camera name="wrist" pos="{numbers(WRIST_CAMERA_M)}" xyaxes="{wrist_axes(tip)}" fovy="{WRIST_FOVY_DEG}"/>'
    )
    for side, sign in (("a", 1), ("b", -1)):
        y = sign * PAD_HALF_M[1]
        xml += (
            f'<body name="{arm.name}_finger_{side}" gravcomp="1">'
            f'<joint name="{arm.gripper}_{side}" type="slide" axis="0 {sign} 0" range="0 {width / 2:.6g}"'
            ' damping="10" armature=".05"/>'
            f'<inertial pos="{tip - 0.04:.4g} 0 0" mass=".06" diaginertia="3e-5 3e-5 3e-5"/>'
            f'<geom name="{arm.name}_pad_{side}" type="box" size="{numbers(PAD_HALF_M)}"'
            f' pos="{tip - PAD_HALF_M[0]:.6g} {y:.6g} 0" friction="1.5 .02 .001" condim="4" priority="1"'
            f' solref=".004 1" rgba="{STEEL}"/>'
            f'<geom class="visual" type="box" size=".016 .007 .012" rgba="{DARK}"'
            f' pos="{tip - 2 * PAD_HALF_M[0] - 0.014:.4g} {y:.4g} 0"/></body>'
        )
    return xml + "</body>"


def panda_body_xml(spec: RobotSpec, arm: ArmSpec) -> str:
    """Return the MJCF body of `arm` at the origin; joints carry the RobotSpec's names and limits.

    Its shapes are of the default class named like the arm; the finger links need the class "visual" too.
    """
    xml = (
        f'<body name="{arm.name}_base" childclass="{arm.name}">'
        f"<geom {capsule(0.06, '-.09 0 .06', '0 0 .06')}/>"
        f'<geom type="cylinder" size=".07 .07" pos="0 0 .07" rgba="{WHITE}"/>'
    )
    for link, body, name in zip(arm_cartesian(spec).links, BODIES, arm.joints, strict=True):
        joint = spec.joints[spec.joint_names.index(name)]
        xml += (
            f'<body name="{name}_link" pos="{numbers(link.offset)}" euler="{numbers(link.roll_pitch_yaw)}"'
            ' gravcomp="1">'
            f'<joint name="{name}" axis="0 0 1" armature=".1" range="{joint.lower:.6g} {joint.upper:.6g}"/>'
            f'<inertial pos="{numbers(body.centre)}" mass="{body.mass}"'
            f' diaginertia="{numbers((body.mass * 0.006,) * 3)}"/>'
        )
        xml += "".join(f"<geom {shape}/>" for shape in body.shapes)
    return xml + gripper_xml(spec, arm) + "</body>" * (len(arm.joints) + 1)


def panda_actuators_xml(spec: RobotSpec, arm: ArmSpec) -> tuple[str, str, str]:
    """Return MJCF for <actuator>, <tendon> and <equality>: position servos named like the RobotSpec's joints."""
    actuators = "".join(
        f'<position name="{name}" joint="{name}" kp="{kp:g}" kv="{kp / 20:g}"'
        f' inheritrange="1" forcerange="-{torque:g} {torque:g}"/>'
        for name, kp, torque in zip(arm.joints, POSITION_GAINS, TORQUE_NM, strict=True)
    )
    width = spec.upper[spec.joint_names.index(arm.gripper)]
    kp, kv = GRIPPER_GAINS
    actuators += (
        f'<position name="{arm.gripper}" tendon="{arm.gripper}" kp="{kp:g}" kv="{kv:g}" ctrlrange="0 {width:.6g}"'
        f' forcerange="-{GRIPPER_FORCE_N:g} {GRIPPER_FORCE_N:g}"/>'
    )
    tendon = (
        f'<fixed name="{arm.gripper}"><joint joint="{arm.gripper}_a" coef="1"/>'
        f'<joint joint="{arm.gripper}_b" coef="1"/></fixed>'
    )
    equality = f'<joint joint1="{arm.gripper}_a" joint2="{arm.gripper}_b" solref=".004 1"/>'
    return actuators, tendon, equality
