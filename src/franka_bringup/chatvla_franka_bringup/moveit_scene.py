# SPDX-License-Identifier: Apache-2.0
"""Ask MoveIt by its Python binding (moveit_py, from a ROS install): is a pose free, and how does one get to a pose?

moveit_py starts a node of its own and reads robot_description, kinematics and pipelines from parameters, which the
launch gives it (config/moveit.yaml). It is imported when the scene connects.
"""

from __future__ import annotations

import importlib
from typing import Any

import numpy as np
from geometry_msgs.msg import PoseStamped
from numpy.typing import NDArray
from trajectory_msgs.msg import JointTrajectory

from chatvla_control.arm_port import ArmPortError

__all__ = ["MoveItScene", "PlanError"]

Array = NDArray[np.float64]
_NODE_NAME = "chatvla_moveit_py"


class PlanError(RuntimeError):
    """MoveIt found no way to the goal."""


class MoveItScene:
    """MoveIt's planning scene and planner for one joint model group."""

    def __init__(self, *, group: str, node_name: str = _NODE_NAME) -> None:
        self._group, self._node_name = group, node_name
        self._moveit: Any = None
        self._state: Any = None

    def connect(self) -> None:
        """Start moveit_py, once. Raises ArmPortError when it is missing or refuses its parameters."""
        if self._moveit is not None:
            return
        try:
            planning = importlib.import_module("moveit.planning")
            robot_state = importlib.import_module("moveit.core.robot_state")
        except ImportError as error:
            raise ArmPortError(
                f"moveit_py cannot be imported ({error}), and port moveit needs it; `sudo apt install "
                "ros-jazzy-moveit-py`, or use port ros2_control, which checks workspace and table only"
            ) from error
        try:
            self._moveit = planning.MoveItPy(node_name=self._node_name)
            self._state = robot_state.RobotState(self._moveit.get_robot_model())
        except Exception as error:
            self._moveit = None
            raise ArmPortError(
                f"moveit_py does not start: {error}; give node {self._node_name} the parameters of config/moveit.yaml"
            ) from error

    def collides(self, arm_positions: Array) -> bool:
        """Return whether the group at these joint positions [rad] touches itself or the scene."""
        self._state.set_joint_group_positions(self._group, arm_positions)
        self._state.update()
        with self._connected().get_planning_scene_monitor().read_only() as scene:
            return bool(scene.is_state_colliding(robot_state=self._state, joint_model_group_name=self._group))

    def plan(self, goal: PoseStamped, link: str) -> JointTrajectory:
        """Return a free way from where the arm is to the pose of `link`. Raises PlanError when there is none."""
        component = self._connected().get_planning_component(self._group)
        component.set_start_state_to_current_state()
        component.set_goal_state(pose_stamped_msg=goal, pose_link=link)
        solution = component.plan()
        if not solution:
            raise PlanError(
                f"MoveIt finds no way of {self._group} to the goal in {goal.header.frame_id!r}; move it nearer"
            )
        trajectory: JointTrajectory = solution.trajectory.get_robot_trajectory_msg().joint_trajectory
        return trajectory

    def close(self) -> None:
        """End moveit_py."""
        moveit, self._moveit = self._moveit, None
        if moveit is not None:
            moveit.shutdown()

    def _connected(self) -> Any:
        if self._moveit is None:
            raise ArmPortError("MoveIt's scene is not connected; call connect first")
        return self._moveit
