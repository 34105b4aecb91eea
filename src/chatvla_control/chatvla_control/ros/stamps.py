# SPDX-License-Identifier: Apache-2.0
"""Turn builtin_interfaces/Time into float seconds and back. A float keeps today's times to 0.2 microseconds."""

# Generated messages and array.array carry no types that pyright knows:
# pyright: reportUnknownMemberType=false, reportUnknownArgumentType=false, reportUnknownVariableType=false
# pyright: reportMissingTypeStubs=false

from __future__ import annotations

import math

from builtin_interfaces.msg import Duration, Time

from chatvla_control.ros.errors import ConversionError

__all__ = ["duration_from_msg", "duration_to_msg", "time_from_msg", "time_to_msg"]

_MAX_S = 2**31 - 1


def time_to_msg(time_s: float) -> Time:
    """Return `time_s` [s] as a message. Raises ConversionError outside 0 .. 2^31 - 1 s."""
    if not (math.isfinite(time_s) and 0.0 <= time_s <= _MAX_S - 1):
        raise ConversionError("stamp", f"time is {time_s} s, a message holds 0 to {_MAX_S} s")
    # Split first: times 1e9 would round today's times to 256 ns.
    seconds = math.floor(time_s)
    nanoseconds = round((time_s - seconds) * 1e9)
    return Time(sec=seconds + nanoseconds // 1_000_000_000, nanosec=nanoseconds % 1_000_000_000)


def time_from_msg(msg: Time) -> float:
    """Return the message's time [s]. Raises ConversionError when its nanoseconds reach a second."""
    if msg.nanosec >= 1_000_000_000:
        raise ConversionError("stamp", f"time has {msg.nanosec} nanoseconds, at most 999999999 belong there")
    return float(msg.sec) + 1e-9 * float(msg.nanosec)


def duration_to_msg(time_s: float) -> Duration:
    """Return `time_s` [s], 0 or more, as a message. Raises ConversionError."""
    time = time_to_msg(time_s)
    return Duration(sec=time.sec, nanosec=time.nanosec)


def duration_from_msg(msg: Duration) -> float:
    """Return the message's duration [s]."""
    return float(msg.sec) + 1e-9 * float(msg.nanosec)
