# SPDX-License-Identifier: Apache-2.0
"""Reach a UR5e through its ROS 2 driver's forward_position_controller: six positions [rad], no interpolation.

The controller passes each position on as it comes, so commands come at 125 Hz and the player's limits are what the arm
feels. When the driver dies the arm stays where it was commanded last, at once: a trajectory controller brakes more
gently (chatvla_control/ros/trajectory_arm.py works with scaled_joint_trajectory_controller too).
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from rclpy.node import Node
from std_msgs.msg import Float64MultiArray

from chatvla_control.robot_spec import RobotSpec
from chatvla_control.ros.controlled_arm import ControlledArm
from chatvla_control.ros.grippers import Gripper

__all__ = ["ForwardPositionArm"]

Array = NDArray[np.float64]


class ForwardPositionArm(ControlledArm):
    """An arm whose controller takes Float64MultiArray messages in the order of its own joint list."""

    def __init__(self, node: Node, spec: RobotSpec, gripper: Gripper, **stated: Any) -> None:
        """`stated`: as ControlledArm's."""
        super().__init__(node, spec, gripper, message=Float64MultiArray, **stated)

    def moving(self, positions: Array, velocities: Array) -> Float64MultiArray:
        """Return the positions; the controller has no use for speeds."""
        return Float64MultiArray(data=positions.tolist())

    def holding(self, positions: Array) -> Float64MultiArray:
        """Return the positions."""
        return Float64MultiArray(data=positions.tolist())
