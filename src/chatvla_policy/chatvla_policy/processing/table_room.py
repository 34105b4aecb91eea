# SPDX-License-Identifier: Apache-2.0
"""Raise a chunk's rows that would bring finger tips a little too near the table, where the driver guards joint rows.

A learned grasp is off by millimetres; one row too low and the driver refuses the whole chunk, again and again, since
the next chunk is made from the same picture. What lies farther below than MOST_M is no small error and is left to the
driver's check. Units rad, m. T rows, D joints.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from chatvla_control.cartesian_guard import MARGIN, margin_names, margins
from chatvla_control.clear_way import tool_arms
from chatvla_control.robot_spec import RobotSpec

__all__ = ["MOST_M", "raised_rows"]

MOST_M = 0.03
"""Farthest that a row is raised."""
ROUNDS = 3
SPARE_M = 1e-4


def raised_rows(rows: NDArray[np.float64], spec: RobotSpec) -> NDArray[np.float64]:
    """Return rows, shape (T, D), whose finger tips keep off the table by what the driver's guard keeps.

    A row is raised straight up, its gripper turned as it was. Of a robot whose joint rows are not guarded, all rows
    stay as they are.
    """
    raised = rows
    for arm in tool_arms(spec):
        column = margin_names(arm).index("table")
        for _ in range(ROUNDS):
            room_T = margins(arm, raised[:, arm.places])[0][:, column]
            low = np.flatnonzero((room_T < MARGIN) & (room_T > MARGIN - MOST_M))
            if not len(low):
                break
            raised = raised.copy()
            for row in low:
                positions = raised[row, arm.places]
                up_6 = np.array([0.0, 0.0, MARGIN + SPARE_M - room_T[row], 0.0, 0.0, 0.0])
                raised[row, arm.places] = positions + np.linalg.pinv(arm.chain.jacobian(positions)) @ up_6
    return raised
