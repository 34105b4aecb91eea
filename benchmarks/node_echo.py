# SPDX-License-Identifier: Apache-2.0
"""Answer each image with a chunk, in a bare node: what two processes need without any policy node."""

from __future__ import annotations

import numpy as np
import rclpy
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.node import Node
from rclpy.qos import QoSProfile, qos_profile_sensor_data
from sensor_msgs.msg import Image

from chatvla_control.contracts import ActionChunk, ActionMode
from chatvla_control.robot_spec import robot_spec
from chatvla_control.ros.convert import action_chunk_to_msg
from chatvla_control.ros.stamps import time_from_msg
from chatvla_msgs.msg import ActionChunk as ActionChunkMsg

__all__ = ["echo"]


def echo() -> None:
    """Answer each image with a chunk of 50 rows until the context ends."""
    rclpy.init()
    node, spec = Node("policy_node"), robot_spec("arx_r5")
    publisher = node.create_publisher(ActionChunkMsg, "action_chunk", QoSProfile(depth=1))
    rows = np.repeat(np.array(spec.home)[None], 50, axis=0)

    def on_image(msg: Image) -> None:
        stamp_s = time_from_msg(msg.header.stamp)
        chunk = ActionChunk(
            id="echo",
            actions=rows,
            joint_names=spec.joint_names,
            robot=spec.name,
            mode=ActionMode.JOINT_POSITION,
            stamp_s=stamp_s,
            start_s=stamp_s,
            step_period_s=0.02,
            valid_until_s=stamp_s + 1.0,
            policy="echo",
        )
        publisher.publish(action_chunk_to_msg(chunk))

    node.create_subscription(Image, "camera/top/image_raw", on_image, qos_profile_sensor_data)
    executor = SingleThreadedExecutor()
    executor.add_node(node)
    try:
        executor.spin()
    except (ExternalShutdownException, KeyboardInterrupt):
        return


if __name__ == "__main__":
    echo()
