# SPDX-License-Identifier: Apache-2.0
"""Measure robots: cost of a control tick, of a check and of inverse kinematics; promises tried at random.

Times are processor time of one thread: what a tick takes of its period, not what a loaded machine makes of it.
"""

from __future__ import annotations

import time
from typing import Any

import numpy as np

from chatvla_control.campaign import run_campaign
from chatvla_control.cartesian import arm_models, cartesian_rows
from chatvla_control.chunk_check import check_chunk
from chatvla_control.chunk_player import ChunkPlayer
from chatvla_control.contracts import ActionChunk, ActionMode
from chatvla_control.kinematics import IkError
from chatvla_control.robot_spec import RobotSpec, robot_spec
from chatvla_control.robots import CARTESIAN

NOW_S = 1000.0
TICKS, CHECKS, POSES, CHUNKS = 300, 20, 100, 100


def measure() -> dict[str, dict[str, Any]]:
    """Return the figures of every robot with poses."""
    figures: dict[str, dict[str, Any]] = {}
    for name in sorted(CARTESIAN):
        spec = robot_spec(name)
        joints, poses = chunk(spec, ActionMode.JOINT_POSITION), chunk(spec, ActionMode.CARTESIAN_POSE)
        home = np.array(spec.home)
        figures[f"{name}_tick_joints"] = figure(tick_ms(spec, joints), "ms", 5.0)
        figures[f"{name}_tick_poses"] = figure(tick_ms(spec, poses), "ms", 5.0)
        for kind, sent in (("joints", joints), ("poses", poses)):
            refused = check_chunk(sent, spec, now_s=NOW_S, measured=home)
            if refused is not None:
                raise RuntimeError(f"the benchmark's own chunk is refused: {refused.message}")
            figures[f"{name}_check_{kind}"] = figure(check_ms(spec, sent), "ms", None)
        solved, spent = inverse(spec)
        figures[f"{name}_ik_solved"] = figure(solved, "ratio", 0.95, better="higher")
        figures[f"{name}_ik"] = figure(spent, "ms", None)
        # Raises at the first broken promise.
        report = run_campaign(spec, chunks=CHUNKS, seed=11)
        figures[f"{name}_campaign_guarded_ticks"] = figure(report.guarded_ticks, "count", None, better="higher")
    return figures


def figure(value: float, unit: str, bar: float | None, *, better: str = "lower") -> dict[str, Any]:
    """Return one figure in the agreed form."""
    return {"value": float(value), "unit": unit, "bar": bar, "better": better}


def chunk(spec: RobotSpec, mode: ActionMode) -> ActionChunk:
    """Return 16 rows that lead every rotary joint 2 degrees away and back."""
    rotary = np.array([joint.unit == "rad" for joint in spec.joints])
    share = 0.5 * (1 - np.cos(2 * np.pi * np.arange(16) / 15))
    rows = np.array(spec.home) + 0.035 * share[:, None] * rotary
    return ActionChunk(
        id="b",
        actions=rows if mode is ActionMode.JOINT_POSITION else cartesian_rows(spec, rows),
        joint_names=spec.joint_names,
        robot=spec.name,
        mode=mode,
        stamp_s=NOW_S,
        start_s=NOW_S,
        step_period_s=1.0 / 15.0,
        valid_until_s=NOW_S + 10.0,
        policy="benchmark",
    )


def tick_ms(spec: RobotSpec, sent: ActionChunk) -> float:
    """Return the mean cost of a tick at 100 Hz while the chunk plays again and again."""
    player = ChunkPlayer(spec, rate_hz=100.0)
    player.reset(np.array(spec.home), NOW_S)
    now_s, begun_s = NOW_S, time.process_time()
    for number in range(TICKS):
        if number % 100 == 0:
            now_s = NOW_S
            player.reset(np.array(spec.home), NOW_S)
            player.load(sent)
        now_s += 0.01
        player.step(now_s, 0.01)
    return (time.process_time() - begun_s) / TICKS * 1e3


def check_ms(spec: RobotSpec, sent: ActionChunk) -> float:
    """Return the mean cost of checking the chunk."""
    home, begun_s = np.array(spec.home), time.process_time()
    for _ in range(CHECKS):
        check_chunk(sent, spec, now_s=NOW_S, measured=home)
    return (time.process_time() - begun_s) / CHECKS * 1e3


def inverse(spec: RobotSpec) -> tuple[float, float]:
    """Return the share of poses near home that inverse kinematics reaches from home, and the mean cost."""
    arm, random = arm_models(spec)[0], np.random.default_rng(0)
    home = np.array(spec.home)[arm.places]
    lower, upper = spec.lower[arm.places], spec.upper[arm.places]
    targets = [
        arm.chain.forward(np.clip(home + random.uniform(-0.5, 0.5, len(home)), lower, upper)) for _ in range(POSES)
    ]
    solved, begun_s = 0, time.process_time()
    for target in targets:
        try:
            arm.chain.inverse(target, home)
            solved += 1
        except IkError:
            pass
    return solved / POSES, (time.process_time() - begun_s) / POSES * 1e3
