# SPDX-License-Identifier: Apache-2.0
"""Measure the frame around a policy: control-loop jitter, camera latency, real-time factor, time to the first chunk.

It starts `./chatvla launch math_match policy:=expert` as a user would, and listens from a process of its own.

- Jitter: how far the time between two ticks of the driver's 50 Hz loop is from 20 ms; the driver's own stamps.
- Camera latency: from the moment a picture shows to its arrival at a subscriber, drawing included.
- Real-time factor: simulated seconds per second, as the simulator reports it, while it renders at 30 Hz.
- First chunk: from the start of the command to the first action chunk; the environment is there already.
"""

from __future__ import annotations

import os
import signal
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import rclpy
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.qos import qos_profile_sensor_data
from sensor_msgs.msg import Image, JointState

from chatvla_cli.launch_graph import on_this_host
from chatvla_control.ros.qos import NEWEST, NEWEST_LATCHED
from chatvla_msgs.msg import ActionChunk, BenchState

__all__ = ["measure"]

ROOT = Path(__file__).resolve().parents[1]
TRIALS = 3
PERIOD_MS = 20.0
SETTLE_S = 3.0
"""Left out of jitter, latency and real-time factor: nodes still start."""


def _seconds(stamp: Any) -> float:
    return stamp.sec + stamp.nanosec * 1e-9


class Listener(Node):
    """Keeps the times of what passes by."""

    def __init__(self) -> None:
        super().__init__("frame_benchmark", namespace="chatvla")
        self.tick_s: list[float] = []
        self.latency_s: list[float] = []
        self.real_time: list[float] = []
        self.first_chunk_s: float | None = None
        self.create_subscription(JointState, "joint_command", self.on_command, 50)
        self.create_subscription(Image, "camera/top/image_raw", self.on_image, qos_profile_sensor_data)
        self.create_subscription(BenchState, "sim/bench_state", self.on_state, NEWEST_LATCHED)
        self.create_subscription(ActionChunk, "action_chunk", self.on_chunk, NEWEST)

    def on_command(self, msg: JointState) -> None:
        """Keep the tick's stamp."""
        self.tick_s.append(_seconds(msg.header.stamp))

    def on_image(self, msg: Image) -> None:
        """Keep the picture's age on arrival."""
        self.latency_s.append(time.time() - _seconds(msg.header.stamp))

    def on_state(self, msg: BenchState) -> None:
        """Keep the real-time factor."""
        self.real_time.append(msg.real_time_factor)

    def on_chunk(self, _msg: ActionChunk) -> None:
        """Keep the time of the first chunk."""
        if self.first_chunk_s is None:
            self.first_chunk_s = time.monotonic()

    def forget_the_start(self) -> None:
        """Drop what was heard until now, except the first chunk."""
        for values in (self.tick_s, self.latency_s, self.real_time):
            values.clear()


def measure() -> dict[str, dict[str, Any]]:
    """Return the figures of the frame; takes about a minute."""
    os.environ["ROS_DOMAIN_ID"] = str(1 + os.getpid() % 100)
    os.environ.update(on_this_host(ROOT / "launch"))
    rclpy.init()
    listener = Listener()
    executor = SingleThreadedExecutor()
    executor.add_node(listener)
    with tempfile.TemporaryDirectory() as out:
        words = ["policy:=expert", f"trials:={TRIALS}", f"out:={out}"]
        started_s = time.monotonic()
        launch = subprocess.Popen([str(ROOT / "chatvla"), "launch", "math_match", *words], stdout=subprocess.DEVNULL)
        settled_s = None
        try:
            while launch.poll() is None:
                executor.spin_once(timeout_sec=0.1)
                if settled_s is None and listener.first_chunk_s is not None:
                    settled_s = listener.first_chunk_s + SETTLE_S
                if settled_s is not None and time.monotonic() > settled_s:
                    listener.forget_the_start()
                    settled_s = np.inf
        finally:
            if launch.poll() is None:
                launch.send_signal(signal.SIGINT)
                launch.wait()
    executor.shutdown()
    listener.destroy_node()
    rclpy.shutdown()
    if listener.first_chunk_s is None or len(listener.tick_s) < 2:
        raise RuntimeError(f"the launch ended with exit code {launch.returncode} before a chunk was seen")
    return figures(listener, first_chunk_s=listener.first_chunk_s - started_s)


def figures(listener: Listener, *, first_chunk_s: float) -> dict[str, dict[str, Any]]:
    """Return the figures of what was heard."""
    jitter_ms = np.abs(np.diff(listener.tick_s) * 1e3 - PERIOD_MS)
    latency_ms = np.asarray(listener.latency_s) * 1e3

    def figure(value: float, unit: str, bar: float, better: str = "lower") -> dict[str, Any]:
        return {"value": round(float(value), 3), "unit": unit, "bar": bar, "better": better}

    return {
        "control_jitter_p50": figure(np.percentile(jitter_ms, 50), "ms", 1.0),
        "control_jitter_p99": figure(np.percentile(jitter_ms, 99), "ms", 5.0),
        "control_rate": figure(1.0 / np.mean(np.diff(listener.tick_s)), "Hz", 49.5, "higher"),
        "camera_latency_p50": figure(np.percentile(latency_ms, 50), "ms", 25.0),
        "camera_latency_p99": figure(np.percentile(latency_ms, 99), "ms", 50.0),
        "real_time_factor": figure(np.median(listener.real_time), "ratio", 0.99, "higher"),
        "launch_to_first_chunk": figure(first_chunk_s, "s", 8.0),
    }
