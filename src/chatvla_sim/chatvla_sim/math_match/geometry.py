# SPDX-License-Identifier: Apache-2.0
"""Say where things stand on the math bench.

Units m and rad; robot's base frame: +x forward, +y left, +z up, table at z = 0.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from chatvla_control.kinematics import pose_matrix
from chatvla_sim.camera import PinholeCamera

__all__ = [
    "ARM_BASES",
    "BOARD_SIZE_M",
    "CARD_SIZE_M",
    "MAX_CARDS",
    "PLACE_WORDS",
    "TOP_CAMERA",
    "board_pose",
    "flat_card_pose",
    "goal_pose",
    "place_words",
]

ARM_BASES = {"left": (0.0, 0.28, 0.0), "right": (0.0, -0.28, 0.0)}
CARD_SIZE_M = (0.056, 0.070, 0.022)
"""Card's own axes: x to the digits' right, y to their top, z out of the printed face. Gripped across x."""
MAX_CARDS = 5
CARD_ROW_X_M = 0.255
"""Middle of the row of cards."""
CARD_ROW_HALF_M = {3: 0.135, 4: 0.165, 5: 0.190}
"""y of the outermost card for each number of cards."""
BOARD_TILT_RAD = np.pi / 4
BOARD_LIP_X_M = 0.37
BOARD_LIP_Z_M = 0.020
BOARD_SIZE_M = (0.44, 0.20)
"""Width along y, length up the slope."""
LIP_HEIGHT_M = 0.014
PLACE_WORDS = {
    3: ("left", "middle", "right"),
    4: ("far left", "left", "right", "far right"),
    5: ("far left", "left", "middle", "right", "far right"),
}
"""Places from the robot's left (+y) to its right."""

TOP_CAMERA = PinholeCamera(position=(-0.05, 0.0, 0.80), target=(0.350, 0.0, 0.05), fovy_deg=27.0)
"""The central part, 27 degrees high, of a RealSense L515's colour image, scaled to 320x240."""


def place_words(count: int) -> tuple[str, ...]:
    """Return the places of `count` cards, left to right. Raises ValueError outside 3..5."""
    if count not in PLACE_WORDS:
        raise ValueError(f"{count} cards; the bench holds 3, 4 or 5")
    return PLACE_WORDS[count]


def board_pose() -> NDArray[np.float64]:
    """Return base_from_board (4, 4): origin at the lip's middle, x to the writing's right, y up the slope, z out."""
    c, s = np.cos(BOARD_TILT_RAD), np.sin(BOARD_TILT_RAD)
    rotation = np.array([[0, c, -s], [-1.0, 0, 0], [0, s, c]])
    return pose_matrix(rotation, np.array([BOARD_LIP_X_M, 0.0, BOARD_LIP_Z_M]))


def goal_pose() -> NDArray[np.float64]:
    """Return base_from_card (4, 4) of a card that rests in the slot: on the board, on the lip, upright."""
    slot = pose_matrix(np.eye(3), np.array([0.0, CARD_SIZE_M[1] / 2, CARD_SIZE_M[2] / 2]))
    return board_pose() @ slot


def flat_card_pose(x_m: float, y_m: float, yaw_rad: float) -> NDArray[np.float64]:
    """Return base_from_card (4, 4) of a card on the table, digits' top away from the robot, turned by yaw."""
    c, s = np.cos(yaw_rad), np.sin(yaw_rad)
    rotation = np.array([[c, -s, 0], [s, c, 0], [0, 0, 1.0]]) @ np.array([[0, 1.0, 0], [-1.0, 0, 0], [0, 0, 1.0]])
    return pose_matrix(rotation, np.array([x_m, y_m, CARD_SIZE_M[2] / 2]))
