# SPDX-License-Identifier: Apache-2.0
"""Reach a simulated arm over topics: sim/joint_command out, sim/joint_states in. The simulator is another process."""

from __future__ import annotations

import threading

import numpy as np
from numpy.typing import NDArray
from rclpy.node import Node
from sensor_msgs.msg import JointState as JointStateMsg

from chatvla_control.arm_port import ArmPort, ArmPortError, ArmStateMissingError, JointState, hold_pose
from chatvla_control.robot_spec import RobotSpec
from chatvla_control.ros.convert import ConversionError, joint_state_from_msg, joint_state_to_msg
from chatvla_control.ros.qos import NEWEST_UNRELIABLE

__all__ = ["SimArm"]


class SimArm(ArmPort):
    """The simulator's joints. The node's executor must run for states to arrive."""

    def __init__(self, node: Node, spec: RobotSpec) -> None:
        self.spec = spec
        self._node = node
        self._lock = threading.Lock()
        self._state: JointState | None = None
        self._commanded: NDArray[np.float64] | None = None
        self._trouble = ""
        self._publisher = node.create_publisher(JointStateMsg, "sim/joint_command", 1)
        self._subscription = node.create_subscription(
            JointStateMsg, "sim/joint_states", self._on_state, NEWEST_UNRELIABLE
        )

    def connect(self) -> None:
        """Nothing to do: states arrive by themselves once the simulator runs."""

    def read(self) -> JointState:
        """Return the newest state, stamped with its arrival. Raises ArmStateMissingError before the first."""
        with self._lock:
            if self._state is None:
                raise ArmStateMissingError(self._trouble or "no message on sim/joint_states yet; start the simulator")
            return self._state

    def write(self, positions: NDArray[np.float64]) -> None:
        """Publish the command. Raises ArmPortError when no message holds the time or the node's context has ended."""
        self._commanded = positions
        rest = np.zeros_like(positions)
        command = JointState(
            positions=positions, velocities=rest, efforts=np.full_like(positions, np.nan), stamp_s=self._now_s()
        )
        try:
            self._publisher.publish(joint_state_to_msg(self.spec.joint_names, command))
        except ConversionError as error:
            raise ArmPortError(f"cannot publish sim/joint_command: {error}; set the clock right") from error
        except Exception as error:
            raise ArmPortError(f"cannot publish sim/joint_command: {error}; the node is shutting down") from error

    def stop(self) -> None:
        """Command the measured pose; grippers keep their command, so that a held object stays held.

        Without a fresh state the last command stays in force.
        """
        with self._lock:
            state, commanded = self._state, self._commanded
        arms = None if state is None else hold_pose(self.spec, state, self._now_s())
        if state is None or arms is None:
            return
        hold = np.array(state.positions if commanded is None else commanded)
        hold[[joint.unit == "rad" for joint in self.spec.joints]] = arms
        if np.isfinite(hold).all():
            self.write(np.clip(hold, self.spec.lower, self.spec.upper))

    def close(self) -> None:
        """Stop listening; the simulator keeps the last command."""
        self._node.destroy_subscription(self._subscription)
        self._node.destroy_publisher(self._publisher)

    def _on_state(self, msg: JointStateMsg) -> None:
        try:
            state = joint_state_from_msg(msg, self.spec.joint_names)
        except ConversionError as error:
            with self._lock:
                self._trouble = f"sim/joint_states does not fit {self.spec.name}: {error}"
            return
        arrived = JointState(
            positions=state.positions, velocities=state.velocities, efforts=state.efforts, stamp_s=self._now_s()
        )
        with self._lock:
            self._state = arrived

    def _now_s(self) -> float:
        return self._node.get_clock().now().nanoseconds * 1e-9
