# SPDX-License-Identifier: Apache-2.0
"""The UR5e's driver node: chooses the port by parameter, the rest is chatvla_control's driver."""

from __future__ import annotations

from rclpy.node import Node

from chatvla_control.arm_port import ArmPort
from chatvla_control.robot_spec import robot_spec
from chatvla_control.ros.cell import declare_cell
from chatvla_control.ros.driver_node import run_driver
from chatvla_control.ros.grippers import GRIPPER_KINDS, make_gripper
from chatvla_control.ros.parameters import declare
from chatvla_control.ros.sim_arm import SimArm
from ur5e_driver.forward_position_arm import ForwardPositionArm

__all__ = ["main", "make_port"]


def make_port(node: Node) -> ArmPort:
    """Return the port that the node's parameters ask for. Raises ValueError, ArmPortError."""
    kind = declare(
        node,
        "port",
        "sim",
        "What lies under the driver: the simulator or ros2_control.",
        choices=("sim", "ros2_control"),
    )
    rate_hz = declare(node, "command_rate_hz", 125.0, "Commands per second to the controller.", low=50.0, high=500.0)
    topic = declare(node, "command_topic", "/forward_position_controller/commands", "Topic of the arm's controller.")
    states = declare(node, "states_topic", "/joint_states", "Joint states of arm and gripper; may come in parts.")
    prefix = declare(node, "joint_prefix", "", "The tf_prefix of the robot's own launch, before each joint name.")
    gripper_kind = declare(
        node, "gripper", "gripper_command", "How the gripper's controller takes commands.", choices=GRIPPER_KINDS
    )
    gripper_at = declare(
        node, "gripper_at", "/robotiq_gripper_controller/gripper_cmd", "Action or topic of the gripper's controller."
    )
    wait_s = declare(node, "connect_timeout_s", 5.0, "How long to wait for the controllers, s.", low=0.0, high=60.0)
    spec = robot_spec("ur5e")
    cartesian = declare_cell(node, spec)
    port: ArmPort
    if kind == "sim":
        port = SimArm(node, spec)
    else:
        gripper = make_gripper(
            node,
            gripper_kind,
            gripper_at,
            joint="robotiq_85_left_knuckle_joint",
            width_m=float(spec.upper[-1]),
            open_joint=0.0,
            closed_joint=0.7929,
            max_effort=40.0,
        )
        port = ForwardPositionArm(
            node,
            spec,
            gripper,
            topic=topic,
            states_topics=(states,),
            joints={name: prefix + name for name in spec.arms[0].joints},
            rate_hz=rate_hz,
            connect_timeout_s=wait_s,
        )
    port.cartesian = cartesian
    return port


def main() -> int:
    """Run the driver; return the exit code."""
    return run_driver(make_port)
