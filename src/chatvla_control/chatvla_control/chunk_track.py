# SPDX-License-Identifier: Apache-2.0
"""Say where a chunk wants the joints at a time: linear between joint rows; between poses a straight line and a slerp.

Units rad, m, s; joint vectors of shape (D,) in RobotSpec order. No ROS, no clock.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from chatvla_control.cartesian import ArmModel
from chatvla_control.cartesian_spec import POSE_WIDTH
from chatvla_control.contracts import ActionChunk
from chatvla_control.rotations import matrix_from_six, pose_matrix, slerp

__all__ = ["JointTrack", "PoseTrack", "Track"]

Array = NDArray[np.float64]
_INSET_M = 0.004
"""How far inside its limits a tool's target stays, so that the guard need not brake for it."""
_POSITION_TOLERANCE_M = 1e-4
_ROTATION_TOLERANCE_RAD = 1e-3
_ITERATIONS = 8


class Track(ABC):
    """A chunk on its time grid, plus an offset that fades out from `blend_from_s` on."""

    def __init__(self, chunk: ActionChunk, *, blend_from_s: float, blend_s: float) -> None:
        self.start_s = chunk.start_s
        self.period_s = chunk.step_period_s
        self.valid_until_s = chunk.valid_until_s
        self.steps = len(chunk.actions)
        self.offset: Array | None = None
        self._blend_from_s, self._blend_s = blend_from_s, blend_s

    @property
    def end_s(self) -> float:
        """Time of the last row."""
        return self.start_s + (self.steps - 1) * self.period_s

    @abstractmethod
    def target(self, row: int, share: float) -> Array:
        """Return the joints wanted `share` (0 .. 1) of the way from `row` to the next, shape (D,)."""

    def row_at(self, time_s: float) -> Array:
        """Return the chunk's own target, shape (D,), at `time_s`, held at both ends of the grid."""
        place = min(max((time_s - self.start_s) / self.period_s, 0.0), float(self.steps - 1))
        row = min(int(place), self.steps - 1)
        return self.target(row, place - row)

    def at(self, time_s: float) -> Array:
        """Return the target at `time_s` with what is left of the blend's offset: 1 - smoothstep of the time since."""
        faded = (time_s - self._blend_from_s) / self._blend_s
        if faded >= 1.0 or self.offset is None:
            return self.row_at(time_s)
        faded = max(faded, 0.0)
        return self.row_at(time_s) + (1.0 - faded * faded * (3.0 - 2.0 * faded)) * self.offset


class JointTrack(Track):
    """Rows of joint positions, moved inside the position limits."""

    def __init__(self, chunk: ActionChunk, *, lower: Array, upper: Array, blend_from_s: float, blend_s: float) -> None:
        super().__init__(chunk, blend_from_s=blend_from_s, blend_s=blend_s)
        self._rows = np.clip(chunk.actions, lower, upper)

    def target(self, row: int, share: float) -> Array:
        """Return the joints between two rows."""
        if share <= 0.0:
            return self._rows[row]
        return self._rows[row] + share * (self._rows[row + 1] - self._rows[row])


class PoseTrack(Track):
    """Rows of tool poses, moved inside the workspace; joints by inverse kinematics that starts at the last answer.

    A pose out of reach gives the joints that come nearest.
    """

    def __init__(
        self,
        chunk: ActionChunk,
        arms: Sequence[ArmModel],
        *,
        start: Array,
        blend_from_s: float,
        blend_s: float,
    ) -> None:
        """`start`: joint positions [rad, m], shape (D,), from which the arms keep their posture."""
        super().__init__(chunk, blend_from_s=blend_from_s, blend_s=blend_s)
        self._rows = np.asarray(chunk.actions, np.float64)
        self._arms = arms
        self._rotations = [matrix_from_six(self._rows[:, arm.column + 3 : arm.column + 9]) for arm in arms]
        self._solution = start.copy()
        self._solved: tuple[int, float] | None = None

    def target(self, row: int, share: float) -> Array:
        """Return the joints for the pose between two rows."""
        if self._solved != (row, share):
            following = min(row + 1, self.steps - 1)
            values = self._rows[row] + share * (self._rows[following] - self._rows[row])
            solution = self._solution.copy()
            for arm, rotations in zip(self._arms, self._rotations, strict=True):
                rotation = slerp(rotations[row], rotations[following], share)
                place = inside(arm, values[arm.column : arm.column + 3], rotation)
                solution[arm.places], _, _ = arm.chain.nearest(
                    pose_matrix(rotation, place),
                    solution[arm.places],
                    position_tolerance_m=_POSITION_TOLERANCE_M,
                    rotation_tolerance_rad=_ROTATION_TOLERANCE_RAD,
                    iterations=_ITERATIONS,
                )
                solution[arm.gripper] = values[arm.column + POSE_WIDTH - 1]
            self._solution, self._solved = solution, (row, share)
        return self._solution


def inside(arm: ArmModel, place: Array, rotation: Array) -> Array:
    """Return the point [m], shape (3,), nearest to `place` in the box and with the finger tips above the table."""
    limits = arm.cartesian
    lower, upper = np.array(limits.lower) + _INSET_M, np.array(limits.upper) - _INSET_M
    tips = limits.table_z_m + limits.clearance_m + _INSET_M - limits.finger_reach_m * rotation[2, 0]
    lower[2] = max(lower[2], tips)
    return np.minimum(np.maximum(place, lower), upper)
