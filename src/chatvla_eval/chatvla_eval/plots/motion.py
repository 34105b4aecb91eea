# SPDX-License-Identifier: Apache-2.0
"""Draw planned chunks against the executed motion: one strip per joint that moves, time across.

Positions in rad and m, times in s since the start of the trial.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from chatvla_eval.plots.svg import number, picture, polyline, text, ticks

__all__ = ["motion_plot"]

JOINTS = 6
"""Strips at most: the joints that move most."""
WIDTH, STRIP, GAP = 720.0, 84.0, 16.0
LEFT, RIGHT, TOP = 118.0, 12.0, 34.0
LEAST_RANGE = 0.02
"""Range of a strip at least, rad or m: noise does not fill a strip."""


def motion_plot(trace: Mapping[str, Any]) -> str:
    """Return the plot of a trial's trace; "" when it holds no motion."""
    names, times = trace["joint_names"], trace["times_s"]
    if not names or len(times) < 2:
        return ""
    rows = np.array(trace["positions"], dtype=float)
    chunks = [(chunk["start_s"], chunk["step_s"], np.array(chunk["rows"], dtype=float)) for chunk in trace["chunks"]]
    chosen = _moving(rows, names)
    end_s = float(times[-1])
    height = TOP + len(chosen) * (STRIP + GAP) + 24

    def across(time_s: float) -> float:
        return LEFT + (WIDTH - LEFT - RIGHT) * min(max(time_s / end_s, 0.0), 1.0)

    parts = _legend()
    for tick in ticks(0.0, end_s, 8):
        x = across(tick)
        parts.append(f'<path d="M{number(x)} {number(TOP)}V{number(height - 30)}" stroke="var(--line)"/>')
        parts.append(text(x, height - 12, f"{tick:g} s", anchor="middle", colour="--soft"))
    for place, joint in enumerate(chosen):
        strip_top = TOP + place * (STRIP + GAP)
        parts += _strip(strip_top, names[joint], joint, np.array(times), rows, chunks, across, end_s)
    return picture(WIDTH, height, parts, title="Planned chunks against executed motion")


def _moving(rows: NDArray[np.float64], names: Sequence[str]) -> list[int]:
    """Return the joints that move most, in their own order; a gripper's metres weigh like tens of radians."""
    weight = np.array([20.0 if "gripper" in name or "finger" in name else 1.0 for name in names])
    order = np.argsort(-np.ptp(rows, axis=0) * weight, kind="stable")[:JOINTS]
    return sorted(int(joint) for joint in order)


def _strip(
    top: float,
    name: str,
    joint: int,
    times: NDArray[np.float64],
    rows: NDArray[np.float64],
    chunks: Sequence[tuple[float, float, NDArray[np.float64]]],
    across: Any,
    end_s: float,
) -> list[str]:
    values = [rows[:, joint], *(chunk[:, joint] for _, _, chunk in chunks)]
    low, high = min(v.min() for v in values), max(v.max() for v in values)
    spare = max(LEAST_RANGE - (high - low), 0.08 * (high - low)) / 2
    low, high = low - spare, high + spare

    def up(value: float) -> float:
        return top + STRIP * (high - value) / (high - low)

    parts = [
        f'<rect x="{number(LEFT)}" y="{number(top)}" width="{number(WIDTH - LEFT - RIGHT)}" height="{number(STRIP)}" '
        'fill="none" stroke="var(--line)"/>',
        text(8, top + 14, name),
    ]
    for tick in ticks(low, high, 3):
        parts.append(text(LEFT - 6, up(tick) + 4, f"{tick:.4g}", anchor="end", colour="--soft", size=10))
    for start_s, step_s, chunk in chunks:
        points = [(across(start_s + k * step_s), up(value)) for k, value in enumerate(chunk[:, joint])]
        seen = [point for k, point in enumerate(points) if start_s + k * step_s <= end_s]
        if len(seen) > 1:
            parts.append(polyline(seen, colour="--orange", width=1.2, opacity=0.7))
    executed = [(across(time), up(value)) for time, value in zip(times, rows[:, joint], strict=True)]
    return [*parts, polyline(executed, colour="--blue", width=1.8)]


def _legend() -> list[str]:
    return [
        '<path d="M118 14h22" stroke="var(--blue)" stroke-width="2.5"/>',
        text(146, 18, "executed"),
        '<path d="M222 14h22" stroke="var(--orange)" stroke-width="2.5"/>',
        text(250, 18, "planned chunks"),
        text(WIDTH - RIGHT, 18, "rad; grippers in m", anchor="end", colour="--soft"),
    ]
