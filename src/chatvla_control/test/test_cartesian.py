# SPDX-License-Identifier: Apache-2.0
"""Rotations, chains and rows of poses: there and back, against known poses and finite differences."""

from __future__ import annotations

import itertools
import json
from dataclasses import asdict

import numpy as np
import pytest

from chatvla_control.cartesian import arm_models, cartesian_rows, joint_rows, tool_poses
from chatvla_control.cartesian_guard import margin_names, margins
from chatvla_control.cartesian_spec import cartesian_names, cartesian_spec
from chatvla_control.kinematics import IkError
from chatvla_control.robot_spec import robot_names, robot_spec
from chatvla_control.robots import CARTESIAN
from chatvla_control.rotations import (
    axis_rotation,
    matrix_from_six,
    rotation_angle,
    rotation_vector,
    rotation_xyz,
    six_from_matrix,
    slerp,
)

from .poses import FRANKA, HOME, arc_rows

WITH_POSES = sorted(CARTESIAN)


def random_rotation(seed: int) -> np.ndarray:
    random = np.random.default_rng(seed)
    axis = random.normal(size=3)
    return axis_rotation(axis / np.linalg.norm(axis), random.uniform(0.1, 3.0))


@pytest.mark.parametrize("seed", range(5))
def test_six_numbers_hold_a_rotation(seed: int) -> None:
    rotation = random_rotation(seed)
    six = six_from_matrix(rotation)
    assert np.array_equal(six, [*rotation[:, 0], *rotation[:, 1]])
    assert np.allclose(matrix_from_six(six), rotation)
    noisy = matrix_from_six(six * 1.3 + np.random.default_rng(seed).normal(0.0, 0.02, 6))
    assert np.allclose(noisy.T @ noisy, np.eye(3))
    assert np.linalg.det(noisy) == pytest.approx(1.0)


@pytest.mark.parametrize("six", [np.zeros(6), np.array([1.0, 0, 0, 2.0, 0, 0])])
def test_six_numbers_that_span_no_frame_are_refused(six: np.ndarray) -> None:
    with pytest.raises(ValueError, match="span no frame"):
        matrix_from_six(six)


@pytest.mark.parametrize("angle", [1e-9, 0.3, 3.1, np.pi])
@pytest.mark.parametrize("axis", [(1.0, 0.0, 0.0), (0.6, 0.0, -0.8), (-2 / 3, 1 / 3, 2 / 3)])
def test_vector_and_angle_of_a_rotation(angle: float, axis: tuple[float, float, float]) -> None:
    rotation = axis_rotation(np.array(axis), angle)
    assert np.allclose(axis_rotation(np.array(axis), 1.0) @ rotation, rotation @ axis_rotation(np.array(axis), 1.0))
    vector = rotation_vector(rotation)
    assert np.linalg.norm(vector) == pytest.approx(angle, abs=1e-7)
    turned = axis_rotation(vector / np.linalg.norm(vector), float(np.linalg.norm(vector)))
    assert np.allclose(turned, rotation, atol=1e-7)
    assert float(rotation_angle(np.eye(3), rotation)) == pytest.approx(angle, abs=1e-7)


def test_slerp_turns_at_constant_speed_between_its_ends() -> None:
    first, second = random_rotation(1), random_rotation(2)
    way = [slerp(first, second, share) for share in np.linspace(0.0, 1.0, 11)]
    steps = [float(rotation_angle(a, b)) for a, b in itertools.pairwise(way)]
    assert np.allclose(way[0], first)
    assert np.allclose(way[-1], second)
    assert np.allclose(steps, steps[0])


def test_panda_flange_stands_where_its_maker_says() -> None:
    # Franka's own examples begin at this pose: O_T_EE with the hand (0.1034 m) is (0.3069, 0, 0.4869) m, pointing down.
    pose = tool_poses(FRANKA, HOME)[0]
    hand = pose[:3, 3] + (0.1034 - 0.145) * pose[:3, 0]
    assert hand == pytest.approx([0.3069, 0.0, 0.4869], abs=2e-4)
    assert pose[:3, 0] == pytest.approx([0, 0, -1], abs=1e-6)
    assert np.abs(pose[:3, 1]) == pytest.approx([0, 1, 0], abs=1e-6)


@pytest.mark.parametrize("robot", WITH_POSES)
@pytest.mark.parametrize("seed", range(3))
def test_jacobian_equals_finite_differences(robot: str, seed: int) -> None:
    spec = robot_spec(robot)
    for arm in arm_models(spec):
        lower, upper = spec.lower[arm.places], spec.upper[arm.places]
        positions = np.random.default_rng(seed).uniform(lower, upper)
        jacobian, step = arm.chain.jacobian(positions), 1e-6
        pose = arm.chain.forward(positions)
        moved = arm.chain.forward(positions + step * np.eye(len(positions)))
        assert (moved[:, :3, 3] - pose[:3, 3]).T / step == pytest.approx(jacobian[:3], abs=1e-5)
        for joint in range(len(positions)):
            turned = rotation_vector(moved[joint, :3, :3] @ pose[:3, :3].T) / step
            assert turned == pytest.approx(jacobian[3:, joint], abs=1e-4)


@pytest.mark.parametrize("robot", WITH_POSES)
def test_rows_survive_the_way_through_poses(robot: str) -> None:
    spec = robot_spec(robot)
    home = np.array(spec.home)
    rotary = np.array([joint.unit == "rad" for joint in spec.joints])
    rows = home + 0.15 * np.sin(np.arange(20) / 6.0)[:, None] * rotary
    poses = cartesian_rows(spec, rows)
    assert poses.shape == (20, len(cartesian_names(spec)))
    again = joint_rows(spec, poses, start=rows[0])
    assert np.abs(cartesian_rows(spec, again) - poses).max() < 0.006
    assert np.array_equal(again[:, ~rotary], rows[:, ~rotary])


@pytest.mark.parametrize("robot", WITH_POSES)
def test_home_lies_inside_the_workspace(robot: str) -> None:
    spec = robot_spec(robot)
    for arm in arm_models(spec):
        room, _ = margins(arm, np.array(spec.home)[arm.places][None])
        near = {name: float(value) for name, value in zip(margin_names(arm), room[0], strict=True) if value < 0.01}
        assert not near


@pytest.mark.parametrize("robot", WITH_POSES)
def test_cartesian_data_are_ordered_positive_and_cited(robot: str) -> None:
    spec, cartesian = robot_spec(robot), cartesian_spec(robot)
    assert cartesian is not None
    assert cartesian.width == len(cartesian_names(spec)) == 10 * len(spec.arms)
    for arm, limits in zip(spec.arms, cartesian.arms, strict=True):
        assert len(limits.links) == len(limits.joint_clearances_m) == len(arm.joints)
        assert (np.array(limits.lower) < np.array(limits.upper)).all()
        assert min(limits.speed_m_s, limits.speed_rad_s, limits.acceleration_m_s2) > 0.0
        assert limits.source
    assert json.loads(json.dumps(asdict(cartesian)))


def test_pose_out_of_reach_names_row_and_arm() -> None:
    rows = arc_rows()
    rows[3, 0] = 3.0
    with pytest.raises(IkError, match=r"row 3 of arm.*out of reach"):
        joint_rows(FRANKA, rows, start=HOME)


def test_every_robot_plays_poses_or_says_why_not() -> None:
    for name in robot_names():
        spec = robot_spec(name)
        if name in CARTESIAN:
            assert len(arm_models(spec)) == len(spec.arms)
        else:
            with pytest.raises(ValueError, match="has no Cartesian data"):
                tool_poses(spec, np.array(spec.home))


def test_stated_names_of_a_pose_row() -> None:
    assert cartesian_names(robot_spec("arx_r5"))[:11] == (
        *("left_x", "left_y", "left_z", "left_r1", "left_r2", "left_r3", "left_r4", "left_r5", "left_r6"),
        "left_gripper",
        "right_x",
    )


def test_rotation_xyz_turns_about_fixed_axes() -> None:
    x, z = np.array([1.0, 0, 0]), np.array([0, 0, 1.0])
    assert np.allclose(rotation_xyz(0.3, 0.0, 0.7), axis_rotation(z, 0.7) @ axis_rotation(x, 0.3))
