# SPDX-License-Identifier: Apache-2.0
"""Chunks for tests."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from chatvla_control.contracts import ActionChunk, ActionMode
from chatvla_control.robot_spec import robot_spec

SPEC = robot_spec("arx_r5")
HOME = np.array(SPEC.home)
NOW_S = 1000.0


def wave(steps: int = 50, period_s: float = 0.02, amplitude: float = 0.1, hz: float = 1.0) -> np.ndarray:
    """Rows that leave home and come back, at rest at both ends: rotary joints only."""
    rotary = np.array([joint.unit == "rad" for joint in SPEC.joints])
    times = np.arange(steps) * period_s
    return HOME + amplitude * (1 - np.cos(2 * np.pi * hz * times))[:, None] * rotary


def swing() -> np.ndarray:
    """70 rows in which left_joint1 comes to 2 rad/s in 0.4 s and goes on so."""
    times = np.arange(70) * 0.02
    way = np.where(times < 0.4, 2.5 * times**2, 0.4 + 2.0 * (times - 0.4))
    return HOME + way[:, None] * np.eye(14)[0]


def chunk(rows: np.ndarray | None = None, **changes: Any) -> ActionChunk:
    """A good chunk that starts at NOW_S, with `changes`."""
    actions = wave() if rows is None else rows
    good = ActionChunk(
        id="c1",
        actions=actions,
        joint_names=SPEC.joint_names,
        robot=SPEC.name,
        mode=ActionMode.JOINT_POSITION,
        stamp_s=NOW_S,
        start_s=NOW_S,
        step_period_s=0.02,
        valid_until_s=NOW_S + len(actions) * 0.02 + 0.2,
        policy="test",
    )
    return dataclasses.replace(good, **changes)
