# SPDX-License-Identifier: Apache-2.0
"""Kinematics against finite differences, against MuJoCo, and there and back."""

from __future__ import annotations

import mujoco
import numpy as np
import pytest

from chatvla_control.kinematics import IkError, rotation_vector
from chatvla_control.robot_spec import robot_spec
from chatvla_sim.arms.x5 import TOOL_OFFSET_M, arm_chain
from chatvla_sim.math_match.bench import MathMatchBench
from chatvla_sim.math_match.geometry import ARM_BASES
from chatvla_sim.trajectory import MotionBuilder

SPEC = robot_spec("arx_r5")
CHAIN = arm_chain(SPEC, SPEC.arms[0], ARM_BASES["left"])
HOME = np.array(SPEC.home[:6])


@pytest.mark.parametrize("seed", range(5))
def test_jacobian_equals_finite_differences(seed: int) -> None:
    positions = np.random.default_rng(seed).uniform(SPEC.lower[:6], SPEC.upper[:6])
    jacobian, step = CHAIN.jacobian(positions), 1e-6
    pose = CHAIN.forward(positions)
    for joint in range(6):
        moved = CHAIN.forward(positions + step * np.eye(6)[joint])
        assert (moved[:3, 3] - pose[:3, 3]) / step == pytest.approx(jacobian[:3, joint], abs=1e-5)
        turned = rotation_vector(moved[:3, :3] @ pose[:3, :3].T) / step
        assert turned == pytest.approx(jacobian[3:, joint], abs=1e-4)


@pytest.mark.parametrize("seed", range(5))
def test_forward_equals_the_simulator(seed: int) -> None:
    bench = MathMatchBench()
    positions = np.random.default_rng(seed).uniform(SPEC.lower, SPEC.upper)
    for name, value in zip(SPEC.arms[0].joints, positions[:6], strict=True):
        bench.data.joint(name).qpos[0] = value
    mujoco.mj_kinematics(bench.model, bench.data)
    hand = bench.data.body("left_joint6_link")
    tool = hand.xpos + TOOL_OFFSET_M * hand.xmat.reshape(3, 3)[:, 0]
    assert CHAIN.forward(positions[:6])[:3, 3] == pytest.approx(tool, abs=1e-6)


@pytest.mark.parametrize("seed", range(10))
def test_inverse_reaches_what_forward_gives(seed: int) -> None:
    rng = np.random.default_rng(seed)
    wanted = np.clip(HOME + rng.uniform(-0.5, 0.5, 6), SPEC.lower[:6], SPEC.upper[:6])
    target = CHAIN.forward(wanted)
    reached = CHAIN.forward(CHAIN.inverse(target, HOME))
    assert reached[:3, 3] == pytest.approx(target[:3, 3], abs=1e-3)
    assert np.linalg.norm(rotation_vector(reached[:3, :3] @ target[:3, :3].T)) < 0.01


def test_pose_out_of_reach_is_refused_with_how_near_it_came() -> None:
    target = CHAIN.forward(HOME)
    target[0, 3] += 2.0
    with pytest.raises(IkError, match=r"out of reach.*mm"):
        CHAIN.inverse(target, HOME)


def test_motion_from_speed_to_rest_keeps_limits_and_ends_there() -> None:
    speed_limit, acceleration_limit = np.full(2, 1.0), np.full(2, 4.0)
    builder = MotionBuilder(
        start_s=5.0,
        period_s=0.02,
        positions=np.zeros(2),
        speed=np.array([0.5, -0.5]),
        max_speed=speed_limit,
        max_acceleration=acceleration_limit,
    )
    builder.move(np.array([1.0, 1.0]))
    builder.hold(0.2)
    builder.follow(np.linspace([1.0, 1.0], [0.5, 1.5], 9))
    trajectory = builder.build()
    rows = trajectory.positions_ND
    speeds = np.diff(rows, axis=0) / 0.02
    assert np.abs(speeds).max() <= 1.02
    assert np.abs(np.diff(speeds, axis=0) / 0.02).max() <= 4.2
    assert trajectory.sample(np.array([100.0]))[0] == pytest.approx([0.5, 1.5])
