# SPDX-License-Identifier: Apache-2.0
"""Chunks within the robot's limits, and lined up with the chunk being played."""

from __future__ import annotations

import numpy as np
import pytest

from chatvla_control.chunk_check import check_chunk
from chatvla_control.contracts import ActionChunk, ActionMode
from chatvla_control.robot_spec import robot_spec
from chatvla_policy.processing.answers import stated_answer
from chatvla_policy.processing.chunks import committed_rows, playable_rows

SPEC = robot_spec("arx_r5")


def chunk_of(rows: np.ndarray, start_s: float = 1.0) -> ActionChunk:
    return ActionChunk(
        id="c",
        actions=rows,
        joint_names=SPEC.joint_names,
        robot="arx_r5",
        mode=ActionMode.JOINT_POSITION,
        stamp_s=start_s,
        start_s=start_s,
        step_period_s=0.02,
        valid_until_s=start_s + 0.02 * len(rows),
        policy="test",
    )


def test_rows_within_the_limits_come_back_unchanged() -> None:
    rows = np.linspace(np.array(SPEC.home), np.array(SPEC.home) - 0.02, 50)
    np.testing.assert_allclose(playable_rows(rows, SPEC, step_period_s=0.02), rows, atol=1e-9)


@pytest.mark.parametrize("scale", [0.1, 1.0, 100.0])
def test_wild_rows_become_playable(scale: float) -> None:
    rows = np.array(SPEC.home) + np.random.default_rng(0).normal(0, scale, (50, SPEC.width))
    kept = playable_rows(rows, SPEC, step_period_s=0.02)
    assert check_chunk(chunk_of(kept), SPEC, now_s=1.0) is None


def test_committed_rows_are_the_previous_chunk_on_the_new_grid() -> None:
    rows = np.linspace(np.zeros(14), np.ones(14), 50)
    found = committed_rows(chunk_of(rows), start_s=1.1, step_period_s=0.02, until_s=1.2, horizon=50)
    assert found is not None
    np.testing.assert_allclose(found, rows[5:11], atol=1e-9)


@pytest.mark.parametrize(("start_s", "until_s"), [(0.9, 1.2), (5.0, 5.2), (1.5, 1.4)])
def test_nothing_is_committed_outside_the_previous_chunk(start_s: float, until_s: float) -> None:
    rows = np.zeros((50, 14))
    assert committed_rows(chunk_of(rows), start_s=start_s, step_period_s=0.02, until_s=until_s, horizon=50) is None


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("On the whiteboard is 0+3. 0+3=3. There are: 3 (left), 1 (middle). I should pick left card.", "3"),
        ("12 - 4 = 8. So 8.", "8"),
        ("The result is 13.", "13"),
        ("I see a duck.", ""),
    ],
)
def test_stated_answer(text: str, answer: str) -> None:
    assert stated_answer(text) == answer
