# SPDX-License-Identifier: Apache-2.0
"""Turn action lists into chunks that the driver takes, and tell afterwards whether the arm got there.

A chunk is judged by the driver's own check before it is sent. What the grippers have been told is believed only once
the arm has done it: a chunk may still be refused, or come too late. Units m, rad, s. A arms; D joints; T rows.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from chatvla_control.cartesian import arm_models, cartesian_rows, tool_poses
from chatvla_control.cartesian_spec import POSE_WIDTH
from chatvla_control.chunk_check import check_chunk
from chatvla_control.contracts import ActionChunk, Observation
from chatvla_control.rotations import matrix_from_six, rotation_angle
from chatvla_policy.checkpoint.setup import RobotSetup
from chatvla_policy.vlm2vla.config import RobotMotion
from chatvla_policy.vlm2vla.waypoints import played_rows

__all__ = ["Motion", "Mover"]

Array = NDArray[np.float64]
SETTLE_S = 0.2
"""Time at rest after a motion before the next image counts."""
OPEN_SHARE = 0.5
"""A gripper measured wider than this share of its opening for 1 is taken as open at the start."""
REACHED_M, REACHED_RAD = 0.02, 0.2
"""How near its end a motion counts as done; a verifier looks closer."""
MOVES_M, MOVES_RAD = 0.01, 0.1
"""A motion longer than this shows by the tool's place whether it was played."""
GRIP_SHARE = 0.2
"""Share of its way that a gripper must have moved to count as moved: what it holds stops it early."""


@dataclass(frozen=True, kw_only=True)
class Motion:
    """One action list on its way."""

    arm: int
    chunk: ActionChunk
    start: Array
    """Measured joints [rad, m] before it, shape (D,)."""

    @property
    def end_s(self) -> float:
        """Time of the last row."""
        return self.chunk.start_s + (len(self.chunk.actions) - 1) * self.chunk.step_period_s

    def as_played(self, playing: ActionChunk) -> Motion:
        """Return the motion on the time grid of `playing`, the same chunk as it was sent on: its end tells."""
        late_s = playing.start_s + (len(playing.actions) - 1) * playing.step_period_s - self.end_s
        if abs(late_s) < 1e-6:
            return self
        chunk = self.chunk
        later = replace(chunk, start_s=chunk.start_s + late_s, valid_until_s=chunk.valid_until_s + late_s)
        return replace(self, chunk=later)

    def left(self, now_s: float) -> ActionChunk | None:
        """Return what is left of the chunk at `now_s`, None when it is over."""
        chunk = self.chunk
        first = max(0, int((now_s - chunk.start_s) / chunk.step_period_s + 1e-9))
        if first >= len(chunk.actions) - 1:
            return None
        start_s = chunk.start_s + first * chunk.step_period_s
        return replace(chunk, actions=chunk.actions[first:], stamp_s=now_s, start_s=start_s)


class Mover:
    """One robot's arms and what their grippers have been told."""

    def __init__(self, setup: RobotSetup, motion: RobotMotion, *, speed_m_s: float, grip_s: float) -> None:
        self._setup, self._motion = setup, motion
        self._speed_m_s, self._grip_s = speed_m_s, grip_s
        self._arms = arm_models(setup.spec)
        self._grips: list[float] = []

    def forget(self) -> None:
        """Forget what the grippers have been told."""
        self._grips = []

    def see(self, positions: Array) -> None:
        """Take measured joints [rad, m] for what the grippers were told, where nothing is known."""
        if not self._grips:
            openings = [float(positions[arm.gripper]) for arm in self._arms]
            wide = OPEN_SHARE * self._motion.open_m
            self._grips = [self._motion.closed_m if opening < wide else opening for opening in openings]

    def is_open(self, arm: int) -> bool:
        """Return whether a gripper has been told to be open."""
        return self._grips[arm] > 0.5 * (self._motion.open_m + self._motion.closed_m)

    def held(self, rows: Array, *, but: int | None = None) -> Array:
        """Return rows in which the grippers of all arms but one stay as they were told."""
        rows = rows.copy()
        for number, arm in enumerate(self._arms):
            if number != but:
                rows[:, arm.column + POSE_WIDTH - 1] = self._grips[number]
        return rows

    def motion(
        self, arm: int, actions_N4: Array, observation: Observation, chunk_of: Callable[[Array], ActionChunk]
    ) -> tuple[Motion | None, int]:
        """Return the motion of an action list from where the arm is, and how many of its actions were left out or cut.

        Its chunk, made of rows by `chunk_of`, passes the driver's check. None when not even the first action does.
        """
        positions, period_s = observation.joint_positions, self._setup.step_period_s
        played = played_rows(
            actions_N4,
            spec=self._setup.spec,
            arm=arm,
            positions=positions,
            motion=self._motion,
            speed_m_s=self._speed_m_s,
            grip_s=self._grip_s,
            period_s=period_s,
            gripper_m=self._grips[arm],
        )
        for left_out, stop in enumerate(reversed(played.ends)):
            rest = np.repeat(played.rows[stop - 1 : stop], math.ceil(SETTLE_S / period_s), axis=0)
            chunk = chunk_of(self.held(np.concatenate([played.rows[:stop], rest]), but=arm))
            if check_chunk(chunk, self._setup.spec, now_s=observation.stamp_s, measured=positions) is None:
                filtered = min(len(actions_N4), played.filtered + left_out)
                return Motion(arm=arm, chunk=chunk, start=positions.copy()), filtered
        return None, len(actions_N4)

    def arrived(self, motion: Motion, positions: Array) -> bool:
        """Return whether the arm is where a motion led, by measured joints; then its gripper is believed, too."""
        arm = self._arms[motion.arm]
        end = motion.chunk.actions[-1, arm.column : arm.column + POSE_WIDTH]
        start = cartesian_rows(self._setup.spec, motion.start[None])[0, arm.column : arm.column + POSE_WIDTH]
        pose = tool_poses(self._setup.spec, positions)[motion.arm]
        turn = matrix_from_six(end[3:9])
        there = (
            float(np.linalg.norm(pose[:3, 3] - end[:3])) <= REACHED_M
            and float(rotation_angle(pose[:3, :3], turn)) <= REACHED_RAD
        )
        moves = (
            float(np.linalg.norm(end[:3] - start[:3])) > MOVES_M
            or float(rotation_angle(matrix_from_six(start[3:9]), turn)) > MOVES_RAD
        )
        told, before = float(end[-1]), self._grips[motion.arm]
        way = abs(float(positions[arm.gripper] - motion.start[arm.gripper]))
        gripped = abs(told - before) < 1e-6 or way > GRIP_SHARE * abs(told - before)
        if gripped or (there and moves):
            self._grips[motion.arm] = told
        return there and (moves or gripped)
