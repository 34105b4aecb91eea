# SPDX-License-Identifier: Apache-2.0
"""Command a parallel gripper that another node drives: by action (control_msgs) or by a trajectory topic.

Hardware joint: `open_joint` fully open, `closed_joint` shut (rad or m), linear in the opening [m] between. Robotiq's
2F-85: 0 and 0.7929 rad (ros2_robotiq_gripper). control_msgs is imported when an action gripper is made: a machine
without it can still simulate.
"""

from __future__ import annotations

import importlib
import math
import threading
from abc import ABC, abstractmethod
from typing import Any

from rclpy.action.client import ActionClient
from rclpy.node import Node
from trajectory_msgs.msg import JointTrajectory, JointTrajectoryPoint

from chatvla_control.arm_port import ArmPortError, CommandRefusedError
from chatvla_control.ros.stamps import duration_to_msg

__all__ = ["GRIPPER_KINDS", "ActionGripper", "Gripper", "TrajectoryGripper", "make_gripper"]

GRIPPER_KINDS = ("gripper_command", "parallel_gripper_command", "trajectory")
_STEP_M = 0.0005
_MIN_PERIOD_S = 0.1
_RETRY_S = 1.0
_TRAVEL_S = 0.2


class Gripper(ABC):
    """One gripper joint of another node; calls never wait."""

    def __init__(self, *, joint: str, width_m: float, open_joint: float, closed_joint: float) -> None:
        if open_joint == closed_joint:
            raise ArmPortError(f"gripper joint {joint!r} is at {open_joint} both open and shut; measure both positions")
        self.joint = joint
        self._width_m, self._open, self._closed = width_m, open_joint, closed_joint
        self._sent: float | None = None
        self._not_before_s = -math.inf

    def opening_m(self, position: float) -> float:
        """Return the opening [m] at a position of the hardware joint."""
        return self._width_m * (position - self._closed) / (self._open - self._closed)

    def position(self, opening_m: float) -> float:
        """Return the hardware joint's position at an opening [m], kept between shut and fully open."""
        share = min(max(opening_m / self._width_m, 0.0), 1.0)
        return self._closed + share * (self._open - self._closed)

    def command(self, opening_m: float, now_s: float) -> None:
        """Ask for an opening [m] when it changed and the last request is 0.1 s old.

        Raises CommandRefusedError where nobody listens or the last request was refused; asks again a second later.
        """
        refused = self._refusal()
        if refused:
            self._sent, self._not_before_s = None, now_s + _RETRY_S
            raise CommandRefusedError(refused)
        last_m = math.inf if self._sent is None else self._sent
        if abs(opening_m - last_m) < _STEP_M or 0.0 < self._not_before_s - now_s <= _RETRY_S:
            return
        if not self.reachable():
            self._sent, self._not_before_s = None, now_s + _RETRY_S
            raise CommandRefusedError(
                f"no controller listens on {self.where()}; see `ros2 control list_controllers`, then call "
                "driver/clear_fault"
            )
        self._send(self.position(opening_m))
        self._sent, self._not_before_s = opening_m, now_s + _MIN_PERIOD_S

    def forget(self) -> None:
        """Ask anew at the next command, also for the same opening: whoever listens may be another one."""
        self._sent, self._not_before_s = None, -math.inf

    @abstractmethod
    def reachable(self) -> bool:
        """Return whether anybody listens."""

    @abstractmethod
    def where(self) -> str:
        """Return the topic or action, for messages."""

    @abstractmethod
    def close(self) -> None:
        """Free the connection; the gripper keeps its last command."""

    @abstractmethod
    def _send(self, position: float) -> None: ...

    def _refusal(self) -> str:
        """Return why the last request was refused, once; empty where it was not."""
        return ""


class TrajectoryGripper(Gripper):
    """A joint_trajectory_controller with one joint."""

    def __init__(self, node: Node, topic: str, **joint: Any) -> None:
        super().__init__(**joint)
        self._node = node
        self._publisher = node.create_publisher(JointTrajectory, topic, 1)

    def reachable(self) -> bool:
        """Return whether a controller subscribes."""
        return self._publisher.get_subscription_count() > 0

    def where(self) -> str:
        """Return the topic."""
        return str(self._publisher.topic_name)

    def close(self) -> None:
        """Stop publishing."""
        self._node.destroy_publisher(self._publisher)

    def _send(self, position: float) -> None:
        point = JointTrajectoryPoint(positions=[position], velocities=[0.0], time_from_start=duration_to_msg(_TRAVEL_S))
        self._publisher.publish(JointTrajectory(joint_names=[self.joint], points=[point]))


class ActionGripper(Gripper):
    """A gripper action controller: GripperCommand, or ParallelGripperCommand (Jazzy's parallel_gripper_controller)."""

    def __init__(self, node: Node, action: str, *, kind: str, max_effort: float, **joint: Any) -> None:
        super().__init__(**joint)
        self._parallel = kind == "parallel_gripper_command"
        self._type = _load_action("ParallelGripperCommand" if self._parallel else "GripperCommand")
        self._name, self._max_effort = action, max_effort
        self._client = ActionClient(node, self._type, action)
        self._lock = threading.Lock()
        self._refused = ""

    def reachable(self) -> bool:
        """Return whether the action server is there."""
        return self._client.server_is_ready()

    def where(self) -> str:
        """Return the action."""
        return self._name

    def close(self) -> None:
        """Drop the client."""
        self._client.destroy()

    def goal(self, position: float) -> Any:
        """Return the goal for a position of the hardware joint."""
        goal = self._type.Goal()
        if self._parallel:
            goal.command.name, goal.command.position = [self.joint], [position]
            goal.command.effort = [self._max_effort] if self._max_effort > 0.0 else []
        else:
            goal.command.position, goal.command.max_effort = position, self._max_effort
        return goal

    def _refusal(self) -> str:
        with self._lock:
            refused, self._refused = self._refused, ""
        return refused

    def _send(self, position: float) -> None:
        self._client.send_goal_async(self.goal(position)).add_done_callback(self._on_answer)

    def _on_answer(self, future: Any) -> None:
        if future.exception() is None and not future.result().accepted:
            with self._lock:
                self._refused = f"{self._name} refused a gripper goal; activate the gripper and its controller"


def make_gripper(
    node: Node,
    kind: str,
    where: str,
    *,
    joint: str,
    width_m: float,
    open_joint: float,
    closed_joint: float,
    max_effort: float,
) -> Gripper:
    """Return the gripper of one of GRIPPER_KINDS at action or topic `where`. Raises ArmPortError."""
    stated = {"joint": joint, "width_m": width_m, "open_joint": open_joint, "closed_joint": closed_joint}
    if kind == "trajectory":
        return TrajectoryGripper(node, where, **stated)
    if kind not in GRIPPER_KINDS:
        raise ArmPortError(f"gripper kind is {kind!r}, expected one of: {', '.join(GRIPPER_KINDS)}")
    return ActionGripper(node, where, kind=kind, max_effort=max_effort, **stated)


def _load_action(name: str) -> Any:
    try:
        return getattr(importlib.import_module("control_msgs.action"), name)
    except (ImportError, AttributeError) as error:
        raise ArmPortError(
            f"control_msgs with {name} cannot be imported ({error}), and the gripper needs it; "
            "`sudo apt install ros-jazzy-control-msgs`, or set gripper to trajectory"
        ) from error
