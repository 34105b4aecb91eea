# SPDX-License-Identifier: Apache-2.0
"""Bring the scene's truth and the measured joints to one time, as the expert's observation. Units s, rad, m."""

from __future__ import annotations

from collections import deque

import numpy as np

from chatvla_control.arm_port import JointState
from chatvla_control.contracts import Observation
from chatvla_control.scene import SceneTruth

__all__ = ["ExpertInputs"]

KEPT = 100
"""Joint states kept: two seconds at 50 Hz."""


class ExpertInputs:
    """The newest truths (10 Hz) and joint states (50 Hz); joints are interpolated to a truth's time."""

    def __init__(self, *, max_age_s: float) -> None:
        """What is older than `max_age_s` counts as missing."""
        self._max_age_s = max_age_s
        self._joints: deque[JointState] = deque(maxlen=KEPT)
        self._truths: deque[SceneTruth] = deque(maxlen=10)

    def add_joints(self, state: JointState) -> None:
        """Take one measurement; one that is older than the last starts the history anew."""
        if self._joints and state.stamp_s <= self._joints[-1].stamp_s:
            self._joints.clear()
        self._joints.append(state)

    def add_truth(self, truth: SceneTruth) -> None:
        """Take one truth of the scene."""
        if self._truths and truth.stamp_s <= self._truths[-1].stamp_s:
            self._truths.clear()
        self._truths.append(truth)

    def missing(self, now_s: float) -> str:
        """Return "joint_states", "sim/bench_state" or "" when all is there and fresh."""
        if not self._joints or now_s - self._joints[-1].stamp_s > self._max_age_s:
            return "joint_states"
        if not self._truths or now_s - self._truths[-1].stamp_s > self._max_age_s or not self._truths[-1].ready:
            return "sim/bench_state"
        return ""

    def observe(self, instruction: str) -> tuple[Observation, SceneTruth] | None:
        """Return the newest truth that joints are known for, with the joints of that time; None when there is none."""
        if not self._joints:
            return None
        first, last = self._joints[0].stamp_s, self._joints[-1].stamp_s
        truth = next((t for t in reversed(self._truths) if first <= t.stamp_s <= last and t.ready), None)
        if truth is None or truth.trial != self._truths[-1].trial:
            return None
        stamps = np.array([state.stamp_s for state in self._joints])
        rows = np.array([state.positions for state in self._joints])
        positions = np.array([np.interp(truth.stamp_s, stamps, column) for column in rows.T])
        observation = Observation(
            images={}, image_stamps_s={}, joint_positions=positions, instruction=instruction, stamp_s=truth.stamp_s
        )
        return observation, truth
