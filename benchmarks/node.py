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
  the overhead is also given as a multiple of it, which holds on a loaded machine too. `bare_pair_hot` is the same pair
  without pauses between pictures: caches are warm then, as they never are when pictures come at a camera's rate.
- Seams: largest jump between an old plan and the new one at the moment of change, and largest step of the driver's
  commands in the two ticks after it, over the 99th percentile of steps inside chunks; inference of 0 to 500 ms, on a
  simulated clock, by a planner that never agrees with itself.
- Live: see node_live.py; memory over `--minutes`, deadline misses, motion after a chunk's validity.

`--only` runs some of these parts; each says on the terminal when it begins.

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
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import rclpy
from rclpy.utilities import try_shutdown

from benchmarks.node_live import live_figures, say
from benchmarks.node_robot import Robot
from benchmarks.node_served import FORCED_TEXT, TUNINGS
from chatvla_cli.launch_graph import on_this_host
from chatvla_control.argument_types import count, positive
from chatvla_policy.runtime.host_memory import keep_freed_memory
from chatvla_policy.runtime.seam_trial import seam_ratios
from chatvla_policy.systems import SHIPPED, shipped_names
from chatvla_policy.systems.untrained import save_untrained

__all__ = ["add_options", "measure"]

ROOT = Path(__file__).resolve().parents[1]
DELAYS_MS = (0, 50, 100, 200, 350, 500)
STAGES = ("wait", "preprocess", "reasoning", "denoise", "publish", "total", "overhead")
PARTS = ("latency", "seams", "live")
BARS = {"overhead_p50": 1.5, "overhead_p99": 4.0}
LEAST = 0.3
"""Share of the pictures that must bring a chunk: a slow text may outlast its chunk, which then never comes."""
_START_S = 300.0


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add what this benchmark may be told."""
    parser.add_argument("--minutes", type=positive, default=10.0, help="length of the live part, by default 10")
    parser.add_argument("--pictures", type=count, default=100, help="inferences of each kind, by default 100")
    parser.add_argument("--checkpoint", default="", help="folder or name; the shipped one, else random weights")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=PARTS, help="parts to run, by default all")


def measure(
    *, minutes: float = 10.0, pictures: int = 100, checkpoint: str = "", only: Sequence[str] = PARTS
) -> dict[str, dict[str, Any]]:
    """Return the figures; takes two minutes more than `minutes` on an idle machine."""
    keep_freed_memory()
    os.environ["ROS_DOMAIN_ID"] = str(1 + os.getpid() % 100)
    os.environ.update(on_this_host(Path(__file__).resolve().parents[1] / "launch"))
    with tempfile.TemporaryDirectory() as folder:
        policy = checkpoint or (str(SHIPPED / "tiny") if "tiny" in shipped_names() else "")
        if not policy:
            policy = f"{folder}/untrained"
            save_untrained(policy, robot="arx_r5", size="tiny", horizon=100, max_tokens=24)
        say(f"policy {Path(policy).name}; {pictures} pictures a phase; live part {minutes:g} minutes")
        figures = _latency(policy, pictures, Path(folder)) if "latency" in only else {}
        for delay_ms in DELAYS_MS if "seams" in only else ():
            say(f"seams with {delay_ms} ms of inference")
            jump, step = seam_ratios(delay_s=delay_ms / 1e3, seconds=120.0, robot="arx_r5")
            figures[f"seam_jump_{delay_ms}ms"] = _figure(jump, "ratio", 1.0)
            figures[f"seam_step_{delay_ms}ms"] = _figure(step, "ratio", None)
        if "live" in only:
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
        try_shutdown()


def _bare_pair(robot: Robot, pictures: int) -> dict[str, dict[str, Any]]:
    say("a bare pair of processes")
    figures: dict[str, dict[str, Any]] = {}
    with _Process("-m", "benchmarks.node_echo") as process:
        robot.wait(lambda: robot.arrivals, _START_S, "the bare node did not answer", process=process, looking=True)
        for name, pauses in (("bare_pair", True), ("bare_pair_hot", False)):
            ages_ms = [1e3 * (arrived_s - stamp_s) for stamp_s, _, arrived_s in robot.pictures(pictures, pauses=pauses)]
            figures |= {f"{name}_p{rank}": _figure(np.percentile(ages_ms, rank), "ms", None) for rank in (50, 99)}
    return figures


def _stages(robot: Robot, policy: str, pictures: int, timings: Path, *, pair_ms: float) -> dict[str, dict[str, Any]]:
    settings = {"checkpoint": policy, "chunk_period_s": 0.02, "scene_change": 1.0, "max_age_s": 2.0}
    words = [word for name, value in settings.items() for word in ("-p", f"{name}:={value}")]
    arrivals: dict[str, list[tuple[float, float, float]]] = {}
    say("the node starts, and its policy runs bare")
    with _Process("-m", "benchmarks.node_served", str(timings), "--ros-args", *words) as process:
        complaint = "the node did not become active"
        robot.wait(lambda: robot.state == "active", _START_S, complaint, process=process, looking=True)
        for phase, tuning in TUNINGS.items():
            say(f"pictures with {phase} reasoning")
            robot.configure(tuning, forced=FORCED_TEXT if phase == "forced" else None)
            robot.pictures(3, least=0.0)
            arrivals[phase] = robot.pictures(pictures, least=LEAST)
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
        figures[f"{phase}_without_chunk"] = _figure(pictures - len(rows), "count", None)
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

    def __enter__(self) -> subprocess.Popen[bytes]:
        self._process = subprocess.Popen([sys.executable, *self._words], cwd=ROOT)
        return self._process

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
