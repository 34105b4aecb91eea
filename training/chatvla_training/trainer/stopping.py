# SPDX-License-Identifier: Apache-2.0
"""Ctrl-C and SIGTERM let a run finish its step and keep its state; a second one stops it at once."""

from __future__ import annotations

import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

__all__ = ["StopRequest", "Stopped"]

_NUMBERS = (signal.SIGINT, signal.SIGTERM)


class Stopped(KeyboardInterrupt):
    """A run was asked to stop; what it had done is on the disk."""

    def __init__(self, step: int, number: int) -> None:
        """`step`: the last one done, in the newest state; `number`: of the signal, 0 when another device got it."""
        super().__init__(f"stopped after step {step}")
        self.step, self.number = step, number


class StopRequest:
    """Whether this process was asked to stop, and by which signal."""

    def __init__(self) -> None:
        self.number = 0
        """The signal's number, 0 for none."""

    @contextmanager
    def heard(self) -> Iterator[StopRequest]:
        """Take the signals within the block, in the main thread; Python gives them to no other.

        A signal that is ignored, as SIGINT is in a shell's background job, stays so.
        """
        if threading.current_thread() is not threading.main_thread():
            yield self
            return
        taken = [number for number in _NUMBERS if signal.getsignal(number) is not signal.SIG_IGN]
        before = {number: signal.signal(number, self._on_signal) for number in taken}
        try:
            yield self
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def comes(self, within_s: float = 1.0) -> bool:
        """Return whether a signal came or comes `within_s`: whoever ends a run by name may get to its workers first."""
        end_s = time.monotonic() + within_s
        while not self.number and time.monotonic() < end_s:
            time.sleep(0.02)
        return bool(self.number)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        del frame
        if self.number:
            raise KeyboardInterrupt
        self.number = number
        print("train: stops after this step; once more stops at once", file=sys.stderr)
