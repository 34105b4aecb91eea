# SPDX-License-Identifier: Apache-2.0
"""Foresee how long the next inference takes, from image stamp to published chunk. No clock. Units s."""

from __future__ import annotations

from collections import deque

__all__ = ["DelayForecast"]


class DelayForecast:
    """The longest of the last delays, with a margin: what the chunk being played must still cover."""

    def __init__(self, *, start_s: float = 0.2, longest_s: float = 0.8, margin: float = 1.25, count: int = 8) -> None:
        """Begin with `start_s`; never foresee more than `longest_s`."""
        self._delays_s: deque[float] = deque([start_s], maxlen=count)
        self._longest_s, self._margin = longest_s, margin

    def add(self, delay_s: float) -> None:
        """Take one measured delay."""
        self._delays_s.append(max(delay_s, 0.0))

    def seconds(self) -> float:
        """Return the delay to reckon with."""
        return min(self._margin * max(self._delays_s), self._longest_s)
