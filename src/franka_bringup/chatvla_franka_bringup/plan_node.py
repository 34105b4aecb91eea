# SPDX-License-Identifier: Apache-2.0
"""Go to a pose without touching anything: pose_goal in, MoveIt's plan out as an action_chunk for the driver.

For people and for set-up between trials; do not send goals while a policy acts, the newest chunk wins.
"""

from __future__ import annotations

import sys
import time

import numpy as np
import rclpy
from geometry_msgs.msg import PoseStamped
from rclpy.node import Node
from rclpy.qos import QoSProfile
from rclpy.signals import SignalHandlerOptions
from rclpy.utilities import try_shutdown
from sensor_msgs.msg import JointState as JointStateMsg

from chatvla_control.arm_port import ArmPortError
from chatvla_control.robot_spec import robot_spec
from chatvla_control.ros.convert import ConversionError, action_chunk_to_msg, joint_state_from_msg
from chatvla_control.ros.parameters import declare
from chatvla_control.ros.qos import NEWEST
from chatvla_control.ros.spin import spin_until, stop_on_signals
from chatvla_franka_bringup.moveit_scene import MoveItScene, PlanError
from chatvla_franka_bringup.planned_chunk import planned_chunk
from chatvla_msgs.msg import ActionChunk as ActionChunkMsg

__all__ = ["PlanNode", "main"]

_STATE_AGE_S = 0.5


class PlanNode(Node):
    """Plans from the present pose to each pose_goal."""

    def __init__(self) -> None:
        super().__init__("plan")
        self._spec = robot_spec("franka")
        group = declare(self, "moveit_group", "panda_arm", "MoveIt's joint model group of the arm.")
        self._link = declare(self, "goal_link", "panda_link8", "Link whose pose the goals state.")
        prefix = declare(self, "joint_prefix", "panda_joint", "MoveIt's joint names without their number 1 .. 7.")
        self._joints = {name: f"{prefix}{number}" for number, name in enumerate(self._spec.arms[0].joints, start=1)}
        self._scene = MoveItScene(group=group, node_name="chatvla_plan_moveit_py")
        self._scene.connect()
        self._measured: tuple[float, np.ndarray] | None = None
        self._chunks = self.create_publisher(ActionChunkMsg, "action_chunk", QoSProfile(depth=1))
        self.create_subscription(JointStateMsg, "joint_states", self._on_state, NEWEST)
        self.create_subscription(PoseStamped, "pose_goal", self._on_goal, NEWEST)

    def close(self) -> None:
        """End MoveIt and the node."""
        self._scene.close()
        self.destroy_node()

    def _on_state(self, msg: JointStateMsg) -> None:
        try:
            self._measured = time.monotonic(), joint_state_from_msg(msg, self._spec.joint_names).positions
        except ConversionError as error:
            self.get_logger().warning(f"joint_states does not fit: {error}", throttle_duration_sec=5.0)

    def _on_goal(self, goal: PoseStamped) -> None:
        if self._measured is None or time.monotonic() - self._measured[0] > _STATE_AGE_S:
            self.get_logger().error("no fresh joint_states: start the driver before sending goals")
            return
        try:
            trajectory = self._scene.plan(goal, self._link)
            now_s = self.get_clock().now().nanoseconds * 1e-9
            chunk = planned_chunk(
                trajectory,
                self._spec,
                joints=self._joints,
                measured=self._measured[1],
                now_s=now_s,
                chunk_id=f"plan-{now_s:.3f}",
            )
        except (PlanError, ValueError) as error:
            self.get_logger().error(str(error))
            return
        self._chunks.publish(action_chunk_to_msg(chunk))


def main() -> int:
    """Run the planner until SIGINT or SIGTERM; return the exit code."""
    rclpy.init(signal_handler_options=SignalHandlerOptions.NO)
    stop = stop_on_signals()
    node: PlanNode | None = None
    try:
        node = PlanNode()
        spin_until(node, stop)
        return 0
    except (ValueError, ArmPortError) as error:
        print(f"plan: {error}", file=sys.stderr)
        return 1
    finally:
        if node is not None:
            node.close()
        try_shutdown()
