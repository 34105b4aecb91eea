# SPDX-License-Identifier: Apache-2.0
"""Rows a little too near the table are raised where the driver would refuse them, and nothing else is touched."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from chatvla_control.cartesian import joint_rows
from chatvla_control.cartesian_check import check_joint_rows
from chatvla_control.chunk_fault import CheckSettings
from chatvla_control.clear_way import tool_arms
from chatvla_control.contracts import ActionChunk, ActionMode
from chatvla_control.robot_spec import robot_spec
from chatvla_control.rotations import rotation_angle
from chatvla_policy.processing.table_room import MOST_M, raised_rows

SPEC = robot_spec("franka")
(ARM,) = tool_arms(SPEC)
DOWN = (0.0, 0.0, -1.0, 0.0, -1.0, 0.0)
"""First two columns of the rotation of a gripper that points straight down."""


def descent(lowest_m: float) -> NDArray[np.float64]:
    """Return joint rows, shape (16, 8), of a tool that goes straight down to `lowest_m` above the table."""
    heights = np.linspace(0.06, lowest_m, 16)
    poses = np.array([[0.5, 0.1, height, *DOWN, 0.04] for height in heights])
    return joint_rows(SPEC, poses, start=np.array(SPEC.home))


def refused(rows: NDArray[np.float64]) -> bool:
    chunk = ActionChunk(
        id="a",
        actions=rows,
        joint_names=SPEC.joint_names,
        robot=SPEC.name,
        mode=ActionMode.JOINT_POSITION,
        stamp_s=0.0,
        start_s=0.0,
        step_period_s=1 / 15,
        valid_until_s=2.0,
        policy="test",
    )
    return check_joint_rows(chunk, [ARM], None, CheckSettings()) is not None


def test_a_grasp_a_centimetre_too_low_is_raised_to_where_the_guard_holds_it() -> None:
    rows = descent(0.012)
    assert refused(rows)
    raised = raised_rows(rows, SPEC)
    assert not refused(raised)
    before, after = (ARM.chain.forward(part[:, ARM.places]) for part in (rows, raised))
    heights = before[:, 2, 3]
    np.testing.assert_allclose(after[:, 2, 3], np.maximum(heights, 0.0221), atol=3e-4)
    np.testing.assert_allclose(after[:, :2, 3], before[:, :2, 3], atol=5e-4)
    assert rotation_angle(after[:, :3, :3], before[:, :3, :3]).max() < 0.01
    np.testing.assert_array_equal(raised[heights > 0.0221], rows[heights > 0.0221])
    np.testing.assert_array_equal(raised[:, ARM.gripper], rows[:, ARM.gripper])


def test_nonsense_is_left_to_the_check() -> None:
    rows = descent(0.02 - MOST_M)
    assert refused(raised_rows(rows, SPEC))


def test_rows_of_a_robot_whose_joint_rows_nobody_guards_stay_as_they_are() -> None:
    rows = np.zeros((4, robot_spec("arx_r5").width))
    assert raised_rows(rows, robot_spec("arx_r5")) is rows
