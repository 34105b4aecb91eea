# SPDX-License-Identifier: Apache-2.0
"""Actions become rows that the driver's own check takes, on one arm and two; table and wall stop them."""

from __future__ import annotations

import numpy as np
import pytest

from chatvla_control.arm_controller import ArmController
from chatvla_control.cartesian import arm_models, cartesian_rows, tool_poses
from chatvla_control.contracts import ActionChunk, ActionMode
from chatvla_control.robot_spec import RobotSpec, robot_spec
from chatvla_control.rotations import matrix_from_six, six_from_matrix
from chatvla_policy.vlm2vla.config import ArmAnchors, RobotMotion
from chatvla_policy.vlm2vla.waypoints import held_rows, played_rows, turn_at

HOME = {"arx_r5": np.array(robot_spec("arx_r5").home), "franka": np.array(robot_spec("franka").home)}
WAY = np.array([[0.03, 0.02, 0.0, 1.0], [0.0, 0.0, -0.02, 1.0], [0.0, 0.0, 0.0, 0.0]])


def played(spec: RobotSpec, actions: np.ndarray, arm: int = 0, motion: RobotMotion | None = None):
    motion = motion or RobotMotion(robot=spec.name, open_m=0.08, closed_m=0.04)
    return played_rows(
        actions,
        spec=spec,
        arm=arm,
        positions=HOME[spec.name],
        motion=motion,
        speed_m_s=0.25,
        grip_s=0.5,
        period_s=1.0 / spec.rate_hz,
        gripper_m=0.08,
    )


def chunk_of(spec: RobotSpec, rows: np.ndarray) -> ActionChunk:
    period_s = 1.0 / spec.rate_hz
    return ActionChunk(
        id="c",
        actions=rows,
        joint_names=spec.joint_names,
        robot=spec.name,
        mode=ActionMode.CARTESIAN_POSE,
        stamp_s=10.0,
        start_s=10.0,
        step_period_s=period_s,
        valid_until_s=10.0 + period_s * len(rows),
        policy="test",
    )


@pytest.mark.parametrize(("robot", "arm"), [("arx_r5", 0), ("arx_r5", 1), ("franka", 0)])
def test_the_driver_takes_the_rows_and_the_named_arm_gets_there(robot: str, arm: int):
    spec = robot_spec(robot)
    found = played(spec, WAY, arm)
    assert found.filtered == 0
    controller = ArmController(spec)
    start = cartesian_rows(spec, HOME[robot][None])[0]
    assert controller.accept(chunk_of(spec, found.rows), now_s=10.0, measured=HOME[robot]) is None
    for number, model in enumerate(arm_models(spec)):
        moved = found.rows[-1, model.column : model.column + 3] - start[model.column : model.column + 3]
        np.testing.assert_allclose(moved, WAY[:, :3].sum(0) if number == arm else 0.0, atol=1e-9)
    assert found.rows[-1, arm_models(spec)[arm].column + 9] == pytest.approx(0.04)
    for motion in (held_rows(spec, HOME[robot]), found.rows[-10:]):
        assert np.ptp(motion[:, :3], axis=0).max() < 0.03
    measured = HOME[robot].copy()
    for tick in range(1, len(found.rows) + 10):
        command = controller.step(now_s=10.0 + tick / spec.rate_hz, measured=measured)
        assert command is not None
        measured = command.positions
    reached = tool_poses(spec, measured)[arm][:3, 3]
    np.testing.assert_allclose(reached, tool_poses(spec, HOME[robot])[arm][:3, 3] + WAY[:, :3].sum(0), atol=3e-3)


def test_table_and_wall_stop_what_would_drive_into_them():
    spec = robot_spec("arx_r5")
    limits = arm_models(spec)[0].cartesian
    found = played(spec, np.array([[0.0, 0.0, -0.9, 1.0], [0.0, 0.0, 0.1, 1.0], [0.9, 0.0, 0.0, 1.0]]))
    assert found.filtered == 2
    places = found.rows[:, :3]
    assert (places >= np.array(limits.lower) - 1e-9).all()
    assert (places <= np.array(limits.upper) + 1e-9).all()
    # What follows starts where the tool was stopped, so that it is not paid back.
    assert places[-1, 2] == pytest.approx(places[:, 2].min() + 0.1, abs=1e-6)
    assert ArmController(spec).accept(chunk_of(spec, found.rows), now_s=10.0, measured=HOME["arx_r5"]) is None


def test_speed_and_acceleration_stay_below_the_share_of_the_limits():
    spec = robot_spec("franka")
    limits = arm_models(spec)[0].cartesian
    rows = played(spec, WAY).rows[:, :3]
    speed = np.diff(rows, axis=0) * spec.rate_hz
    assert np.linalg.norm(speed, axis=1).max() <= 0.5 * limits.speed_m_s + 1e-9


def test_tool_turns_as_the_nearest_anchors_and_else_not_at_all():
    down = matrix_from_six(np.array([0, 0, -1.0, 0, 1, 0]))
    forward = matrix_from_six(np.array([1.0, 0, 0, 0, 1, 0]))
    anchors = np.array([[0.2, 0, 0.1, *six_from_matrix(down)], [0.5, 0, 0.1, *six_from_matrix(forward)]])
    np.testing.assert_allclose(turn_at(anchors, np.array([0.2, 0, 0.1]), forward), down, atol=1e-3)
    np.testing.assert_allclose(turn_at(anchors, np.array([0.5, 0, 0.1]), down), forward, atol=1e-3)
    np.testing.assert_allclose(turn_at(np.zeros((0, 9)), np.zeros(3), down), down)
    spec = robot_spec("arx_r5")
    arms = (ArmAnchors(arm="left", anchors=tuple(map(tuple, anchors.tolist()))),)
    motion = RobotMotion(robot="arx_r5", open_m=0.08, closed_m=0.04, arms=arms)
    turned = played(spec, WAY, 0, motion).rows[-1, 3:9]
    assert not np.allclose(turned, played(spec, WAY, 0).rows[-1, 3:9], atol=1e-3)
