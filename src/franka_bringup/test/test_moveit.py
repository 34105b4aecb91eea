# SPDX-License-Identifier: Apache-2.0
"""Collisions stop the arm before they happen; MoveIt's plans become chunks; a missing MoveIt is one sentence."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
from geometry_msgs.msg import PoseStamped
from trajectory_msgs.msg import JointTrajectory, JointTrajectoryPoint

from chatvla_control.arm_controller import ArmController
from chatvla_control.arm_port import ArmPort, ArmPortError, JointState
from chatvla_control.robot_spec import robot_spec
from chatvla_control.ros.convert import action_chunk_from_msg, action_chunk_to_msg
from chatvla_control.ros.stamps import duration_to_msg
from chatvla_franka_bringup.collision_checked_arm import CollisionCheckedArm
from chatvla_franka_bringup.moveit_scene import MoveItScene
from chatvla_franka_bringup.planned_chunk import planned_chunk

SPEC = robot_spec("franka")
HOME = np.array(SPEC.home)
NAMES = {name: f"panda_joint{number}" for number, name in enumerate(SPEC.arms[0].joints, start=1)}
NOW_S = 1000.0


class ObedientArm(ArmPort):
    """An arm that is where it was commanded."""

    def __init__(self) -> None:
        self.spec = SPEC
        self.positions = HOME.copy()

    def connect(self) -> None: ...

    def read(self) -> JointState:
        rest = np.zeros(8)
        return JointState(positions=self.positions, velocities=rest, efforts=rest, stamp_s=NOW_S)

    def write(self, positions: np.ndarray) -> None:
        self.positions = positions

    def stop(self) -> None: ...

    def close(self) -> None: ...


@dataclass
class Wall:
    """A scene with a wall where joint 1 passes an angle."""

    angle_rad: float = 0.3
    asked: list[float] = field(default_factory=list)

    def connect(self) -> None: ...

    def collides(self, arm_positions: np.ndarray) -> bool:
        self.asked.append(float(arm_positions[0]))
        return bool(arm_positions[0] > self.angle_rad)

    def close(self) -> None: ...


def planned(seconds: float = 3.0, joints: int = 7) -> JointTrajectory:
    """A plan as MoveIt gives it: uneven times, joints in another order, from home to a turn of 0.5 rad."""
    names = list(NAMES.values())[:joints][::-1]
    shares = np.array([0.0, 0.2, 0.7, 1.0])
    points = [
        JointTrajectoryPoint(
            positions=[float(HOME[int(name[-1]) - 1] + (0.5 * share if name.endswith("1") else 0.0)) for name in names],
            time_from_start=duration_to_msg(float(seconds * share)),
        )
        for share in shares
    ]
    return JointTrajectory(joint_names=names, points=points)


def test_the_arm_stops_before_the_wall() -> None:
    arm, wall = ObedientArm(), Wall()
    port = CollisionCheckedArm(arm, wall)
    port.connect()
    speed = np.zeros(8)
    speed[0] = 1.0
    way, said = HOME.copy(), ""
    while not said:
        way = way + 0.01 * speed
        try:
            port.move(way, speed)
        except ArmPortError as error:
            said = str(error)
    assert said.startswith("the pose where the arm can stop collides")
    # 1 rad/s takes 1 / (2 * 7.5) rad to stop: what was passed on can still stop in front of the wall.
    assert arm.positions[0] + 1.0 / 15.0 <= 0.3 + 1e-9
    assert arm.positions[0] + 1.0 / 15.0 > 0.28


def test_a_pose_in_collision_is_not_passed_on() -> None:
    arm = ObedientArm()
    port = CollisionCheckedArm(arm, Wall(angle_rad=-1.0))
    with pytest.raises(ArmPortError, match="clear_fault"):
        port.write(HOME)
    assert np.array_equal(arm.positions, HOME)
    port.stop()
    assert port.read().positions == pytest.approx(HOME)


def test_a_plan_becomes_a_chunk_that_the_driver_takes() -> None:
    measured = HOME.copy()
    measured[7] = 0.03
    chunk = planned_chunk(planned(), SPEC, joints=NAMES, measured=measured, now_s=NOW_S, chunk_id="plan")
    again = action_chunk_from_msg(action_chunk_to_msg(chunk))
    assert again.actions[0] == pytest.approx(measured)
    assert again.actions[-1, 0] == pytest.approx(HOME[0] + 0.5)
    assert (again.actions[:, 7] == 0.03).all()
    assert np.diff(again.actions[:, 0]).max() * 15.0 == pytest.approx(0.5 / 3.0, rel=0.05)
    controller = ArmController(SPEC)
    controller.step(now_s=NOW_S, measured=measured)
    assert controller.accept(again, now_s=NOW_S, measured=measured) is None


@pytest.mark.parametrize(
    ("trajectory", "sentence"),
    [
        (planned(joints=6), "lacks joint 'panda_joint7'"),
        (planned(seconds=60.0), "at most 28 s"),
        (JointTrajectory(joint_names=list(NAMES.values())), "no points"),
    ],
)
def test_a_plan_that_cannot_be_played_is_refused(trajectory: JointTrajectory, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        planned_chunk(trajectory, SPEC, joints=NAMES, measured=HOME, now_s=NOW_S, chunk_id="plan")


@pytest.mark.skipif(importlib.util.find_spec("moveit") is not None, reason="moveit_py is installed here")
def test_missing_moveit_says_what_to_install() -> None:
    scene = MoveItScene(group="panda_arm")
    with pytest.raises(ArmPortError, match="ros-jazzy-moveit-py"):
        scene.connect()
    with pytest.raises(ArmPortError, match="call connect first"):
        scene.plan(PoseStamped(), "panda_link8")


@pytest.mark.robot
def test_real_moveit_judges_home_free() -> None:
    pytest.importorskip("moveit.planning", reason="moveit_py comes with a ROS install only")
    scene: Any = MoveItScene(group="panda_arm")
    scene.connect()
    assert not scene.collides(HOME[:7])
    scene.close()
