# SPDX-License-Identifier: Apache-2.0
"""A joint_trajectory_controller's part of the conversation: trajectories in, joint states out, over real DDS.

It interpolates as the real one does (cubic splines between points with velocities, from its desired state) at 250 Hz.
"""

from __future__ import annotations

import time
from contextlib import ExitStack
from types import TracebackType

import numpy as np
import rclpy
from sensor_msgs.msg import JointState
from trajectory_msgs.msg import JointTrajectory

from chatvla_control.ros.spin import serving

PERIOD_S = 0.004


def seconds(duration: object) -> float:
    return duration.sec + 1e-9 * duration.nanosec  # type: ignore[attr-defined]


class ControllerPeer:
    """One controller for `joints`, which starts at `positions`."""

    def __init__(
        self, domain: int, topic: str, joints: list[str], positions: list[float], states: str = "/joint_states"
    ) -> None:
        self.joints = joints
        self.received: list[JointTrajectory] = []
        self.history: list[tuple[float, np.ndarray]] = []
        self._position, self._velocity = np.array(positions, np.float64), np.zeros(len(joints))
        self._knots: list[tuple[float, np.ndarray, np.ndarray]] = []
        self.context = rclpy.Context()
        rclpy.init(context=self.context, domain_id=domain)
        self.node = rclpy.create_node("controller_peer_" + joints[0], context=self.context)
        self._states = self.node.create_publisher(JointState, states, 10)
        self.subscription = self.node.create_subscription(JointTrajectory, topic, self._on_trajectory, 10)
        self.node.create_timer(PERIOD_S, self._update)
        self._ends = ExitStack()
        self._ends.enter_context(serving(self.node))

    def __enter__(self) -> ControllerPeer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ends.close()
        self.node.destroy_node()
        rclpy.shutdown(context=self.context)

    @property
    def positions(self) -> np.ndarray:
        return self._position

    def leave(self) -> None:
        """Unload the controller: states go on, commands are heard no more."""
        self.node.destroy_subscription(self.subscription)

    def _on_trajectory(self, msg: JointTrajectory) -> None:
        assert list(msg.joint_names) == self.joints
        assert msg.header.stamp.sec == 0
        # The real controller refuses a trajectory that ends in motion.
        assert not any(msg.points[-1].velocities)
        self.received.append(msg)
        now_s = time.monotonic()
        self._knots = [(now_s, self._position.copy(), self._velocity.copy())] + [
            (now_s + seconds(point.time_from_start), np.array(point.positions), np.array(point.velocities))
            for point in msg.points
        ]

    def _update(self) -> None:
        now_s = time.monotonic()
        while len(self._knots) > 1 and self._knots[1][0] <= now_s:
            self._knots.pop(0)
        if len(self._knots) > 1:
            self._position, self._velocity = hermite(*self._knots[:2], now_s)
        elif self._knots:
            _, self._position, self._velocity = self._knots[0]
        self.history.append((now_s, self._position.copy()))
        msg = JointState(name=self.joints, position=self._position.tolist(), velocity=self._velocity.tolist())
        msg.header.stamp = self.node.get_clock().now().to_msg()
        self._states.publish(msg)


def hermite(
    first: tuple[float, np.ndarray, np.ndarray], second: tuple[float, np.ndarray, np.ndarray], now_s: float
) -> tuple[np.ndarray, np.ndarray]:
    """Return position and speed on the cubic between two points with speeds."""
    (t0, p0, v0), (t1, p1, v1) = first, second
    h = t1 - t0
    s = (now_s - t0) / h
    position = (
        (2 * s**3 - 3 * s**2 + 1) * p0
        + (s**3 - 2 * s**2 + s) * h * v0
        + (3 * s**2 - 2 * s**3) * p1
        + (s**3 - s**2) * h * v1
    )
    velocity = (6 * s**2 - 6 * s) * (p0 - p1) / h + (3 * s**2 - 4 * s + 1) * v0 + (3 * s**2 - 2 * s) * v1
    return position, velocity
