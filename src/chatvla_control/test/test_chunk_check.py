# SPDX-License-Identifier: Apache-2.0
"""A good chunk passes; each broken field is refused under its own name with one sentence."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from chatvla_control.chunk_check import CheckSettings, FaultCode, check_chunk
from chatvla_control.contracts import ActionMode

from .chunks import HOME, NOW_S, SPEC, chunk, wave


def judged(changes: dict[str, Any], rows: np.ndarray | None = None, measured: np.ndarray | None = HOME) -> Any:
    return check_chunk(chunk(rows, **changes), SPEC, now_s=NOW_S, measured=measured)


def put(row: int, joint: int, value: float) -> np.ndarray:
    rows = wave()
    rows[row, joint] = value
    return rows


def test_good_chunk_passes() -> None:
    assert judged({}) is None


def test_learned_chunk_with_noise_passes() -> None:
    rows = wave() + np.random.default_rng(0).normal(0.0, 0.001, (50, 14))
    assert judged({}, np.clip(rows, SPEC.lower, SPEC.upper)) is None


NAMES = SPEC.joint_names


@pytest.mark.parametrize(
    ("code", "changes"),
    [
        (FaultCode.WRONG_ROBOT, {"robot": "franka"}),
        (FaultCode.WRONG_ROBOT, {"robot": ""}),
        (FaultCode.WRONG_SIZE, {"mode": ActionMode.CARTESIAN_POSE}),
        (FaultCode.UNKNOWN_MODE, {"mode": 7}),
        (FaultCode.WRONG_NAMES, {"joint_names": ()}),
        (FaultCode.WRONG_NAMES, {"joint_names": NAMES[:-1]}),
        (FaultCode.WRONG_NAMES, {"joint_names": (*NAMES, "head")}),
        (FaultCode.WRONG_NAMES, {"joint_names": (*NAMES[:-1], "head")}),
        (FaultCode.WRONG_NAMES, {"joint_names": (*NAMES[:-1], NAMES[0])}),
        (FaultCode.WRONG_ORDER, {"joint_names": NAMES[7:] + NAMES[:7]}),
        (FaultCode.WRONG_SIZE, {"actions": np.zeros((0, 14))}),
        (FaultCode.WRONG_SIZE, {"actions": np.zeros((50, 13))}),
        (FaultCode.WRONG_SIZE, {"actions": np.zeros(14)}),
        (FaultCode.WRONG_SIZE, {"actions": np.zeros((2001, 14))}),
        (FaultCode.NOT_FINITE, {"actions": put(3, 2, math.nan)}),
        (FaultCode.NOT_FINITE, {"actions": put(49, 13, math.inf)}),
        (FaultCode.NOT_FINITE, {"stamp_s": math.nan}),
        (FaultCode.NOT_FINITE, {"start_s": math.inf}),
        (FaultCode.NOT_FINITE, {"valid_until_s": math.nan}),
        (FaultCode.BAD_PERIOD, {"step_period_s": 0.0}),
        (FaultCode.BAD_PERIOD, {"step_period_s": -0.02}),
        (FaultCode.BAD_PERIOD, {"step_period_s": math.nan}),
        (FaultCode.BAD_PERIOD, {"step_period_s": 1e9}),
        (FaultCode.STALE_STAMP, {"stamp_s": NOW_S - 2.1}),
        (FaultCode.STALE_STAMP, {"stamp_s": 0.0}),
        (FaultCode.FUTURE_STAMP, {"stamp_s": NOW_S + 0.1}),
        (FaultCode.FUTURE_STAMP, {"stamp_s": 4.1e9}),
        (FaultCode.START_IN_PAST, {"start_s": NOW_S - 2.1}),
        (FaultCode.START_IN_FUTURE, {"start_s": NOW_S + 1.1}),
        (FaultCode.BAD_VALIDITY, {"valid_until_s": NOW_S - 0.001}),
        (FaultCode.BAD_VALIDITY, {"valid_until_s": NOW_S + 31.0}),
        (FaultCode.EXPIRED, {"start_s": NOW_S - 0.5, "valid_until_s": NOW_S - 0.01}),
        (FaultCode.EXPIRED, {"start_s": NOW_S - 1.1}),
        (FaultCode.POSITION_LIMIT, {"actions": put(0, 1, -0.2)}),
        (FaultCode.POSITION_LIMIT, {"actions": put(49, 6, 0.2)}),
        (FaultCode.POSITION_LIMIT, {"actions": put(10, 0, 1e308)}),
        (FaultCode.VELOCITY_LIMIT, {"actions": put(10, 0, 0.2)}),
        (FaultCode.VELOCITY_LIMIT, {"actions": wave(period_s=0.02), "step_period_s": 0.002}),
        (FaultCode.VELOCITY_LIMIT, {"actions": put(10, 6, 0.0)}),
        (FaultCode.ACCELERATION_LIMIT, {"actions": put(10, 0, wave()[10, 0] + 0.03)}),
        (FaultCode.JUMP, {"actions": wave() + 0.6 * np.eye(14)[0]}),
    ],
)
def test_one_broken_field_is_refused_by_name(code: FaultCode, changes: dict[str, Any]) -> None:
    fault = judged(changes)
    assert fault is not None
    assert fault.code is code, fault
    assert 20 < len(fault.message) < 400
    assert "\n" not in fault.message


def test_long_foreign_text_is_cut_in_the_sentence() -> None:
    fault = judged({"robot": "x" * 10**6})
    assert fault is not None
    assert len(fault.message) < 200


def test_measured_nan_counts_as_a_jump() -> None:
    fault = judged({}, measured=np.where(np.arange(14) == 3, np.nan, HOME))
    assert fault is not None
    assert fault.code is FaultCode.JUMP


def test_gripper_that_holds_an_object_is_no_jump() -> None:
    rows = wave()
    rows[:, 6] = 0.0
    measured = HOME.copy()
    measured[6] = 0.056
    assert judged({}, rows, measured) is None


def test_gripper_that_shuts_within_a_few_rows_passes() -> None:
    rows = wave()
    rows[20:, 6] = 0.0
    rows[18:20, 6] = 0.03, 0.015
    assert judged({}, rows) is None


def test_rows_whose_time_has_passed_may_be_fast() -> None:
    rows = wave()
    rows[:5, 0] += 0.3
    assert judged({"start_s": NOW_S - 0.2}, rows, measured=rows[10]) is None


def test_first_step_is_judged_at_the_present_row() -> None:
    rows = wave(amplitude=0.5)
    late = {"start_s": NOW_S - 0.5, "valid_until_s": NOW_S + 1.0}
    assert judged(late, rows, measured=rows[25]) is None
    fault = judged(late, rows, measured=HOME)
    assert fault is not None
    assert fault.code is FaultCode.JUMP


def test_a_later_start_may_lie_farther_away() -> None:
    rows = wave() + 0.8 * np.eye(14)[0]
    assert judged({"start_s": NOW_S + 0.2, "valid_until_s": NOW_S + 1.3}, rows) is None


def test_settings_change_the_limit() -> None:
    strict = CheckSettings(max_age_s=0.1)
    fault = check_chunk(chunk(stamp_s=NOW_S - 0.2), SPEC, now_s=NOW_S, measured=HOME, limits=strict)
    assert fault is not None
    assert "0.1 s" in fault.message


def test_every_code_is_tried_here() -> None:
    by_others = {FaultCode.MALFORMED, FaultCode.DRIVER_FAULT, FaultCode.NO_STATE}
    of_the_tool = {
        FaultCode.BAD_ROTATION,
        FaultCode.WORKSPACE,
        FaultCode.TABLE,
        FaultCode.ORIENTATION,
        FaultCode.UNREACHABLE,
    }
    marks = test_one_broken_field_is_refused_by_name.pytestmark  # type: ignore[attr-defined]
    assert {case[0] for mark in marks for case in mark.args[1]} | by_others | of_the_tool == set(FaultCode)
