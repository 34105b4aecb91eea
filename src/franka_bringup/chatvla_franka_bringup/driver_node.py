# SPDX-License-Identifier: Apache-2.0
"""The Franka's driver node: chooses the port by parameter, the rest is chatvla_control's driver."""

from __future__ import annotations

from rclpy.node import Node

from chatvla_control.arm_port import ArmPort
from chatvla_control.robot_spec import RobotSpec, robot_spec
from chatvla_control.ros.cell import declare_cell
from chatvla_control.ros.driver_node import run_driver
from chatvla_control.ros.grippers import GRIPPER_KINDS, make_gripper
from chatvla_control.ros.parameters import declare
from chatvla_control.ros.sim_arm import SimArm
from chatvla_control.ros.trajectory_arm import TrajectoryArm
from chatvla_franka_bringup.collision_checked_arm import CollisionCheckedArm
from chatvla_franka_bringup.moveit_scene import MoveItScene

__all__ = ["main", "make_port"]


def make_port(node: Node) -> ArmPort:
    """Return the port that the node's parameters ask for. Raises ValueError, ArmPortError."""
    kind = declare(
        node,
        "port",
        "sim",
        "What lies under the driver: the simulator, ros2_control, or ros2_control behind MoveIt's collision check.",
        choices=("sim", "ros2_control", "moveit"),
    )
    spec = robot_spec("franka")
    cartesian = declare_cell(node, spec)
    group = declare(node, "moveit_group", "panda_arm", "MoveIt's joint model group of the arm (port moveit).")
    arm = _trajectory_arm(node, spec, create=kind != "sim")
    if arm is None:
        port: ArmPort = SimArm(node, spec)
    else:
        port = arm if kind == "ros2_control" else CollisionCheckedArm(arm, MoveItScene(group=group))
    port.cartesian = cartesian
    return port


def _trajectory_arm(node: Node, spec: RobotSpec, *, create: bool) -> TrajectoryArm | None:
    """Declare the parameters of ports on ros2_control; return such a port when `create`."""
    rate_hz = declare(node, "command_rate_hz", 100.0, "Commands per second to the controller.", low=15.0, high=1000.0)
    topic = declare(
        node,
        "trajectory_topic",
        "/franka_arm_controller/joint_trajectory",
        "Topic of the arm's joint_trajectory_controller.",
    )
    states = declare(
        node,
        "states_topic",
        "/joint_states",
        "Joint states of the arm, at 50 Hz or more; what other topics say of its joints does not count.",
    )
    gripper_states = declare(
        node, "gripper_states_topic", "/joint_states", "Joint states of the gripper; may be the arm's topic."
    )
    prefix = declare(node, "joint_prefix", "panda_joint", "The hardware's joint names without their number 1 .. 7.")
    gripper_kind = declare(
        node, "gripper", "gripper_command", "How the gripper's controller takes commands.", choices=GRIPPER_KINDS
    )
    gripper_at = declare(
        node, "gripper_at", "/robotiq_gripper_controller/gripper_cmd", "Action or topic of the gripper's controller."
    )
    gripper_joint = declare(
        node, "gripper_joint", "robotiq_85_left_knuckle_joint", "The hardware's name of the gripper's joint."
    )
    open_joint = declare(node, "gripper_open", 0.0, "Position of that joint fully open, rad.", low=-3.2, high=3.2)
    closed_joint = declare(node, "gripper_closed", 0.7929, "Position of that joint shut, rad.", low=-3.2, high=3.2)
    effort = declare(node, "gripper_effort", 40.0, "Largest force of the gripper, N; 0 leaves it.", low=0.0, high=235.0)
    wait_s = declare(node, "connect_timeout_s", 5.0, "How long to wait for the controllers, s.", low=0.0, high=60.0)
    if not create:
        return None
    gripper = make_gripper(
        node,
        gripper_kind,
        gripper_at,
        joint=gripper_joint,
        width_m=float(spec.upper[-1]),
        open_joint=open_joint,
        closed_joint=closed_joint,
        max_effort=effort,
    )
    return TrajectoryArm(
        node,
        spec,
        gripper,
        topic=topic,
        states_topics=(states, gripper_states),
        joints={name: f"{prefix}{number}" for number, name in enumerate(spec.arms[0].joints, start=1)},
        rate_hz=rate_hz,
        connect_timeout_s=wait_s,
    )


def main() -> int:
    """Run the driver; return the exit code."""
    return run_driver(make_port)
