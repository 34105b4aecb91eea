# SPDX-License-Identifier: Apache-2.0
"""Measure the policy node: image stamp to published chunk by stage, its overhead over the bare policy, seams, memory.

Latency: the node runs in a process of its own; this process is its robot. Each picture comes when the chunk of the one
before it is there, so that no picture waits for its turn; joints come at 50 Hz.

- Stages of each inference, for fresh (written), reused and forced reasoning: wait (image stamp to the begin of
  inference, the way between the processes included), preprocess, reasoning, denoise, publish (end of inference to the
  chunk's own publication time, as DDS marks it). Their clocks are around and inside the policy, none is the node's own.
- Overhead: image stamp to published chunk, less that very inference: wait and publish together.
- Infer ratio: median inference in the node over the median of the same policy in a plain loop, before the node has it.
- Bare pair: image stamp to arrived chunk of a node that only answers: what the machine itself costs, now. The median of
  the overhead is also given as a multiple of it, which holds on a loaded machine too.
- Seams: largest jump between an old plan and the new one at the moment of change, and largest step of the driver's
  commands in the two ticks after it, over the 99th percentile of steps inside chunks; inference of 0 to 500 ms, on a
  simulated clock, by a planner that never agrees with itself.
- Live: see node_live.py; memory over `--minutes`, deadline misses, motion after a chunk's validity.

The policy is the shipped checkpoint where there is one, else random weights of its size.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import rclpy

from benchmarks.node_live import live_figures
from benchmarks.node_robot import Robot
from benchmarks.node_served import FORCED_TEXT, TUNINGS
from chatvla_policy.runtime.seam_trial import seam_ratios
from chatvla_policy.systems import SHIPPED, shipped_names
from chatvla_policy.systems.untrained import save_untrained

__all__ = ["add_options", "measure"]

ROOT = Path(__file__).resolve().parents[1]
DELAYS_MS = (0, 50, 100, 200, 350, 500)
STAGES = ("wait", "preprocess", "reasoning", "denoise", "publish", "total", "overhead")
BARS = {"overhead_p50": 1.5, "overhead_p99": 4.0}
_START_S = 300.0


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add what this benchmark may be told."""
    parser.add_argument("--minutes", type=float, default=2.0, help="length of the live part, by default 2")
    parser.add_argument("--pictures", type=int, default=100, help="inferences of each kind, by default 100")
    parser.add_argument("--checkpoint", default="", help="folder or name; the shipped one, else random weights")


def measure(*, minutes: float = 2.0, pictures: int = 100, checkpoint: str = "") -> dict[str, dict[str, Any]]:
    """Return the figures; takes two to four minutes more than `minutes`."""
    os.environ["ROS_DOMAIN_ID"] = str(1 + os.getpid() % 100)
    os.environ["ROS_AUTOMATIC_DISCOVERY_RANGE"] = "LOCALHOST"
    with tempfile.TemporaryDirectory() as folder:
        policy = checkpoint or (str(SHIPPED / "tiny") if "tiny" in shipped_names() else "")
        if not policy:
            policy = f"{folder}/untrained"
            save_untrained(policy, robot="arx_r5", size="tiny", horizon=100, max_tokens=24)
        print(f"policy {Path(policy).name}; {pictures} pictures a phase; live part {minutes:g} minutes", flush=True)
        figures = _latency(policy, pictures, Path(folder))
        for delay_ms in DELAYS_MS:
            jump, step = seam_ratios(robot="arx_r5", delay_s=delay_ms / 1e3, seconds=15.0)
            figures[f"seam_jump_{delay_ms}ms"] = _figure(jump, "ratio", 1.0)
            figures[f"seam_step_{delay_ms}ms"] = _figure(step, "ratio", None)
        figures |= live_figures(policy, seconds=60.0 * max(minutes, 0.5))
    return figures


def _latency(policy: str, pictures: int, folder: Path) -> dict[str, dict[str, Any]]:
    """Return the figures of the stages."""
    rclpy.init()
    robot = Robot()
    try:
        figures = _bare_pair(robot, pictures)
        pair_ms = figures["bare_pair_p50"]["value"]
        return figures | _stages(robot, policy, pictures, folder / "timings.json", pair_ms=pair_ms)
    finally:
        robot.close()
        rclpy.shutdown()


def _bare_pair(robot: Robot, pictures: int) -> dict[str, dict[str, Any]]:
    with _Process("-m", "benchmarks.node_echo"):
        robot.wait(lambda: robot.arrivals, _START_S, "the bare node did not answer", looking=True)
        ages_ms = [1e3 * (arrived_s - stamp_s) for stamp_s, _, arrived_s in robot.pictures(pictures)]
    return {f"bare_pair_p{rank}": _figure(np.percentile(ages_ms, rank), "ms", None) for rank in (50, 99)}


def _stages(robot: Robot, policy: str, pictures: int, timings: Path, *, pair_ms: float) -> dict[str, dict[str, Any]]:
    settings = {"checkpoint": policy, "chunk_period_s": 0.02, "scene_change": 1.1, "max_age_s": 2.0}
    words = [word for name, value in settings.items() for word in ("-p", f"{name}:={value}")]
    arrivals: dict[str, list[tuple[float, float, float]]] = {}
    with _Process("-m", "benchmarks.node_served", str(timings), "--ros-args", *words):
        robot.wait(lambda: robot.state == "active", _START_S, "the node did not become active", looking=True)
        for phase, tuning in TUNINGS.items():
            robot.configure(tuning, forced=FORCED_TEXT if phase == "forced" else None)
            robot.pictures(3)
            arrivals[phase] = robot.pictures(pictures)
    kept = json.loads(timings.read_text(encoding="utf-8"))
    spans: dict[int, dict[str, Any]] = {}
    for span in kept["spans"]:  # A picture that is thought about twice counts with its first inference.
        spans.setdefault(round(1e6 * span["stamp_s"]), span)
    figures: dict[str, dict[str, Any]] = {}
    for phase, rows in arrivals.items():
        paired = [(row, spans[key]) for row in rows if (key := round(1e6 * row[0])) in spans]
        times_ms = np.array([_times_ms(row, span) for row, span in paired])
        for stage, column in zip(STAGES, times_ms.T, strict=True):
            for rank in (50, 99):
                name = f"{stage}_p{rank}"
                figures[f"{phase}_{name}"] = _figure(np.percentile(column, rank), "ms", BARS.get(name))
        inside_ms = [1e3 * (span["ended_s"] - span["begun_s"]) for _, span in paired]
        ratio = np.median(inside_ms) / np.median(kept["bare_ms"][phase])
        figures[f"{phase}_infer_ratio"] = _figure(ratio, "ratio", None)
        figures[f"{phase}_overhead_to_pair"] = _figure(np.median(times_ms[:, -1]) / pair_ms, "ratio", None)
    return figures


def _times_ms(row: tuple[float, float, float], span: dict[str, Any]) -> tuple[float, ...]:
    """Return the stages of one inference [ms] in the order of STAGES."""
    stamp_s, published_s, _ = row
    wait_s, publish_s = span["begun_s"] - stamp_s, published_s - span["ended_s"]
    parts = (span["preprocess"], span["reasoning"], span["denoise"])
    return tuple(1e3 * x for x in (wait_s, *parts, publish_s, published_s - stamp_s, wait_s + publish_s))


class _Process:
    """A Python process for the length of a `with`; ended by SIGINT, as Ctrl-C does."""

    def __init__(self, *words: str) -> None:
        self._words = words

    def __enter__(self) -> None:
        self._process = subprocess.Popen([sys.executable, *self._words], cwd=ROOT)

    def __exit__(self, *failure: object) -> None:
        self._process.send_signal(signal.SIGINT)
        try:
            self._process.wait(timeout=30)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        time.sleep(0.5)


def _figure(value: float, unit: str, bar: float | None) -> dict[str, Any]:
    return {"value": round(float(value), 3), "unit": unit, "bar": bar, "better": "lower"}
