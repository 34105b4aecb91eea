# SPDX-License-Identifier: Apache-2.0
"""Gather joint states that come in parts: an arm's from one broadcaster, a gripper's from another."""

from __future__ import annotations

import threading
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from rclpy.node import Node
from sensor_msgs.msg import JointState as JointStateMsg

from chatvla_control.arm_port import ArmStateMissingError, JointState
from chatvla_control.ros.qos import NEWEST_UNRELIABLE

__all__ = ["JointInbox"]


class JointInbox:
    """The newest state of the joints `names` on some topics. The node's executor must run for states to arrive."""

    def __init__(self, node: Node, topics: Sequence[str], names: Sequence[str]) -> None:
        self._node, self._names = node, tuple(names)
        self._lock = threading.Lock()
        self._newest: dict[str, tuple[float, float, float, float]] = {}
        self._subscriptions = [
            node.create_subscription(JointStateMsg, topic, self._on_states, NEWEST_UNRELIABLE)
            for topic in dict.fromkeys(topics)
        ]

    def read(self) -> JointState:
        """Return positions, speeds and efforts in the hardware's units, stamped with the oldest part's arrival.

        Raises ArmStateMissingError until every joint has come.
        """
        with self._lock:
            missing = [name for name in self._names if name not in self._newest]
            if missing:
                heard = " or ".join(subscription.topic_name for subscription in self._subscriptions)
                raise ArmStateMissingError(f"no state of joint {missing[0]!r} on {heard} yet; start its broadcaster")
            columns: NDArray[np.float64] = np.array([self._newest[name] for name in self._names])
        return JointState(
            positions=columns[:, 0], velocities=columns[:, 1], efforts=columns[:, 2], stamp_s=float(columns[:, 3].min())
        )

    def close(self) -> None:
        """Stop listening."""
        for subscription in self._subscriptions:
            self._node.destroy_subscription(subscription)

    def _on_states(self, msg: JointStateMsg) -> None:
        arrived_s = self._node.get_clock().now().nanoseconds * 1e-9
        with self._lock:
            for place, name in enumerate(msg.name):
                if name in self._names and place < len(msg.position):
                    speed = msg.velocity[place] if place < len(msg.velocity) else np.nan
                    effort = msg.effort[place] if place < len(msg.effort) else np.nan
                    self._newest[name] = (msg.position[place], speed, effort, arrived_s)
