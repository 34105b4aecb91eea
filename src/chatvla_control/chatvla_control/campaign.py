# SPDX-License-Identifier: Apache-2.0
"""Try to make the chunk check or the chunk player break a promise: random chunks, delays, clocks and pauses. No ROS.

Promises tried at every tick: positions inside the limits, speeds within the speed limits, changes of speed within
acceleration times the tick's length, positions that move by speed times tick, nothing but finite numbers, no
exception; and where the player guards the tool: workspace, table, approach and tool speed. The same seed tries the
same things. A chunk of joints takes about 1 ms on one core, with the tool's guard 3 ms, one of poses 11 ms.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from chatvla_control.campaign_chunks import random_joint_chunk, random_pose_chunk
from chatvla_control.cartesian import ArmModel, arm_models
from chatvla_control.cartesian_guard import MARGIN, margin_names, margins
from chatvla_control.chunk_check import check_chunk
from chatvla_control.chunk_player import ChunkPlayer, Command
from chatvla_control.motion_limits import MotionLimits
from chatvla_control.robot_spec import RobotSpec
from chatvla_control.rotations import rotation_angle

__all__ = ["BrokenPromiseError", "CampaignReport", "run_campaign"]

Array = NDArray[np.float64]
_ROUNDING = 1e-9
_OUTSIDE_M = 0.001
"""An arm that starts outside its workspace may leave it farther by this much within a tick: the way between two of the
guard's samples."""


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
    guarded_ticks: int = 0
    """Ticks at which the tool's limits were held to their promise."""


def run_campaign(spec: RobotSpec, *, chunks: int, seed: int, pose_share: float = 0.5) -> CampaignReport:
    """Try `chunks` random chunks on `spec`; of a robot with Cartesian data, `pose_share` of them are poses.

    Raises BrokenPromiseError at the first promise that does not hold.
    """
    random = np.random.default_rng(seed)
    player = ChunkPlayer(spec)
    limits = MotionLimits.of(spec)
    now_s = 1.7e9
    previous = _reset(player, spec, random, now_s)
    arms = arm_models(spec)
    farthest: dict[str, Array] = {}
    ticks = accepted = loaded = guarded = 0
    for number in range(chunks):
        if random.random() < 0.02:
            previous = _reset(player, spec, random, now_s)
            farthest = {}
        if arms and random.random() < pose_share:
            chunk = random_pose_chunk(spec, arms, random, player.positions, now_s)
        else:
            chunk = random_joint_chunk(spec, random, player.positions, now_s)
        accepted += check_chunk(chunk, spec, now_s=now_s, measured=player.positions) is None
        try:
            player.load(chunk)
            loaded += 1
        except ValueError:
            pass  # refused by name: that is what the player promises for numbers that are not finite
        if random.random() < 0.05:
            player.hold_at(spec.lower + random.random(spec.width) * (spec.upper - spec.lower))
            farthest = {}
        for _ in range(int(random.integers(1, 12))):
            now_s, elapsed_s = _next_time(random, now_s, 1.0 / spec.rate_hz)
            command = player.step(now_s, elapsed_s)
            if not np.isfinite(now_s):
                now_s = 1.7e9
            fault = broken_promise(limits, previous, command)
            if player.guarded:
                guarded += 1
                fault = fault or broken_tool_promise(arms, previous, command, farthest)
            if fault:
                raise BrokenPromiseError(f"seed {seed}, chunk {number} of {spec.name}: {fault}")
            previous = command
            ticks += 1
    return CampaignReport(chunks=chunks, ticks=ticks, accepted=accepted, loaded=loaded, guarded_ticks=guarded)


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


def broken_tool_promise(
    arms: Sequence[ArmModel], previous: Command, command: Command, farthest: dict[str, Array] | None = None
) -> str:
    """Return which limit of a tool `command` breaks when it follows `previous`; empty when none.

    An arm outside its limits may come back by a way that goes in and then out again a little, as its joints brake;
    `farthest`, kept from call to call, holds per arm how far out it has been since it was inside by the margin that
    the guard keeps; no farther then.
    """
    known: dict[str, Array] = {} if farthest is None else farthest
    for arm in arms:
        both = np.stack([previous.positions[arm.places], command.positions[arm.places]])
        room, poses = margins(arm, both)
        now = np.asarray(room[0])
        worst = np.minimum(known[arm.name], now) if arm.name in known else now
        before = np.where(now < MARGIN, worst, now)
        known[arm.name] = before
        allowed = np.where(before < 0.0, before - _OUTSIDE_M, 0.0) - _ROUNDING
        if (room[1] < allowed).any():
            place = int(np.argmin(room[1] - allowed))
            return f"{arm.name}: {margin_names(arm)[place]} left by {-room[1, place]:.6f}, before {-before[place]:.6f}"
        moved_m = float(np.linalg.norm(poses[1, :3, 3] - poses[0, :3, 3]))
        turned_rad = float(rotation_angle(poses[0, :3, :3], poses[1, :3, :3]))
        tick_s, limits = command.tick_s * (1.0 + 1e-6) + _ROUNDING, arm.cartesian
        if moved_m > limits.speed_m_s * tick_s or turned_rad > limits.speed_rad_s * tick_s:
            return f"{arm.name}: tool moved {moved_m:.6f} m and turned {turned_rad:.6f} rad in {command.tick_s} s"
    return ""


def _reset(player: ChunkPlayer, spec: RobotSpec, random: np.random.Generator, now_s: float) -> Command:
    player.reset(spec.lower + random.uniform(-0.05, 1.05, spec.width) * (spec.upper - spec.lower), now_s)
    first = player.step(now_s)
    return Command(positions=first.positions, velocities=np.zeros(spec.width), phase=first.phase, tick_s=0.0)


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
