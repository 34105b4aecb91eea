# SPDX-License-Identifier: Apache-2.0
"""Gather joint states that come in parts: an arm's from one broadcaster, a gripper's from another."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from functools import partial

import numpy as np
from numpy.typing import NDArray
from rclpy.node import Node
from sensor_msgs.msg import JointState as JointStateMsg

from chatvla_control.arm_port import ArmStateMissingError, JointState
from chatvla_control.ros.qos import NEWEST_UNRELIABLE

__all__ = ["JointInbox"]


class JointInbox:
    """The newest state of some joints, each from its own topic. The node's executor must run for states to arrive.

    What another topic says of a joint does not count: it may repeat old values and would pass them off as fresh.
    """

    def __init__(self, node: Node, topics: Mapping[str, str]) -> None:
        """`topics`: the topic of each joint's states by the joint's name, in the order in which `read` returns them."""
        self._node, self._topics = node, dict(topics)
        self._lock = threading.Lock()
        self._newest: dict[str, tuple[float, float, float, float]] = {}
        self._subscriptions = {
            topic: node.create_subscription(JointStateMsg, topic, partial(self._on_states, topic), NEWEST_UNRELIABLE)
            for topic in dict.fromkeys(self._topics.values())
        }

    def read(self) -> JointState:
        """Return positions, speeds and efforts in the hardware's units, stamped with the oldest part's arrival.

        Raises ArmStateMissingError until every joint has come.
        """
        with self._lock:
            for name, topic in self._topics.items():
                if name not in self._newest:
                    heard = self._subscriptions[topic].topic_name
                    raise ArmStateMissingError(f"no state of joint {name!r} on {heard} yet; start its broadcaster")
            columns: NDArray[np.float64] = np.array([self._newest[name] for name in self._topics])
        return JointState(
            positions=columns[:, 0], velocities=columns[:, 1], efforts=columns[:, 2], stamp_s=float(columns[:, 3].min())
        )

    def close(self) -> None:
        """Stop listening."""
        for subscription in self._subscriptions.values():
            self._node.destroy_subscription(subscription)

    def _on_states(self, topic: str, msg: JointStateMsg) -> None:
        arrived_s = self._node.get_clock().now().nanoseconds * 1e-9
        with self._lock:
            for place, name in enumerate(msg.name):
                if self._topics.get(name) == topic and place < len(msg.position):
                    speed = msg.velocity[place] if place < len(msg.velocity) else np.nan
                    effort = msg.effort[place] if place < len(msg.effort) else np.nan
                    self._newest[name] = (msg.position[place], speed, effort, arrived_s)
