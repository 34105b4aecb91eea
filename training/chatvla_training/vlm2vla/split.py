# SPDX-License-Identifier: Apache-2.0
"""Cut an episode into sub-trajectories by the robot's own motion, and merge its steps into actions.

A cut is where a gripper opens or closes, and where the tool's way turns from across to down or up. Units m, s.
N rows at the control rate; A arms. (VLM2VLA, section 3.2 and appendix B.2)
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

__all__ = ["Merging", "Part", "Phase", "actions_of", "merged", "parts_of"]

Array = NDArray[np.float64]
Phase = Literal["across", "down", "up", "close", "open"]
STEEP = 0.6
"""Share of the speed that is vertical from which on a way counts as down or up."""
SMOOTH_S, REST_M_S, SHORTEST_M = 0.2, 0.01, 0.02
"""Window of the tool's speed; what counts as rest; the shortest way that is a part of its own."""
TURNS_BACK_M = 0.004
"""A step this far back is a turn; less is the trembling of an arm at rest."""


@dataclass(frozen=True, kw_only=True)
class Part:
    """Rows `start` to `stop` (not included) of an episode in which one arm does one thing."""

    arm: int
    phase: Phase
    start: int
    stop: int
    holding: bool
    """The gripper is closed in this part."""


@dataclass(frozen=True, kw_only=True)
class Merging:
    """When steps become one action; the distances are those of the paper's text (VLM2VLA, B.2).

    Its example cuts otherwise: at a change of sign along any axis, and else at 5 cm alone.
    """

    step_m: float = 0.025
    """An action is complete when it has moved this far along one axis."""
    limit_m: float = 0.05
    """No action is longer than this, but for rounding to the millimetre: a longer step is cut into equal ones."""
    sample_hz: float = 25.0
    """Steps that actions are joined from; our arms move faster than Bridge's, which steps at 5 Hz."""


def parts_of(tools_NA3: Array, opened_NA: NDArray[np.bool_], *, rate_hz: float) -> list[Part]:
    """Return the parts of an episode in order; rest belongs to the part before it."""
    flips = [
        (int(row) + 1, arm)
        for arm in range(opened_NA.shape[1])
        for row in np.flatnonzero(opened_NA[1:, arm] != opened_NA[:-1, arm])
    ]
    parts: list[Part] = []
    begin = 0
    for row, arm in [*sorted(flips), (len(tools_NA3), -1)]:
        if row > begin:
            parts += _ways(tools_NA3[begin:row], opened_NA[begin], begin, rate_hz)
        if arm >= 0 and row < len(tools_NA3):
            phase: Phase = "open" if opened_NA[row, arm] else "close"
            rest = _rest_end(tools_NA3[:, arm], row, rate_hz)
            parts.append(Part(arm=arm, phase=phase, start=row, stop=rest, holding=phase == "close"))
            begin = rest
        else:
            begin = row
    return _joined(parts)


def _rest_end(tool_N3: Array, row: int, rate_hz: float) -> int:
    """Return the first row after `row` at which the tool moves again, at least one row later."""
    speed = _speeds(tool_N3[row:], rate_hz)
    moving = np.flatnonzero(np.linalg.norm(speed, axis=1) > REST_M_S)
    return row + max(1, int(moving[0]) if len(moving) else len(speed))


def _speeds(tool_N3: Array, rate_hz: float) -> Array:
    window = max(1, round(SMOOTH_S * rate_hz / 2))
    ahead = np.minimum(np.arange(len(tool_N3)) + window, len(tool_N3) - 1)
    before = np.maximum(np.arange(len(tool_N3)) - window, 0)
    return (tool_N3[ahead] - tool_N3[before]) / np.maximum(1, ahead - before)[:, None] * rate_hz


def _ways(tools_NA3: Array, opened_A: NDArray[np.bool_], first: int, rate_hz: float) -> list[Part]:
    """Return the parts of an interval without a gripper event: those of the arm that moves most."""
    lengths = np.linalg.norm(np.diff(tools_NA3, axis=0), axis=2).sum(0) if len(tools_NA3) > 1 else np.zeros(1)
    arm = int(np.argmax(lengths))
    if lengths[arm] < SHORTEST_M:
        return []
    tool = tools_NA3[:, arm]
    speed = _speeds(tool, rate_hz)
    norm = np.linalg.norm(speed, axis=1)
    share = speed[:, 2] / np.maximum(norm, 1e-9)
    labels: list[Phase | None] = [
        None if n < REST_M_S else "down" if s < -STEEP else "up" if s > STEEP else "across"
        for n, s in zip(norm, share, strict=True)
    ]
    runs = _runs(labels)
    while len(runs) > 1:
        ways = [float(np.linalg.norm(tool[stop - 1] - tool[start])) for _, start, stop in runs]
        short = int(np.argmin(ways))
        if ways[short] >= SHORTEST_M:
            break
        # A short way joins its longer neighbour.
        left, right = short - 1, short + 1
        into = right if short == 0 or (right < len(runs) and ways[right] > ways[left]) else left
        phase = runs[into][0]
        for place in (short, into):
            runs[place] = (phase, *runs[place][1:])
        runs = _fused(runs)
    return [
        Part(arm=arm, phase=phase, start=first + start, stop=first + stop, holding=not opened_A[arm])
        for phase, start, stop in runs
    ]


def _runs(labels: list[Phase | None]) -> list[tuple[Phase, int, int]]:
    known = [label for label in labels if label is not None]
    present: Phase = known[0] if known else "across"
    runs: list[tuple[Phase, int, int]] = []
    for row, label in enumerate(labels):
        present = label or present
        runs.append((present, row, row + 1))
    return _fused(runs)


def _fused(runs: list[tuple[Phase, int, int]]) -> list[tuple[Phase, int, int]]:
    fused: list[tuple[Phase, int, int]] = []
    for phase, start, stop in runs:
        if fused and fused[-1][0] == phase:
            fused[-1] = (phase, fused[-1][1], stop)
        else:
            fused.append((phase, start, stop))
    return fused


def _joined(parts: list[Part]) -> list[Part]:
    """Return the parts with neighbours of one kind made one."""
    joined: list[Part] = []
    for part in parts:
        last = joined[-1] if joined else None
        if last is not None and (last.arm, last.phase, last.holding) == (part.arm, part.phase, part.holding):
            joined[-1] = Part(arm=last.arm, phase=last.phase, start=last.start, stop=part.stop, holding=last.holding)
        else:
            joined.append(part)
    return joined


def actions_of(
    tool_N3: Array, opened_N: NDArray[np.bool_], *, rate_hz: float, merging: Merging, before: bool | None = None
) -> Array:
    """Return the actions of rows of one arm, shape (M, 4), millimetres exact in their sum; M is at least 1.

    `before`: the gripper was open before the first row; None where that is not known.
    """
    step = max(1, round(rate_hz / merging.sample_hz))
    rows = np.unique(np.append(np.arange(0, len(tool_N3), step), len(tool_N3) - 1))
    deltas = np.diff(tool_N3[rows], axis=0)
    grips = opened_N[rows[1:]].astype(np.float64)
    if not len(deltas):
        return np.array([[0.0, 0.0, 0.0, float(opened_N[-1])]])
    return merged(np.column_stack([deltas, grips]), merging, before=before)


def merged(steps_M4: Array, merging: Merging, *, before: bool | None = None) -> Array:
    """Return steps joined into actions, rounded to the millimetre so that the sum stays right.

    A step begins a new action when the gripper changes, when the last action is complete, when it would become longer
    than the limit, or when it turns back along the axis on which the action moves most.
    """
    actions: list[Array] = []
    for step in _within(steps_M4, merging.limit_m):
        last = actions[-1] if actions else None
        if last is None or last[3] != step[3] or _complete(last, step, merging):
            actions.append(step.copy())
        else:
            actions[-1] = np.append(last[:3] + step[:3], step[3])
    made = np.array(actions)
    ends = np.round(np.cumsum(made[:, :3], axis=0), 3)
    made[:, :3] = np.diff(ends, axis=0, prepend=0.0)
    kept = np.abs(made[:, :3]).max(1) > 5e-4
    # A row without motion stays only where it says something: a change of the gripper, or as the only row.
    first = True if before is None else bool(made[0, 3]) != before
    kept |= np.append(first, made[1:, 3] != made[:-1, 3])
    return made[kept] if kept.any() else made[-1:]


def _within(steps_M4: Array, limit_m: float) -> Array:
    """Return the steps, those longer than the limit cut into equal ones."""
    counts = np.maximum(1, np.ceil(np.linalg.norm(steps_M4[:, :3], axis=1) / limit_m - 1e-9)).astype(int)
    cut = np.repeat(steps_M4, counts, axis=0)
    cut[:, :3] /= np.repeat(counts, counts)[:, None]
    return cut


def _complete(last: Array, step: Array, merging: Merging) -> bool:
    main = int(np.argmax(np.abs(last[:3])))
    turns_back = last[main] * step[main] < 0 and abs(step[main]) > TURNS_BACK_M
    return bool(
        np.abs(last[:3]).max() >= merging.step_m or np.linalg.norm(last[:3] + step[:3]) > merging.limit_m or turns_back
    )
