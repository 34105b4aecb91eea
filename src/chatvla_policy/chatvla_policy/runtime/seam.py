# SPDX-License-Identifier: Apache-2.0
"""Let a new chunk take over from the one being played without a jump. No ROS, no clock.

A chunk's rows stay on their own time grid: rows whose time has passed are dropped, never shifted, unless the robot
rests where the chunk was planned from (`begun_later`): the way from there is the same later. At the first row left, the
offset to what is being played is kept and fades out, and the motion law of the player bends the rest.
Real-time chunking (the policy keeps the committed rows) makes this offset zero when inference ends in time; this is
what holds when it does not. Units: rad, m, s. Shapes: T rows, D joints.
"""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from chatvla_control.contracts import ActionChunk, ActionMode
from chatvla_control.feasible import feasible_rows
from chatvla_control.motion_limits import MotionLimits, stopping_point
from chatvla_control.robot_spec import RobotSpec

__all__ = ["begun_later", "holding_chunk", "joined_chunk", "moves_on", "plan_at", "stitched_plan"]

Array = NDArray[np.float64]
HOLD_STEPS = 25


def plan_at(chunk: ActionChunk, time_s: float | Array) -> Array:
    """Return the chunk's target [rad, m] at `time_s`, held at both ends of its grid.

    Shape (D,) for one time, (N, D) for times of shape (N,).
    """
    last = len(chunk.actions) - 1
    if isinstance(time_s, float):
        # The same in a third of the time: this stands between an image and its inference.
        place = min(max((time_s - chunk.start_s) / chunk.step_period_s, 0.0), float(last))
        row = int(place)
        before = chunk.actions[row]
        return before + (place - row) * (chunk.actions[min(row + 1, last)] - before)
    place = np.clip((np.asarray(time_s) - chunk.start_s) / chunk.step_period_s, 0.0, last)
    row = place.astype(int)
    before, after = chunk.actions[row], chunk.actions[np.minimum(row + 1, last)]
    return before + (place - row)[..., None] * (after - before)


def begun_later(chunk: ActionChunk, ready_s: float) -> ActionChunk:
    """Return `chunk` with all its rows, begun at `ready_s` if that is later: for a robot that has not moved since.

    One that holds still is about the joints alone, which are where they were: its observation counts as one of then.
    """
    late_s = max(0.0, ready_s - chunk.start_s)
    later = replace(chunk, start_s=chunk.start_s + late_s, valid_until_s=chunk.valid_until_s + late_s)
    return later if moves_on(chunk, chunk.start_s) else replace(later, stamp_s=chunk.stamp_s + late_s)


def moves_on(chunk: ActionChunk, now_s: float) -> bool:
    """Return whether rows of `chunk` after `now_s` differ from its target then."""
    first = math.floor((now_s - chunk.start_s) / chunk.step_period_s)
    ahead = chunk.actions[min(max(first, 0), len(chunk.actions) - 1) :]
    return bool(np.abs(ahead - ahead[-1]).max() > _MET)


def joined_chunk(
    chunk: ActionChunk,
    *,
    ready_s: float,
    spec: RobotSpec,
    playing: ActionChunk | None,
    measured: Array | None,
    blend_s: float = 0.2,
) -> ActionChunk | None:
    """Return `chunk` from the first row at or after `ready_s` on, led over from `playing`; None when none is left.

    Without a playing chunk it is led over from the `measured` positions [rad, m], shape (D,), at rest; there an offset
    wider than the driver's limit for jumps is left as it is, and the driver refuses the chunk.
    """
    first = max(0, math.ceil((ready_s - chunk.start_s) / chunk.step_period_s - 1e-9))
    if first >= len(chunk.actions):
        return None
    period_s = chunk.step_period_s
    start_s = chunk.start_s + first * period_s
    rows = chunk.actions[first:]
    if chunk.mode is not ActionMode.JOINT_POSITION:
        return replace(chunk, actions=rows, start_s=start_s)
    if playing is not None:
        before, here = plan_at(playing, np.array([start_s - period_s, start_s]))
        speed = (here - before) / period_s
    elif measured is not None:
        here, before, speed = measured, measured, np.zeros(spec.width)
    else:
        return replace(chunk, actions=rows, start_s=start_s)
    offset = here - rows[0]
    if playing is None and (spec.rotary & (np.abs(offset) > _LARGEST_S * spec.velocity)).any():
        return replace(chunk, actions=rows, start_s=start_s)
    distance = np.abs(offset)
    if distance.max() < _MET:
        change = np.abs(rows[min(1, len(rows) - 1)] - rows[0] - period_s * speed)
        if (change <= spec.acceleration * period_s * period_s).all():
            # The policy kept the plan: its rows are played as they are.
            return replace(chunk, actions=rows, start_s=start_s)
    # The fade, 1 - smoothstep, is steepest at 1.5 / its length: wide offsets take longer, at half the speed limit.
    fade_s = np.where(distance < _MET, period_s, np.maximum(blend_s, 3.0 * distance / spec.velocity))
    share = np.minimum(period_s * np.arange(len(rows))[:, None] / fade_s, 1.0)
    led = rows + (1.0 - share * share * (3.0 - 2.0 * share)) * offset
    speed = np.clip(speed, -spec.velocity, spec.velocity)
    bent = feasible_rows(led, spec, start=before, period_s=period_s, start_velocity=speed)
    return replace(chunk, actions=bent, start_s=start_s)


def stitched_plan(chunk: ActionChunk, *, playing: ActionChunk | None, measured: Array | None) -> ActionChunk:
    """Return `chunk` with the last second before it on its own grid: what was played, or the measured pose at rest.

    An observation made before the chunk begins still finds its place in this plan.
    """
    count = round(_HISTORY_S / chunk.step_period_s)
    times = chunk.start_s - chunk.step_period_s * np.arange(count, 0, -1)
    if playing is not None:
        before = plan_at(playing, times)
    elif measured is not None and chunk.mode is ActionMode.JOINT_POSITION:
        before = np.repeat(measured[None], count, axis=0)
    else:
        return chunk
    return replace(chunk, actions=np.concatenate([before, chunk.actions]), start_s=float(times[0]))


_HISTORY_S = 1.0
_MET = 1e-6
"""Offsets below this [rad, m] are the rounding of a model's float32, far below any encoder: they need no fading."""
_LARGEST_S = 0.1
"""A first chunk may begin as far from the robot as full speed covers in this time: the driver's limit for jumps."""


def holding_chunk(playing: ActionChunk, *, now_s: float, spec: RobotSpec) -> ActionChunk:
    """Return a chunk that brakes from what is being played to rest, within the limits."""
    period_s = playing.step_period_s
    start_s = now_s + 2 * period_s
    if playing.mode is not ActionMode.JOINT_POSITION:
        actions = np.repeat(plan_at(playing, start_s)[None], HOLD_STEPS, axis=0)
    else:
        here, before = plan_at(playing, start_s), plan_at(playing, start_s - period_s)
        limits = MotionLimits.of(spec)
        speed = np.clip((here - before) / period_s, -limits.velocity, limits.velocity)
        rest = np.repeat(stopping_point(here, speed, limits)[None], HOLD_STEPS, axis=0)
        actions = feasible_rows(rest, spec, start=before, period_s=period_s, start_velocity=speed)
    return replace(
        playing,
        id=f"{playing.id}-hold",
        actions=actions,
        stamp_s=now_s,
        start_s=start_s,
        valid_until_s=start_s + HOLD_STEPS * period_s,
    )
