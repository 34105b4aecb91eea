# SPDX-License-Identifier: Apache-2.0
"""The driver's chain of the Panda and the simulator's body are the same robot."""

from __future__ import annotations

import mujoco
import numpy as np
import pytest

from chatvla_control.cartesian import arm_models
from chatvla_control.robot_spec import robot_spec
from chatvla_sim.benches import make_bench

SPEC = robot_spec("franka")


@pytest.fixture(scope="module")
def bench() -> object:
    return make_bench("toy_placement")


@pytest.mark.parametrize("seed", range(5))
def test_tool_of_the_driver_is_the_tool_of_the_simulator(bench: object, seed: int) -> None:
    arm = arm_models(SPEC)[0]
    positions = np.random.default_rng(seed).uniform(SPEC.lower[:7], SPEC.upper[:7])
    for name, value in zip(SPEC.arms[0].joints, positions, strict=True):
        bench.data.joint(name).qpos[0] = value
    mujoco.mj_kinematics(bench.model, bench.data)
    last = bench.data.body("panda_joint7_link")
    pose = arm.chain.forward(positions)
    approach = last.xmat.reshape(3, 3)[:, 2]
    assert pose[:3, 0] == pytest.approx(approach, abs=1e-5)
    reach = 0.107 + 0.145
    assert pose[:3, 3] == pytest.approx(last.xpos + reach * approach, abs=1e-5)
