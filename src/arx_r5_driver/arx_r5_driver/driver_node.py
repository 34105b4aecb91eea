# SPDX-License-Identifier: Apache-2.0
"""The ARX R5's driver node: chooses the port by parameter, the rest is chatvla_control's driver."""

from __future__ import annotations

from rclpy.node import Node

from arx_r5_driver.arx_can_arm import ArxCanArm
from chatvla_control.arm_port import ArmPort
from chatvla_control.robot_spec import robot_spec
from chatvla_control.ros.driver_node import run_driver
from chatvla_control.ros.parameters import declare
from chatvla_control.ros.sim_arm import SimArm

__all__ = ["main", "make_port"]


def make_port(node: Node) -> ArmPort:
    """Return the port that the node's parameters ask for. Raises ValueError for an unknown port."""
    kind = declare(
        node, "port", "sim", "What lies under the driver: the simulator or the arms on CAN.", choices=("sim", "can")
    )
    left = declare(node, "left_can", "can0", "CAN interface of the left arm (port can).")
    right = declare(node, "right_can", "can1", "CAN interface of the right arm (port can).")
    open_rad = declare(
        node,
        "gripper_open_rad",
        5.03,
        "Gripper motor angle at full opening, rad; measure it once per gripper, negative on some (port can).",
        low=-10.0,
        high=10.0,
    )
    arm_type = declare(
        node, "arm_type", 0, "The SDK's arm type: 0 loads X5liteaa0.urdf, 1 R5_master.urdf (port can).", low=0, high=1
    )
    spec = robot_spec("arx_r5")
    if kind == "sim":
        return SimArm(node, spec)
    return ArxCanArm(spec, left_can=left, right_can=right, gripper_open_rad=open_rad, arm_type=arm_type)


def main() -> int:
    """Run the driver; return the exit code."""
    return run_driver(make_port)
