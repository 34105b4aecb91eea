# SPDX-License-Identifier: Apache-2.0
"""Try to make the chunk check or the chunk player break a promise: random chunks, delays, clocks and pauses. No ROS.

Promises tried at every tick: positions inside the limits, speeds within the speed limits, changes of speed within
acceleration times the tick's length, positions that move by speed times tick, nothing but finite numbers, no
exception. The same seed tries the same things. About 0.3 ms a chunk on one core.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from chatvla_control.chunk_check import check_chunk
from chatvla_control.chunk_player import ChunkPlayer, Command
from chatvla_control.contracts import ActionChunk, ActionMode
from chatvla_control.motion_limits import MotionLimits
from chatvla_control.robot_spec import RobotSpec

__all__ = ["BrokenPromiseError", "CampaignReport", "run_campaign"]

Array = NDArray[np.float64]
_ROUNDING = 1e-9


class BrokenPromiseError(AssertionError):
    """A limit was exceeded; the message holds the seed and the chunk's number to repeat it."""


@dataclass(frozen=True, kw_only=True)
class CampaignReport:
    """What was tried and what held."""

    chunks: int
    ticks: int
    accepted: int
    """Chunks that the check let pass."""
    loaded: int
    """Chunks that the player took, among them those that the check had refused for their values or times."""


def run_campaign(spec: RobotSpec, *, chunks: int, seed: int) -> CampaignReport:
    """Try `chunks` random chunks on `spec`. Raises BrokenPromiseError at the first promise that does not hold."""
    random = np.random.default_rng(seed)
    player = ChunkPlayer(spec)
    limits = MotionLimits.of(spec)
    now_s = 1.7e9
    previous = _reset(player, spec, random, now_s)
    ticks = accepted = loaded = 0
    for number in range(chunks):
        if random.random() < 0.02:
            previous = _reset(player, spec, random, now_s)
        chunk = _random_chunk(spec, random, player.positions, now_s)
        accepted += check_chunk(chunk, spec, now_s=now_s, measured=player.positions) is None
        try:
            player.load(chunk)
            loaded += 1
        except ValueError:
            pass  # refused by name: that is what the player promises for numbers that are not finite
        if random.random() < 0.05:
            player.hold_at(spec.lower + random.random(spec.width) * (spec.upper - spec.lower))
        for _ in range(int(random.integers(1, 12))):
            now_s, elapsed_s = _next_time(random, now_s, 1.0 / spec.rate_hz)
            command = player.step(now_s, elapsed_s)
            if not np.isfinite(now_s):
                now_s = 1.7e9
            fault = broken_promise(limits, previous, command)
            if fault:
                raise BrokenPromiseError(f"seed {seed}, chunk {number} of {spec.name}: {fault}")
            previous = command
            ticks += 1
    return CampaignReport(chunks=chunks, ticks=ticks, accepted=accepted, loaded=loaded)


def broken_promise(spec: RobotSpec | MotionLimits, previous: Command, command: Command) -> str:
    """Return which promise `command` breaks when it follows `previous`; empty when none."""
    positions, velocities, tick_s = command.positions, command.velocities, command.tick_s
    change = np.abs(velocities - previous.velocities)
    slip = np.abs(positions - previous.positions - velocities * tick_s)
    # All at once first, for speed: what is not finite fits no comparison.
    held = (
        (positions >= spec.lower)
        & (positions <= spec.upper)
        & (np.abs(velocities) <= spec.velocity * (1.0 + _ROUNDING))
        & (change <= spec.acceleration * tick_s + _ROUNDING)
        & ((slip <= _ROUNDING * (1.0 + np.abs(velocities * tick_s))) | (tick_s < 1e-6))
    )
    if held.all():
        return ""
    if not (np.isfinite(positions).all() and np.isfinite(velocities).all()):
        return f"not finite: {positions}, {velocities}"
    if (positions < spec.lower).any() or (positions > spec.upper).any():
        return f"position outside the limits: {positions}"
    if (np.abs(velocities) > spec.velocity * (1.0 + _ROUNDING)).any():
        return f"speed beyond the limits: {velocities}"
    if (change > spec.acceleration * tick_s + _ROUNDING).any():
        return f"speed changed by {change} in {tick_s} s"
    return f"moved by {positions - previous.positions}, speed {velocities} for {tick_s} s"


def _reset(player: ChunkPlayer, spec: RobotSpec, random: np.random.Generator, now_s: float) -> Command:
    player.reset(spec.lower + random.uniform(-0.05, 1.05, spec.width) * (spec.upper - spec.lower), now_s)
    first = player.step(now_s)
    return Command(positions=first.positions, velocities=np.zeros(spec.width), phase=first.phase, tick_s=0.0)


def _random_chunk(spec: RobotSpec, random: np.random.Generator, start: Array, now_s: float) -> ActionChunk:
    steps = int(random.choice([1, 2, 3, 16, 50]))
    span = spec.upper - spec.lower
    kind = random.integers(0, 8)
    grid = np.arange(steps)[:, None]
    period_s = float(random.choice([1.0 / spec.rate_hz, 0.005, 0.02, 0.5, random.uniform(1e-3, 0.2)]))
    if kind == 0:  # feasible: a slow wave
        rows = start + 0.02 * span * np.sin(grid * period_s * random.uniform(0.5, 3.0, spec.width))
    elif kind == 1:  # a learned chunk's noise
        rows = start + random.normal(0.0, 1e-3, (steps, spec.width))
    elif kind == 2:  # straight at a limit at full speed and beyond
        rows = start + grid * period_s * spec.velocity * random.choice([-1.5, -1.0, 1.0, 1.5], spec.width)
    elif kind == 3:  # anywhere inside the limits
        rows = spec.lower + random.random((steps, spec.width)) * span
    elif kind == 4:  # back and forth between the limits
        rows = np.where(grid % 2 == 0, spec.lower, spec.upper) + np.zeros((steps, spec.width))
    elif kind == 5:  # far outside
        rows = random.choice([-1e308, -1e3, 1e3, 1e308], (steps, spec.width))
    elif kind == 6:  # not finite in one place
        rows = np.repeat(start[None], steps, axis=0)
        rows[random.integers(steps), random.integers(spec.width)] = random.choice([np.nan, np.inf, -np.inf])
    else:  # one step
        rows = np.repeat((start + random.normal(0.0, 0.2, spec.width))[None], steps, axis=0)
    start_s = now_s + float(random.choice([0.0, 0.0, -0.01, 0.03, random.normal(0.0, 0.3)]))
    if random.random() < 0.1:
        start_s = now_s + float(random.choice([-1e4, 1e4, np.nan]))
    if random.random() < 0.1:
        period_s = float(random.choice([0.0, -1.0, np.nan, 1e-300, 1e300]))
    return ActionChunk(
        id="campaign",
        actions=rows,
        joint_names=spec.joint_names,
        robot=spec.name,
        mode=ActionMode.JOINT_POSITION,
        stamp_s=min(start_s, now_s),
        start_s=start_s,
        step_period_s=period_s,
        valid_until_s=start_s + float(random.choice([steps * period_s, steps * period_s, 1.0, 0.05, -1.0, 1e9])),
        policy="campaign",
    )


def _next_time(random: np.random.Generator, now_s: float, period_s: float) -> tuple[float, float | None]:
    """Return the next clock reading and, half of the time, a steady clock's tick [s]."""
    kind = random.integers(0, 20)
    tick_s = max(0.0, period_s * (1.0 + random.normal(0.0, 0.05)))
    if kind == 0:  # late tick, paused process
        tick_s = float(random.choice([2.0, 2.4, 2.6, 5.0, 11.0, 50.0, 5e4])) * period_s
    elif kind == 1:  # repeated or nearly so
        tick_s = float(random.choice([0.0, 1e-12, 1e-7, 1e-5]))
    jump_s = 0.0
    if kind == 2:  # the clock is set while the steady clock goes on
        jump_s = float(random.choice([-1e9, -3600.0, -1.0, -0.15, -0.05, 0.05, 1.0, 3600.0, 1e8, np.nan]))
    then_s = now_s + tick_s + jump_s
    if then_s < 0.0:
        then_s = 0.0
    return then_s, tick_s if random.random() < 0.5 else None
