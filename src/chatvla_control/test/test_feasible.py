# SPDX-License-Identifier: Apache-2.0
"""A bent chunk keeps every limit on its grid, passes the check, and is left alone when it was feasible."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chatvla_control.chunk_check import check_chunk
from chatvla_control.feasible import feasible_rows

from .chunks import HOME, NOW_S, SPEC, chunk, wave


def test_feasible_rows_are_left_alone() -> None:
    rows = wave()[1:]
    assert np.allclose(feasible_rows(rows, SPEC, start=HOME, period_s=0.02), rows, atol=1e-12)


@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), spread=st.floats(0.0, 3.0))
def test_bent_rows_keep_the_limits_and_pass_the_check(seed: int, spread: float) -> None:
    rows = HOME + np.random.default_rng(seed).normal(0.0, spread, (40, 14))
    bent = feasible_rows(rows, SPEC, start=HOME, period_s=0.02)
    speeds = np.diff(np.vstack([HOME, bent]), axis=0) / 0.02
    changes = np.diff(np.vstack([np.zeros(14), speeds]), axis=0) / 0.02
    assert ((bent >= SPEC.lower) & (bent <= SPEC.upper)).all()
    assert (np.abs(speeds) <= SPEC.velocity * (1 + 1e-9)).all()
    assert (np.abs(changes) <= SPEC.acceleration * (1 + 1e-6)).all()
    assert check_chunk(chunk(bent), SPEC, now_s=NOW_S, measured=HOME) is None


def test_a_jump_becomes_a_reach_without_overshoot() -> None:
    goal = HOME + 0.3 * np.eye(14)[0]
    bent = feasible_rows(np.repeat(goal[None], 60, axis=0), SPEC, start=HOME, period_s=0.02)
    assert bent[:, 0].max() <= goal[0] + 1e-9
    assert bent[-1, 0] == pytest.approx(goal[0], abs=1e-3)


@pytest.mark.parametrize("rows", [np.zeros((3, 13)), np.zeros(14), np.full((3, 14), np.nan)])
def test_rows_that_are_no_motion_are_refused(rows: np.ndarray) -> None:
    with pytest.raises(ValueError, match="rows"):
        feasible_rows(rows, SPEC, start=HOME, period_s=0.02)
