# SPDX-License-Identifier: Apache-2.0
"""Wait until the nodes that an evaluation needs are there, and say plainly which are missing."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

__all__ = ["GraphCrowdedError", "GraphIncompleteError", "Part", "wait_for_parts"]

_POLL_S = 0.1
_REPORT_EVERY_S = 2.0


class GraphIncompleteError(RuntimeError):
    """Some part of the graph did not come up; the message names each and what usually provides it."""


class GraphCrowdedError(RuntimeError):
    """Something that must be alone is there twice; the message names it and what to do."""


@dataclass(frozen=True, kw_only=True)
class Part:
    """One thing that must be in the graph."""

    what: str
    """In words, with the topic or service name: "the simulator (service sim/reset_bench)"."""
    ready: Callable[[], bool]


def wait_for_parts(
    parts: Sequence[Part], *, timeout_s: float, report: Callable[[str], None], stopped: Callable[[], bool]
) -> bool:
    """Wait until all parts are ready, reporting what is missing every 2 s; return False when `stopped` says so before.

    Raises GraphIncompleteError after `timeout_s`.
    """
    started = time.monotonic()
    reported = started
    while not stopped():
        missing = [part.what for part in parts if not part.ready()]
        if not missing:
            return True
        now = time.monotonic()
        if now - started > timeout_s:
            raise GraphIncompleteError(
                f"waited {timeout_s:.0f} s and there is still no " + ", no ".join(missing) + "; is it launched, "
                "in the same namespace and ROS_DOMAIN_ID?"
            )
        if now - reported >= _REPORT_EVERY_S:
            reported = now
            report(f"waiting for {', '.join(missing)} ({now - started:.0f} s)")
        time.sleep(_POLL_S)
    return False
