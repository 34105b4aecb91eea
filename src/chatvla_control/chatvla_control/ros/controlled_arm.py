# SPDX-License-Identifier: Apache-2.0
"""Reach one arm and its gripper through ros2_control: what ports share whatever the arm's controller takes."""

from __future__ import annotations

import time
from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rclpy.node import Node

from chatvla_control.arm_port import ArmPort, ArmPortError, ArmStateMissingError, JointState, hold_pose
from chatvla_control.robot_spec import RobotSpec
from chatvla_control.ros.grippers import Gripper
from chatvla_control.ros.joint_inbox import JointInbox

__all__ = ["ControlledArm"]

Array = NDArray[np.float64]
_POLL_S = 0.05


class ControlledArm(ArmPort):
    """States in, one message a tick out. Subclasses say which message moves the arm and which holds it."""

    def __init__(
        self,
        node: Node,
        spec: RobotSpec,
        gripper: Gripper,
        *,
        message: type[Any],
        topic: str,
        states_topics: Sequence[str],
        joints: Mapping[str, str],
        rate_hz: float,
        connect_timeout_s: float = 5.0,
        steady_clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`joints`: the hardware's name of each rotary joint of `spec`; `rate_hz`: how often commands come;
        `states_topics`: where joint states come, the arm's on the first and the gripper's on the last.
        """
        self.spec, self.rate_hz = spec, rate_hz
        self.rotary = np.array([joint.unit == "rad" for joint in spec.joints])
        if self.rotary.sum() != spec.width - 1:
            raise ArmPortError(f"robot {spec.name!r} has not one gripper; this port serves one arm and one gripper")
        self.hardware_names = [joints[joint.name] for joint in spec.joints if joint.unit == "rad"]
        self._node, self._gripper = node, gripper
        self._connect_timeout_s, self._steady_clock = connect_timeout_s, steady_clock
        arm_states, gripper_states = states_topics[0], states_topics[-1]
        self._inbox = JointInbox(
            node,
            {
                joints.get(joint.name, gripper.joint): arm_states if joint.unit == "rad" else gripper_states
                for joint in spec.joints
            },
        )
        self._publisher = node.create_publisher(message, topic, 1)

    @abstractmethod
    def moving(self, positions: Array, velocities: Array) -> Any:
        """Return the message for arm positions [rad] passed at speeds [rad/s], both of shape (J,)."""

    @abstractmethod
    def holding(self, positions: Array) -> Any:
        """Return the message that brings the arm to rest at positions [rad], shape (J,)."""

    def connect(self) -> None:
        """Wait until controller and gripper listen. Raises ArmPortError when they do not."""
        self._gripper.forget()
        until_s = self._steady_clock() + self._connect_timeout_s
        while not (self._listened() and self._gripper.reachable()):
            if self._steady_clock() > until_s:
                missing = self._gripper.where() if self._listened() else str(self._publisher.topic_name)
                raise ArmPortError(
                    f"no controller listens on {missing} after {self._connect_timeout_s:g} s; start the robot's own "
                    "launch and look at `ros2 control list_controllers`"
                )
            time.sleep(_POLL_S)

    def read(self) -> JointState:
        """Return the newest state, as old as its oldest joint. Raises ArmStateMissingError until all joints came."""
        state = self._inbox.read()
        positions = np.where(self.rotary, state.positions, self._gripper.opening_m(state.positions[~self.rotary][0]))
        return replace(state, positions=positions, velocities=np.where(self.rotary, state.velocities, np.nan))

    def write(self, positions: Array) -> None:
        """Command positions, to be at rest there. Raises ArmPortError."""
        self.move(positions, np.zeros_like(positions))

    def move(self, positions: Array, velocities: Array) -> None:
        """Command positions and speeds.

        Raises ArmPortError when the arm's controller has gone, CommandRefusedError when the gripper's has, or refused.
        """
        if not self._listened():
            raise ArmPortError(f"the controller left {self._publisher.topic_name}; see `ros2 control list_controllers`")
        self._publish(self.moving(positions[self.rotary], velocities[self.rotary]))
        self._gripper.command(float(positions[~self.rotary][0]), self._steady_clock())

    def stop(self) -> None:
        """Command the measured arm, at rest; the gripper keeps its command, so that a held object stays held.

        Without a fresh state the last command stays in force: it ends at rest, too.
        """
        try:
            state = self.read()
        except ArmStateMissingError:
            return
        hold = hold_pose(self.spec, state, self._node.get_clock().now().nanoseconds * 1e-9)
        if hold is not None:
            self._publish(self.holding(hold))

    def close(self) -> None:
        """Stop listening and publishing; the controller holds the last pose."""
        self._gripper.close()
        self._inbox.close()
        self._node.destroy_publisher(self._publisher)

    def _listened(self) -> bool:
        return self._publisher.get_subscription_count() > 0

    def _publish(self, msg: Any) -> None:
        try:
            self._publisher.publish(msg)
        except Exception as error:
            raise ArmPortError(f"cannot publish a command: {error}; the node is shutting down") from error
