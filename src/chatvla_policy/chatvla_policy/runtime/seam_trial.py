# SPDX-License-Identifier: Apache-2.0
"""Measure seams: a planner that never agrees with itself, inference that takes its time, on a simulated clock. No ROS.

Each plan swings another way, so what makes a seam smooth is the committed part and the join alone. Units: rad, m, s.
Shapes: T rows, D joints, P committed rows.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from chatvla_control.arm_port import JointState
from chatvla_control.chunk_player import ChunkPlayer
from chatvla_control.contracts import ActionChunk, ActionMode
from chatvla_control.robot_spec import RobotSpec, robot_spec
from chatvla_policy.processing.chunks import committed_rows, playable_rows
from chatvla_policy.runtime.delay import DelayForecast
from chatvla_policy.runtime.seam import joined_chunk, plan_at, stitched_plan

__all__ = ["STEP_S", "seam_ratios", "still_joints", "swing_rows"]

STEP_S = 0.02
STEPS = 75
PERIOD_S = 0.5
Array = NDArray[np.float64]


def swing_rows(
    spec: RobotSpec, start: Array, rng: np.random.Generator, *, kept: Array | None = None, steps: int = STEPS
) -> Array:
    """Return a playable random swing, shape (T, D), from `start` [rad, m]; `kept`, shape (P, D), is its beginning."""
    width, speed = rng.uniform(0.1, 0.3, spec.width), rng.uniform(2.0, 5.0, spec.width)
    width = width * rng.choice([-1, 1], spec.width)
    rows = start + width * (1.0 - np.cos(speed * STEP_S * np.arange(steps)[:, None]))
    if kept is not None and len(kept) > 1:
        # As a denoiser does: the committed part is kept, the rest continues from it.
        pace, rest = (kept[-1] - kept[-2]) / STEP_S, STEP_S * np.arange(1, steps - len(kept) + 1)[:, None]
        fade = 0.2 * (1.0 - np.exp(-rest / 0.2))
        rows = np.concatenate([kept, kept[-1] + pace * fade + width * (1.0 - np.cos(speed * rest))])
    return playable_rows(rows, spec, step_period_s=STEP_S)


def still_joints(positions: Array, stamp_s: float) -> JointState:
    """Return a measurement at rest."""
    still = np.zeros(len(positions))
    return JointState(positions=positions, velocities=still, efforts=still, stamp_s=stamp_s)


def seam_ratios(*, delay_s: float, seconds: float, robot: str, seed: int = 0) -> tuple[float, float]:
    """Return the largest rotary jump and commanded step at a seam, each over the 99th percentile of steps inside.

    A jump is how far a new plan begins from where the old one is at that time; a commanded step is the way that the
    driver's player goes in each of the two ticks after a new plan began.
    """
    spec, rng, forecast = robot_spec(robot), np.random.default_rng(seed), DelayForecast()
    here = np.clip(np.array(spec.home), spec.lower + 0.3, spec.upper - 0.3)
    here[~spec.rotary] = 0.5 * spec.upper[~spec.rotary]
    player = ChunkPlayer(spec)
    player.reset(here, 100.0)
    plan: ActionChunk | None = None
    coming: tuple[float, ActionChunk] | None = None
    jumps: list[float] = []
    inside: list[float] = []
    seams: list[float] = []
    now_s, began_s = 100.0, np.inf
    while now_s < 100.0 + seconds:
        kept = None
        if plan is not None:
            here = plan_at(plan, now_s)
            kept = committed_rows(
                plan, start_s=now_s, step_period_s=STEP_S, until_s=now_s + forecast.seconds(), horizon=STEPS
            )
        rows = swing_rows(spec, here, rng, kept=kept)
        ready_s = now_s + delay_s
        forecast.add(delay_s)
        chunk = joined_chunk(
            _chunk(spec, rows, now_s, number=len(jumps)), ready_s=ready_s, spec=spec, playing=plan, measured=here
        )
        until_s = now_s + STEP_S * round(max(PERIOD_S, delay_s + STEP_S) / STEP_S)
        if chunk is not None:
            if plan is not None:
                jumps.append(float(np.abs(chunk.actions[0] - plan_at(plan, chunk.start_s))[spec.rotary].max()))
            plan = stitched_plan(chunk, playing=plan, measured=here)
            coming = (ready_s - 1e-6, chunk)
        for tick_s in np.arange(now_s, until_s - 0.5 * STEP_S, STEP_S):
            if coming is not None and tick_s >= coming[0]:
                player.load(coming[1])
                coming, began_s = None, max(coming[1].start_s, float(tick_s))
            before = player.positions
            step = float(np.abs(player.step(float(tick_s)).positions - before)[spec.rotary].max())
            at_seam = jumps and began_s - 0.5 * STEP_S < tick_s < began_s + 1.5 * STEP_S
            (seams if at_seam else inside).append(step)
        now_s = until_s
    usual = np.percentile(inside, 99)
    return max(jumps) / usual, max(seams) / usual


def _chunk(spec: RobotSpec, rows: Array, stamp_s: float, *, number: int) -> ActionChunk:
    return ActionChunk(
        id=f"c{number}",
        actions=rows,
        joint_names=spec.joint_names,
        robot=spec.name,
        mode=ActionMode.JOINT_POSITION,
        stamp_s=stamp_s,
        start_s=stamp_s,
        step_period_s=STEP_S,
        valid_until_s=stamp_s + STEP_S * len(rows),
        policy="swings",
    )
