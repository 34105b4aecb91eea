# SPDX-License-Identifier: Apache-2.0
"""The rack: a deck on four legs, fixed on the table, open to the robot and to the camera. Units m."""

from __future__ import annotations

__all__ = ["BELOW_SHIFT_M", "DECK_M", "DECK_THICK_M", "DECK_TOP_M", "LEG_M", "RACK_SIZE_M", "leg_places"]

DECK_M = (0.150, 0.190)
"""Edges along the robot's x and y."""
DECK_TOP_M = 0.200
DECK_THICK_M = 0.010
LEG_M = 0.010
BELOW_SHIFT_M = -0.035
"""Where below the deck a toy is wanted: this far from the deck's middle along x, nearer to the robot."""
RACK_SIZE_M = (*DECK_M, DECK_TOP_M)


def leg_places() -> tuple[tuple[float, float], ...]:
    """Return the middles of the four legs, relative to the deck's middle."""
    x, y = DECK_M[0] / 2 - LEG_M / 2, DECK_M[1] / 2 - LEG_M / 2
    return tuple((sx * x, sy * y) for sx in (-1, 1) for sy in (-1, 1))
