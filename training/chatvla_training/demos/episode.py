# SPDX-License-Identifier: Apache-2.0
"""Let the expert do one trial in the bench, disturbed, and record it. No ROS.

Shapes: D joints.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from chatvla_control.contracts import ActionChunk, ActionMode, Policy
from chatvla_control.robot_spec import RobotSpec
from chatvla_sim.bench import Bench
from chatvla_sim.closed_loop import ClosedLoop
from chatvla_training.data.record import EpisodeRecord, encode_image
from chatvla_training.demos.disturbance import Disturbance, DisturbanceSettings, start_pose
from chatvla_training.demos.driver import lead
from chatvla_training.demos.endpoint import EndpointParaphraser
from chatvla_training.demos.thoughts import episode_facts, thought

__all__ = ["DemoSettings", "EpisodeFailedError", "record_episode"]


class EpisodeFailedError(RuntimeError):
    """The expert did not solve the trial; the message says how far it came."""


@dataclass(frozen=True, kw_only=True)
class DemoSettings:
    """How episodes are made; stored with the data set."""

    task: str = "math_match"
    split: str = "in_domain"
    frame_hz: float = 10.0
    """Camera frames stored per second; rows come at the control rate."""
    views: tuple[str, ...] = ()
    """Cameras recorded; empty for those that the bench shows by itself."""
    plan_hz: float = 5.0
    """How often the expert plans anew from what is measured."""
    limit_s: float = 25.0
    """An episode that takes longer has failed."""
    rest_s: float = 0.2
    """How long the resting arm is recorded at the end: little, as rest looks much like the start."""
    image_codec: str = "jpeg"
    paraphrase_url: str = ""
    """OpenAI-compatible endpoint that rewords the grammar's texts; empty for the grammar alone."""
    paraphrase_model: str = ""
    driver: str = ""
    """Checkpoint that drives first: the expert takes over, and recording begins, where its own mistakes have led it."""
    driver_s: tuple[float, float] = (0.3, 7.0)
    """Shortest and longest time that it drives."""
    disturbance: DisturbanceSettings = field(default_factory=DisturbanceSettings)


def record_episode(bench: Bench, expert: Policy, settings: DemoSettings, seed: int) -> EpisodeRecord:
    """Return the episode of `seed`. Raises EpisodeFailedError when the trial is not solved within the limit."""
    rng = np.random.default_rng([seed, 0xDE])
    words = random.Random(seed)
    ask = EndpointParaphraser(settings.paraphrase_url, settings.paraphrase_model) if settings.paraphrase_url else None
    bench.use_views(settings.views)
    loop = ClosedLoop(bench)
    _drive(loop, start_pose(bench.spec, settings.disturbance, rng))
    truth = bench.reset(split=settings.split, seed=seed)
    expert.reset(seed)
    facts = episode_facts(truth)
    if settings.driver:
        lead(loop, settings.driver, truth.instruction, float(rng.uniform(*settings.driver_s)), seed)
    disturbance = Disturbance(bench.spec, settings.disturbance, rng)
    frame_every, plan_every = (max(1, round(bench.spec.rate_hz / hz)) for hz in (settings.frame_hz, settings.plan_hz))
    states: list[NDArray[np.float64]] = []
    actions: list[NDArray[np.float64]] = []
    frame_rows: list[int] = []
    frames: dict[str, list[bytes]] = {view: [] for view in bench.views}
    texts: list[str] = []
    left = round(settings.rest_s * bench.spec.rate_hz)
    done, refused = False, ""
    for row in range(round(settings.limit_s * bench.spec.rate_hz)):
        if row % frame_every == 0:
            frame_rows.append(row)
            text = thought(facts, words, bench.truth)
            texts.append(text if ask is None else ask(text, words.randrange(2**31)))
            for view, images in frames.items():
                images.append(encode_image(bench.render(view), codec=settings.image_codec))
        if row % plan_every == 0 and not done:
            inference = expert.infer(loop.observe(truth.instruction, views=()))
            done = inference.done
            fault = None if done else loop.accept(inference.chunk)
            refused = refused if fault is None else fault.message
        tick = loop.tick(None if done else disturbance.step())
        states.append(tick.measured)
        actions.append(tick.commanded)
        left -= done
        if left <= 0:
            break
    final = bench.truth()
    if not final.success or not done:
        raise EpisodeFailedError(
            f"seed {seed}: not solved after {len(states) / bench.spec.rate_hz:.1f} s"
            + (f"; last refused chunk: {refused}" if refused else "")
        )
    return EpisodeRecord(
        instruction=truth.instruction,
        rate_hz=bench.spec.rate_hz,
        states=np.array(states, np.float32),
        actions=np.array(actions, np.float32),
        frame_rows=np.array(frame_rows),
        frames=frames,
        reasoning=texts,
        facts=facts | {"pushes": disturbance.pushes, "demonstrator": expert.name},
    )


def _drive(loop: ClosedLoop, goal: NDArray[np.float64], duration_s: float = 1.5) -> None:
    """Bring the arms to `goal` [rad, m] on a smooth path, through the same checks as any policy."""
    start = loop.bench.joint_state().positions
    loop.tick()
    slowest = float(np.max(np.abs(goal - start) / loop.bench.spec.velocity))
    chunk = _smooth_chunk(loop.bench.spec, start, goal, loop.time_s, max(duration_s, 4.0 * slowest))
    fault = loop.accept(chunk)
    if fault is not None:
        raise EpisodeFailedError(f"the way to the start pose was refused: {fault.message}")
    for _ in range(len(chunk.actions) + round(0.3 * loop.bench.spec.rate_hz)):
        loop.tick()


def _smooth_chunk(
    spec: RobotSpec, start: NDArray[np.float64], goal: NDArray[np.float64], now_s: float, duration_s: float
) -> ActionChunk:
    """Return a minimum-jerk path from `start` to `goal`."""
    share = np.linspace(0.0, 1.0, max(2, round(duration_s * spec.rate_hz)))[:, None]
    smooth = share**3 * (10 - 15 * share + 6 * share**2)
    return ActionChunk(
        id=f"start-{now_s:.3f}",
        actions=start + smooth * (goal - start),
        joint_names=spec.joint_names,
        robot=spec.name,
        mode=ActionMode.JOINT_POSITION,
        stamp_s=now_s,
        start_s=now_s,
        step_period_s=1.0 / spec.rate_hz,
        valid_until_s=now_s + duration_s + 1.0,
        policy="start",
        privileged=True,
    )
