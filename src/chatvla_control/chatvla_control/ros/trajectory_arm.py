# SPDX-License-Identifier: Apache-2.0
"""Reach an arm that a joint_trajectory_controller moves: JointTrajectory out, joint states in, a gripper beside it.

Every message is a whole safe motion: a point two periods ahead, passed at the commanded speed, then a point at rest
where the arm stops when it brakes in proportion within its limits. Two periods, so that a late tick is no braking.
Between points the controller's spline runs (cubic with velocities: the braking is exactly even). So a slow command rate
still gives smooth motion at the controller's own rate (1 kHz on a Franka), and when the driver dies the arm brakes by
itself. The controller must interpolate from its desired state (`interpolate_from_desired_state: true`).
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from rclpy.node import Node
from trajectory_msgs.msg import JointTrajectory, JointTrajectoryPoint

from chatvla_control.robot_spec import RobotSpec
from chatvla_control.ros.controlled_arm import ControlledArm
from chatvla_control.ros.grippers import Gripper
from chatvla_control.ros.stamps import duration_to_msg

__all__ = ["TrajectoryArm", "trajectory_to_rest"]

Array = NDArray[np.float64]
_STOP_S = 0.3
_AHEAD_TICKS = 2.0
_SHORTEST_STOP_S = 1e-3


def trajectory_to_rest(
    names: list[str],
    positions: Array,
    velocities: Array,
    *,
    acceleration: Array,
    lower: Array,
    upper: Array,
    ahead_s: float,
) -> JointTrajectory:
    """Return the motion: `positions` [rad] at `ahead_s`, passed at `velocities` [rad/s], then braking to rest.

    Braking takes T = max |v| / a and leads v T / 2 farther, inside the limits; shapes (J,). The stamp is zero: begin at
    once.
    """
    rest, stop_s = np.zeros_like(velocities), float((np.abs(velocities) / acceleration).max())
    if stop_s < _SHORTEST_STOP_S:
        return JointTrajectory(joint_names=names, points=[_point(positions, rest, ahead_s)])
    stop = np.clip(positions + 0.5 * stop_s * velocities, lower, upper)
    points = [_point(positions, velocities, ahead_s), _point(stop, rest, ahead_s + stop_s)]
    return JointTrajectory(joint_names=names, points=points)


class TrajectoryArm(ControlledArm):
    """An arm whose controller takes JointTrajectory messages."""

    def __init__(self, node: Node, spec: RobotSpec, gripper: Gripper, **stated: Any) -> None:
        """`stated`: as ControlledArm's."""
        super().__init__(node, spec, gripper, message=JointTrajectory, **stated)

    def moving(self, positions: Array, velocities: Array) -> JointTrajectory:
        """Return the motion through `positions` two periods ahead, and on to rest."""
        arm = self.rotary
        return trajectory_to_rest(
            self.hardware_names,
            positions,
            velocities,
            acceleration=self.spec.acceleration[arm],
            lower=self.spec.lower[arm],
            upper=self.spec.upper[arm],
            ahead_s=_AHEAD_TICKS / (self.rate_hz or self.spec.rate_hz),
        )

    def holding(self, positions: Array) -> JointTrajectory:
        """Return the motion to rest at `positions` within 0.3 s."""
        return JointTrajectory(
            joint_names=self.hardware_names, points=[_point(positions, np.zeros_like(positions), _STOP_S)]
        )


def _point(positions: Array, velocities: Array, time_s: float) -> JointTrajectoryPoint:
    return JointTrajectoryPoint(
        positions=positions.tolist(), velocities=velocities.tolist(), time_from_start=duration_to_msg(time_s)
    )
