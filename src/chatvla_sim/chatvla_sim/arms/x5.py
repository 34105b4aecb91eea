# SPDX-License-Identifier: Apache-2.0
"""The ARX X5/R5 arm: its dimensions, as a kinematic chain and as a MuJoCo body of primitive shapes.

Lengths and masses from X5.urdf of arx5_interface 0.1.5 (joint origins, link masses, eef_link). Joint limits come from
the RobotSpec and are not repeated here. Torque limits from the same package's X5 configuration. Servo gains are our
choice.
Tool frame: x out of the gripper (approach), y across the fingers, z up at the zero pose. Units m, kg, rad, Nm.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from chatvla_control.kinematics import Chain, pose_matrix
from chatvla_control.robot_spec import ArmSpec, RobotSpec
from chatvla_control.robots.arx_r5 import FINGER_REACH_M, TOOL_OFFSET_M, X5_LINKS

__all__ = ["FINGER_REACH_M", "TOOL_OFFSET_M", "X5_LINKS", "arm_actuators_xml", "arm_body_xml", "arm_chain", "pad_geoms"]

TORQUE_NM = (30.0, 40.0, 30.0, 15.0, 10.0, 10.0)
GRIPPER_FORCE_N = 20.0
POSITION_GAINS = (400.0, 400.0, 300.0, 150.0, 80.0, 60.0)
VELOCITY_GAINS = (20.0, 20.0, 15.0, 6.0, 3.0, 2.0)
GRIPPER_GAINS = (600.0, 20.0)

WHITE, DARK, STEEL = "0.86 0.87 0.89 1", "0.16 0.17 0.19 1", "0.45 0.47 0.5 1"
PAD_HALF_M = (0.034, 0.005, 0.011)


@dataclass(frozen=True, kw_only=True)
class Body:
    """Mass and shapes of one link; shapes are MuJoCo geom attributes without class and name."""

    mass: float
    centre: tuple[float, float, float]
    shapes: tuple[str, ...]


BODIES = (
    Body(mass=0.3, centre=(0.0, 0, 0.02), shapes=(f'type="cylinder" size=".042 .022" pos="0 0 .012" rgba="{DARK}"',)),
    Body(
        mass=1.165,
        centre=(-0.132, 0, 0),
        shapes=(
            f'type="cylinder" size=".036 .042" euler="1.5708 0 0" rgba="{DARK}"',
            f'type="capsule" size=".026" fromto="-.03 0 0 -.234 0 0" rgba="{WHITE}"',
            f'type="cylinder" size=".033 .040" pos="-.264 0 0" euler="1.5708 0 0" rgba="{DARK}"',
        ),
    ),
    Body(
        mass=0.546,
        centre=(0.19, 0, -0.053),
        shapes=(
            f'type="capsule" size=".022" fromto="0 0 0 .05 0 -.056" rgba="{WHITE}"',
            f'type="capsule" size=".022" fromto=".05 0 -.056 .235 0 -.056" rgba="{WHITE}"',
        ),
    ),
    Body(
        mass=0.12,
        centre=(0.03, 0, -0.031),
        shapes=(
            f'type="cylinder" size=".027 .030" euler="1.5708 0 0" rgba="{DARK}"',
            f'type="box" size=".028 .024 .014" pos=".040 0 -.048" euler="0 .5 0" rgba="{WHITE}"',
        ),
    ),
    Body(
        mass=0.5,
        centre=(0.004, 0, 0.051),
        shapes=(
            f'type="cylinder" size=".024 .020" rgba="{DARK}"',
            f'type="capsule" size=".020" fromto="0 0 .02 0 0 .08" rgba="{WHITE}"',
        ),
    ),
    Body(
        mass=0.45,
        centre=(0.045, 0, 0),
        shapes=(
            f'type="cylinder" size=".026 .020" pos=".01 0 0" euler="0 1.5708 0" rgba="{DARK}"',
            f'type="box" size=".024 .050 .020" pos=".054 0 0" rgba="{WHITE}"',
        ),
    ),
)


def arm_chain(spec: RobotSpec, arm: ArmSpec, base: tuple[float, float, float]) -> Chain:
    """Return the kinematic chain of `arm` standing at `base` [m], with the limits of `spec`."""
    index = [spec.joint_names.index(name) for name in arm.joints]
    tool: NDArray[np.float64] = pose_matrix(np.eye(3), np.array([TOOL_OFFSET_M, 0.0, 0.0]))
    return Chain(
        base=pose_matrix(np.eye(3), np.array(base)),
        links=X5_LINKS,
        tool=tool,
        lower=spec.lower[index],
        upper=spec.upper[index],
    )


def pad_geoms(arm: ArmSpec) -> tuple[str, str]:
    """Names of the two finger pads' geoms: those that grip."""
    return (f"{arm.name}_pad_a", f"{arm.name}_pad_b")


def numbers(values: tuple[float, ...]) -> str:
    return " ".join(f"{value:.6g}" for value in values)


def fingers_xml(spec: RobotSpec, arm: ArmSpec) -> str:
    width = spec.upper[spec.joint_names.index(arm.gripper)]
    tip = TOOL_OFFSET_M + FINGER_REACH_M
    parts = []
    for side, sign in (("a", 1), ("b", -1)):
        parts.append(
            f'<body name="{arm.name}_finger_{side}" pos="0 0 0" gravcomp="1">'
            f'<joint name="{arm.gripper}_{side}" type="slide" axis="0 {sign} 0" range="0 {width / 2:.6g}"'
            ' damping="4" armature=".02"/>'
            f'<inertial pos="{tip - 0.04:.4g} 0 0" mass=".04" diaginertia="2e-5 2e-5 2e-5"/>'
            f'<geom name="{arm.name}_pad_{side}" type="box" size="{numbers(PAD_HALF_M)}"'
            f' pos="{tip - PAD_HALF_M[0]:.6g} {sign * PAD_HALF_M[1]:.6g} 0"'
            ' friction="1.5 .02 .001" condim="4" priority="1"'
            f' solref=".004 1" rgba="{STEEL}"/>'
            f'<geom type="box" size=".012 .012 .012" pos=".088 {sign * 0.012:.4g} 0" rgba="{DARK}"'
            ' contype="0" conaffinity="0"/>'
            "</body>"
        )
    return "".join(parts)


def arm_body_xml(spec: RobotSpec, arm: ArmSpec, base: tuple[float, float, float]) -> str:
    """Return the MJCF body of `arm` standing at `base` [m]; joints carry the RobotSpec's names and limits.

    Its shapes are of the default class named like the arm.

    Fingers are the two slide joints `<gripper>_a` and `<gripper>_b`, each half of the opening.
    """
    xml = (
        f'<body name="{arm.name}_base" pos="{numbers(base)}" childclass="{arm.name}">'
        f'<geom type="cylinder" size=".05 .026" pos="0 0 .026" rgba="{DARK}"/>'
    )
    for link, body, name in zip(X5_LINKS, BODIES, arm.joints, strict=True):
        joint = spec.joints[spec.joint_names.index(name)]
        roll = ' euler="-3.1416 0 0"' if any(link.roll_pitch_yaw) else ""
        xml += (
            f'<body name="{name}_link" pos="{numbers(link.offset)}"{roll} gravcomp="1">'
            f'<joint name="{name}" axis="{numbers(link.axis)}" armature=".02"'
            f' range="{joint.lower:.6g} {joint.upper:.6g}"/>'
            f'<inertial pos="{numbers(body.centre)}" mass="{body.mass}"'
            f' diaginertia="{numbers((body.mass * 0.0015,) * 3)}"/>'
        )
        xml += "".join(f"<geom {shape}/>" for shape in body.shapes)
    return xml + fingers_xml(spec, arm) + "</body>" * (len(X5_LINKS) + 1)


def arm_actuators_xml(spec: RobotSpec, arm: ArmSpec) -> tuple[str, str, str]:
    """Return MJCF for <actuator>, <tendon> and <equality>: position servos named like the RobotSpec's joints."""
    actuators = "".join(
        f'<position name="{name}" joint="{name}" kp="{kp:g}" kv="{kv:g}"'
        f' inheritrange="1" forcerange="-{torque:g} {torque:g}"/>'
        for name, kp, kv, torque in zip(arm.joints, POSITION_GAINS, VELOCITY_GAINS, TORQUE_NM, strict=True)
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
