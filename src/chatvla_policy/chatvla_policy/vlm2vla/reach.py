# SPDX-License-Identifier: Apache-2.0
"""Find out how far an arm can go along a straight way: over the table, and with joint positions that reach each pose.

What the driver's check refuses would not be moved at all; what is cut short here is. Units m, rad. J joints of one arm.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from chatvla_control.cartesian import ArmModel
from chatvla_control.cartesian_guard import pose_margins
from chatvla_control.rotations import pose_matrix, rotation_angle, slerp

__all__ = ["Reach"]

Array = NDArray[np.float64]
STEP_M, STEP_RAD = 0.03, 0.15
"""Poses of a way are tried no farther apart."""
OFF_M, OFF_RAD = 0.003, 0.02
"""How near joint positions must come to a pose; a third of what the driver's check lets pass."""
HALVINGS = 4


class Reach:
    """Where one arm's joints would be; each way goes on from the last."""

    def __init__(self, model: ArmModel, positions: Array) -> None:
        """`positions`: measured joints of the robot [rad, m], shape (D,)."""
        self._model = model
        self._joints = positions[model.places]
        # An arm that stands outside its limits may stay as far out.
        self._room = np.minimum(pose_margins(model, model.chain.forward(self._joints)[None])[0], 0.0)

    def lift_m(self, turn: Array, place: Array) -> float:
        """Return how much higher [m] a pose must be for the finger tips to stay over the table."""
        return max(0.0, -float(pose_margins(self._model, pose_matrix(turn, place)[None])[0, 6]))

    def share(self, place: Array, turn: Array, target: Array, turned: Array) -> float:
        """Return the share, 0 to 1, of the way from (place, turn) to (target, turned) that the arm can go."""
        steps = max(
            1,
            math.ceil(float(np.linalg.norm(target - place)) / STEP_M),
            math.ceil(float(rotation_angle(turn, turned)) / STEP_RAD),
        )
        done = 0.0
        for number in range(1, steps + 1):
            ahead = number / steps
            if not self._goes(place + ahead * (target - place), slerp(turn, turned, ahead)):
                width = ahead - done
                for _ in range(HALVINGS):
                    width /= 2.0
                    ahead = done + width
                    if self._goes(place + ahead * (target - place), slerp(turn, turned, ahead)):
                        done = ahead
                return done
            done = ahead
        return 1.0

    def _goes(self, place: Array, turn: Array) -> bool:
        """Return whether the arm can be at a pose, coming from where it is; if so it goes there."""
        pose = pose_matrix(turn, place)
        if (pose_margins(self._model, pose[None])[0] < self._room - 1e-6).any():
            return False
        joints, off_m, off_rad = self._model.chain.nearest(pose, self._joints, position_tolerance_m=1e-3)
        if off_m > OFF_M or off_rad > OFF_RAD:
            return False
        self._joints = joints
        return True
