# SPDX-License-Identifier: Apache-2.0
"""A good pose chunk passes; each broken part is refused under its own name with one sentence."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from chatvla_control.cartesian import cartesian_rows, joint_rows
from chatvla_control.cartesian_spec import cartesian_spec
from chatvla_control.chunk_check import FaultCode, check_chunk
from chatvla_control.contracts import ActionMode
from chatvla_control.robot_spec import robot_spec
from chatvla_control.robots import CARTESIAN
from chatvla_control.rotations import axis_rotation, matrix_from_six, six_from_matrix

from .poses import FRANKA, HOME, NOW_S, PERIOD_S, arc_rows, pose_chunk, still_rows

TOOL = still_rows()[0, :3]


def judged(rows: np.ndarray | None = None, measured: np.ndarray | None = HOME, **changes: Any) -> Any:
    return check_chunk(pose_chunk(rows, **changes), FRANKA, now_s=NOW_S, measured=measured)


def moved(column: int, value: float, row: int = 8) -> np.ndarray:
    rows = still_rows()
    rows[row, column] = value
    return rows


def shifted(offset: np.ndarray, steps: int = 31) -> np.ndarray:
    """Rows that drift away by `offset` [m], smoothly."""
    rows = still_rows(steps=steps)
    rows[:, :3] += 0.5 * (1 - np.cos(np.pi * np.arange(steps) / (steps - 1)))[:, None] * offset
    return rows


def turned(axis: tuple[float, float, float], angle: float, steps: int = 31) -> np.ndarray:
    rows = still_rows(steps=steps)
    start = matrix_from_six(rows[0, 3:9])
    for row in range(steps):
        share = 0.5 * (1 - math.cos(math.pi * row / (steps - 1)))
        rows[row, 3:9] = six_from_matrix(axis_rotation(np.array(axis), share * angle) @ start)
    return rows


@pytest.mark.parametrize("robot", sorted(CARTESIAN))
def test_good_chunk_passes(robot: str) -> None:
    spec = robot_spec(robot)
    chunk = pose_chunk(arc_rows(spec, reach_m=0.03), spec)
    assert check_chunk(chunk, spec, now_s=NOW_S, measured=np.array(spec.home)) is None


def test_learned_rotation_with_noise_passes() -> None:
    rows = arc_rows()
    rows[:, 3:9] += np.random.default_rng(0).normal(0.0, 0.01, (31, 6))
    assert judged(rows) is None


@pytest.mark.parametrize(
    ("code", "rows"),
    [
        (FaultCode.WRONG_SIZE, np.zeros((16, 8))),
        (FaultCode.NOT_FINITE, moved(2, math.nan)),
        (FaultCode.NOT_FINITE, moved(8, math.inf)),
        (FaultCode.BAD_ROTATION, moved(3, 1e300)),
        (FaultCode.BAD_ROTATION, np.concatenate([still_rows()[:, :3], np.zeros((16, 6)), np.zeros((16, 1))], axis=1)),
        (FaultCode.POSITION_LIMIT, moved(9, 0.2)),
        (FaultCode.POSITION_LIMIT, moved(9, -0.05)),
        (FaultCode.WORKSPACE, shifted(np.array([0.0, 0.7, 0.0]))),
        (FaultCode.WORKSPACE, shifted(np.array([-0.2, 0.0, 0.0]))),
        (FaultCode.WORKSPACE, moved(0, 1e300)),
        (FaultCode.TABLE, shifted(np.array([0.0, 0.0, -TOOL[2] + 0.012]))),
        (FaultCode.ORIENTATION, turned((0.0, 1.0, 0.0), -2.4)),
        (FaultCode.VELOCITY_LIMIT, moved(1, 0.09)),
        (FaultCode.VELOCITY_LIMIT, turned((0.0, 0.0, 1.0), 1.5, steps=8)),
        (FaultCode.ACCELERATION_LIMIT, moved(1, 0.8 * PERIOD_S)),
        (FaultCode.JUMP, still_rows() + np.where(np.arange(10) == 1, 0.15, 0.0)),
        (FaultCode.UNREACHABLE, shifted(np.array([0.45, 0.5, 0.25]), steps=91)),
    ],
)
def test_one_broken_part_is_refused_by_name(code: FaultCode, rows: np.ndarray) -> None:
    fault = judged(rows)
    assert fault is not None
    assert fault.code is code, fault
    assert 20 < len(fault.message) < 400
    assert "\n" not in fault.message


def test_turn_about_the_jump_limit() -> None:
    rows = still_rows()
    rows[:, 3:9] = turned((0.0, 0.0, 1.0), 0.5)[-1, 3:9]
    fault = judged(rows)
    assert fault is not None
    assert fault.code is FaultCode.JUMP
    assert judged(rows, start_s=NOW_S + 0.2, valid_until_s=NOW_S + 2.0) is None


def test_a_posture_of_the_arm_is_not_asked_without_a_measurement() -> None:
    assert judged(shifted(np.array([0.45, 0.5, 0.25]), steps=91), measured=None) is None


def test_joint_chunk_of_a_guarded_robot_stays_above_the_table() -> None:
    rows = joint_rows(FRANKA, shifted(np.array([0.0, 0.0, -0.38]), steps=61), start=HOME)
    assert check_chunk(joint_chunk(rows), FRANKA, now_s=NOW_S, measured=HOME) is None
    low = joint_rows(FRANKA, shifted(np.array([0.0, 0.0, -0.43]), steps=61), start=HOME)
    fault = check_chunk(joint_chunk(low), FRANKA, now_s=NOW_S, measured=HOME)
    assert fault is not None
    assert fault.code is FaultCode.TABLE


def test_an_arm_parked_outside_may_come_back() -> None:
    parked = joint_rows(FRANKA, shifted(np.array([-0.15, 0.0, 0.1])), start=HOME)[-1]
    back = np.linspace(parked, HOME, 60)
    assert check_chunk(joint_chunk(back), FRANKA, now_s=NOW_S, measured=parked) is None
    farther = np.linspace(parked, parked + (parked - HOME) / 3, 60)
    fault = check_chunk(joint_chunk(farther), FRANKA, now_s=NOW_S, measured=parked)
    assert fault is not None
    assert fault.code is FaultCode.WORKSPACE


def test_a_cell_may_narrow_its_workspace() -> None:
    cartesian = cartesian_spec("franka")
    assert cartesian is not None
    narrow = replace(cartesian, arms=(replace(cartesian.arms[0], upper=(0.32, 0.6, 0.8)),))
    fault = check_chunk(pose_chunk(), FRANKA, now_s=NOW_S, measured=HOME, cartesian=narrow)
    assert fault is not None
    assert "upper x" in fault.message


def joint_chunk(rows: np.ndarray) -> Any:
    return pose_chunk(rows, mode=ActionMode.JOINT_POSITION)


def test_rows_and_workspace_speak_of_the_same_point() -> None:
    assert cartesian_rows(FRANKA, HOME[None])[0, :3] == pytest.approx([0.3069, 0.0, 0.4453], abs=1e-3)
