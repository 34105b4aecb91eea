# SPDX-License-Identifier: Apache-2.0
"""Ctrl-C and SIGTERM end a campaign within its parts, never while a scratch folder is made or deleted. No ROS."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

__all__ = ["StopAsked", "StopSignals"]

_NUMBERS = (signal.SIGINT, signal.SIGTERM)
"""SIGINT is ignored in a shell's background job unless it is taken."""


class StopAsked(KeyboardInterrupt):
    """A signal asked to stop.

    Not KeyboardInterrupt itself: `python -m` forgets its exit code and dies of SIGINT when one has left a string that
    `exec` ran, as a dataclass' making does, even when it was caught (bpo-1054041).
    """


class StopSignals:
    """Handlers of SIGINT and SIGTERM: StopAsked within `allowed()`; remembered for its next entry elsewhere."""

    def __init__(self) -> None:
        self._allowed = False
        self._asked = False

    @contextmanager
    def taken(self) -> Iterator[None]:
        """Take the signals; afterwards the handlers from before are back."""
        before = {number: signal.signal(number, self._on_signal) for number in _NUMBERS}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    @contextmanager
    def allowed(self) -> Iterator[None]:
        """Raise StopAsked when a signal comes, at once when one came before."""
        try:
            self._allowed = True
            if self._asked:
                raise StopAsked
            yield
        finally:
            self._allowed = False

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        del number, frame
        self._asked = True
        if self._allowed:
            raise StopAsked
