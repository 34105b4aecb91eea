# SPDX-License-Identifier: Apache-2.0
"""Bring recorded tracks to one time grid at the control rate, and say where the record has gaps. No ROS.

Shapes: M messages; N rows; D joints. Times in s.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["Gap", "Track", "find_gaps", "resampled", "whole_stretches"]


@dataclass(frozen=True, kw_only=True)
class Track:
    """Positions of all joints over time."""

    name: str
    times_s: NDArray[np.float64]
    """Ascending, shape (M,)."""
    values: NDArray[np.float64]
    """rad and m, shape (M, D)."""


@dataclass(frozen=True, kw_only=True)
class Gap:
    """A time without messages."""

    track: str
    start_s: float
    duration_s: float


def find_gaps(name: str, times_s: NDArray[np.float64], *, limit_s: float) -> list[Gap]:
    """Return the gaps longer than `limit_s` between messages."""
    steps = np.diff(times_s)
    return [
        Gap(track=name, start_s=float(times_s[index]), duration_s=float(steps[index]))
        for index in np.flatnonzero(steps > limit_s)
    ]


def whole_stretches(start_s: float, stop_s: float, gaps: list[Gap], *, shortest_s: float) -> list[tuple[float, float]]:
    """Return the parts of [start, stop] that no gap touches and that last at least `shortest_s`."""
    stretches = [(start_s, stop_s)]
    for gap in gaps:
        low, high = gap.start_s, gap.start_s + gap.duration_s
        cut: list[tuple[float, float]] = []
        for a, b in stretches:
            cut += [(a, b)] if high <= a or low >= b else [(a, min(b, low)), (max(a, high), b)]
        stretches = cut
    return [(a, b) for a, b in stretches if b - a >= shortest_s]


def resampled(track: Track, grid_s: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the positions at the grid's times, shape (N, D): linear between messages, held at the ends."""
    columns = [np.interp(grid_s, track.times_s, column) for column in track.values.T]
    return np.stack(columns, axis=1)
