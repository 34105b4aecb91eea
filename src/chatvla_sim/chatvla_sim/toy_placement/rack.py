# SPDX-License-Identifier: Apache-2.0
"""The rack: a deck on four legs, for a reference object, over a tray that reaches out toward the robot. Units m."""

from __future__ import annotations

__all__ = [
    "DECK_M",
    "DECK_THICK_M",
    "DECK_TOP_M",
    "LEG_M",
    "RACK_SIZE_M",
    "TRAY_FRONT_M",
    "TRAY_TOP_M",
    "leg_places",
    "rack_middle",
    "tray_place",
]

DECK_M = (0.150, 0.190)
"""Edges along the robot's x and y."""
DECK_TOP_M = 0.130
DECK_THICK_M = 0.010
LEG_M = 0.010
TRAY_FRONT_M = 0.130
"""How far the tray reaches out in front of the deck; it reaches to the deck's back, too."""
TRAY_TOP_M = 0.010
PLACE_M = 0.065
"""Where a gripper that points straight down puts a toy: this far in front of the deck."""
RACK_SIZE_M = (DECK_M[0] + TRAY_FRONT_M, DECK_M[1], DECK_TOP_M)


def leg_places() -> tuple[tuple[float, float], ...]:
    """Return the middles of the four legs, relative to the deck's middle."""
    x, y = DECK_M[0] / 2 - LEG_M / 2, DECK_M[1] / 2 - LEG_M / 2
    return tuple((sx * x, sy * y) for sx in (-1, 1) for sy in (-1, 1))


def rack_middle(deck: tuple[float, float]) -> tuple[float, float]:
    """Return the middle of deck and tray together, for a deck whose middle is at `deck`."""
    return (deck[0] - TRAY_FRONT_M / 2, deck[1])


def tray_place(deck: tuple[float, float]) -> tuple[float, float]:
    """Return where on the tray a toy is wanted, for a deck whose middle is at `deck`."""
    return (deck[0] - DECK_M[0] / 2 - PLACE_M, deck[1])
