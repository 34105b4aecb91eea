# SPDX-License-Identifier: Apache-2.0
"""A loop at the driver's rate that does nothing: how often this machine itself is late.

Run as `python -m benchmarks.bare_loop RATE_HZ`; it ends when its standard input does and prints its ticks and misses as
JSON. A miss is the driver's: a tick more than one and a half periods after the one before.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import threading
import time

__all__ = ["count_misses"]

_NICENESS, _REALTIME_PRIORITY = -10, 20
"""The driver's own, where the system allows them."""


def count_misses(rate_hz: float, ended: threading.Event) -> tuple[int, int]:
    """Return the ticks made until `ended`, and how many of them were late."""
    period_s = 1.0 / rate_hz
    ticks = missed = 0
    due_s = last_s = time.monotonic()
    while not ended.is_set():
        due_s += period_s
        behind_s = time.monotonic() - due_s
        if behind_s > period_s:
            due_s += behind_s
        elif behind_s < 0.0:
            time.sleep(-behind_s)
        now_s = time.monotonic()
        ticks += 1
        missed += now_s - last_s > 1.5 * period_s
        last_s = now_s
    return ticks, missed


def main() -> None:
    """Count until standard input ends."""
    with contextlib.suppress(OSError):
        os.setpriority(os.PRIO_PROCESS, 0, _NICENESS)
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(_REALTIME_PRIORITY))
    ended = threading.Event()
    threading.Thread(target=lambda: (sys.stdin.read(), ended.set()), daemon=True).start()
    ticks, missed = count_misses(float(sys.argv[1]), ended)
    print(json.dumps({"ticks": ticks, "misses": missed}), flush=True)


if __name__ == "__main__":
    main()
