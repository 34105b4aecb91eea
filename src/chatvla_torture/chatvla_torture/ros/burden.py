# SPDX-License-Identifier: Apache-2.0
"""Be a burden to a bench: `cameras` publishes four views, `slow` subscribes and dawdles, `busy` computes."""

from __future__ import annotations

import sys
import time

import rclpy
from rclpy.node import Node
from rclpy.qos import QoSProfile, qos_profile_sensor_data
from sensor_msgs.msg import Image, JointState

from chatvla_msgs.msg import ActionChunk

__all__ = ["main"]

_CAMERAS = 4


def main() -> int:
    """Run until killed."""
    kind = sys.argv[1]
    if kind == "busy":
        while True:
            pass
    rclpy.init(args=sys.argv[2:])
    node = Node(f"burden_{kind}")
    if kind == "cameras":
        image = Image(height=480, width=640, encoding="rgb8", step=1920, data=bytes(640 * 480 * 3))
        publishers = [node.create_publisher(Image, f"camera/extra{k}/image_raw", 2) for k in range(_CAMERAS)]
        node.create_timer(1 / 30, lambda: [publisher.publish(image) for publisher in publishers])
    else:
        reliable = QoSProfile(depth=200)
        node.create_subscription(Image, "camera/top/image_raw", lambda msg: time.sleep(0.3), qos_profile_sensor_data)
        node.create_subscription(JointState, "joint_states", lambda msg: time.sleep(0.3), reliable)
        node.create_subscription(JointState, "joint_command", lambda msg: time.sleep(0.3), reliable)
        node.create_subscription(ActionChunk, "action_chunk", lambda msg: time.sleep(0.3), reliable)
    rclpy.spin(node)
    return 0


if __name__ == "__main__":
    sys.exit(main())
