# SPDX-License-Identifier: Apache-2.0
"""The live part of the policy node's benchmark: `./chatvla launch math_match` as a user starts it, seen from outside.

The policy acts on one instruction all the time. At the end it is stopped three times (SIGSTOP) for longer than a chunk
is valid, and let go on: chunks then expire while they are played.

- Memory: growth of the policy process's resident memory, from the mean of the second tenth of the time to the last.
- Deadline misses: the driver's own count over its ticks, in per cent; and those of a loop beside it that does nothing.
- Without a valid chunk: ticks at which none was valid, before the policy is stopped: the arm rests and waits for one.
- After validity: ticks at which a joint's commanded speed grew though no chunk was valid; the driver may only brake.
- Late chunks: chunks whose first row lay in the past when they were published.
Chunks count from their publication, as the middleware stamps it: this process itself may be late to see them.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from contextlib import ExitStack
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import rclpy
from diagnostic_msgs.msg import DiagnosticArray
from rclpy.node import Node
from rclpy.utilities import try_shutdown
from sensor_msgs.msg import JointState
from std_msgs.msg import String

from chatvla_control.ros.spin import serving
from chatvla_control.ros.stamps import time_from_msg
from chatvla_msgs.msg import ActionChunk

__all__ = ["live_figures", "say"]

ROOT = Path(__file__).resolve().parents[1]
STOPS, STOPPED_S, BETWEEN_S = 3, 3.0, 3.0
_START_S = 300.0
_SAMPLES = 200
PAGE_MB = os.sysconf("SC_PAGESIZE") / 2**20
_SLACK_S = 0.03
"""A chunk may take this long to reach the driver."""
_FASTER = 1e-6
_RATE_HZ = 50.0
"""Of the math bench's driver."""


def say(sentence: str) -> None:
    """Print what is measured now, with the time of day."""
    print(f"{time.strftime('%H:%M:%S')} {sentence}", flush=True)


class Onlooker(Node):
    """Keeps chunks, commands and the driver's counts."""

    def __init__(self) -> None:
        super().__init__("node_live", namespace="chatvla")
        self.chunks: list[tuple[float, float, float]] = []
        """Publication, start and end of validity [s]."""
        self.commands: list[tuple[float, tuple[float, ...]]] = []
        """Stamp [s] and commanded speeds."""
        self.driver: dict[str, str] = {}
        self.state = ""
        self.instruction = self.create_publisher(String, "instruction", 1)
        self.create_subscription(ActionChunk, "action_chunk", self.on_chunk, 10)
        self.create_subscription(JointState, "joint_command", self.on_command, 100)
        self.create_subscription(DiagnosticArray, "/diagnostics", self.on_health, 20)

    def on_chunk(self, msg: ActionChunk, info: dict[str, int]) -> None:
        """Keep the chunk's times."""
        published_s = info["source_timestamp"] * 1e-9
        self.chunks.append((published_s, time_from_msg(msg.start_time), time_from_msg(msg.valid_until)))

    def on_command(self, msg: JointState) -> None:
        """Keep the commanded speeds."""
        self.commands.append((time_from_msg(msg.header.stamp), tuple(msg.velocity)))

    def on_health(self, msg: DiagnosticArray) -> None:
        """Keep the driver's counts and the policy's state."""
        for status in msg.status:
            values = {item.key: item.value for item in status.values}
            if status.name.endswith(": arm"):
                self.driver = values
            elif status.name.endswith(": policy"):
                self.state = values.get("state", "")


def live_figures(policy: str, *, seconds: float) -> dict[str, dict[str, Any]]:
    """Return the figures of `seconds` of acting. Raises RuntimeError when the launch does not come up."""
    say(f"live: ./chatvla launch math_match for {seconds:.0f} s")
    rclpy.init()
    onlooker = Onlooker()
    ends = ExitStack()
    ends.enter_context(serving(onlooker))
    words = ["launch", "math_match", f"policy:={policy}", "trials:=0"]
    command = [sys.executable, "-m", "chatvla_cli.main", *words]
    launch = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL)
    try:
        _wait(lambda: onlooker.state == "active" and onlooker.driver, launch)
        _wait(lambda: onlooker.instruction.get_subscription_count() > 0, launch)
        onlooker.instruction.publish(String(data="Pick the card with the answer."))
        _wait(lambda: len(onlooker.chunks) > 1, launch)
        pid = _policy_pid(launch.pid)
        before = dict(onlooker.driver)
        with _BareLoop() as bare:
            growth = _memory_growth(pid, seconds)
        after = dict(onlooker.driver)
        stopped_s = time.time()
        say(f"live: the policy is stopped {STOPS} times")
        for _ in range(STOPS):
            os.kill(pid, signal.SIGSTOP)
            time.sleep(STOPPED_S)
            os.kill(pid, signal.SIGCONT)
            time.sleep(BETWEEN_S)
    finally:
        launch.send_signal(signal.SIGINT)
        launch.wait(timeout=60)
        ends.close()
        onlooker.destroy_node()
        try_shutdown()
    ticks, missed = (int(after[key]) - int(before[key]) for key in ("ticks", "deadline_misses"))
    grown, expired = after_validity(onlooker.chunks, onlooker.commands)
    undisturbed = [command for command in onlooker.commands if command[0] < stopped_s]
    _, resting = after_validity(onlooker.chunks, undisturbed)
    late = sum(start_s < published_s - _SLACK_S for published_s, start_s, _ in onlooker.chunks)
    return {
        "memory_growth": _figure(growth, "%", 1.0),
        "live_minutes": _figure(seconds / 60.0, "min", None, "higher"),
        "deadline_misses": _figure(100.0 * missed / max(ticks, 1), "%", 0.1),
        "bare_loop_misses": _figure(bare.missed_percent, "%", None),
        "live_ticks": _figure(ticks, "count", None, "higher"),
        "live_chunks": _figure(len(onlooker.chunks), "count", None, "higher"),
        "late_chunks": _figure(late, "count", 0.0),
        "ticks_without_valid_chunk": _figure(resting, "count", None),
        "ticks_after_validity": _figure(expired, "count", None, "higher"),
        "played_after_validity": _figure(grown, "count", 0.0),
    }


class _BareLoop:
    """A loop at the driver's rate and priority that does nothing, in a process of its own, while the block runs."""

    missed_percent = 0.0

    def __enter__(self) -> _BareLoop:
        command = [sys.executable, "-m", "benchmarks.bare_loop", str(_RATE_HZ)]
        self._process = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        return self

    def __exit__(self, *_: object) -> None:
        said, _ = self._process.communicate(timeout=10.0)
        counts = json.loads(said)
        self.missed_percent = 100.0 * counts["misses"] / max(counts["ticks"], 1)


def after_validity(
    chunks: list[tuple[float, float, float]], commands: list[tuple[float, tuple[float, ...]]]
) -> tuple[int, int]:
    """Return how many ticks moved a joint faster than the tick before though no chunk was valid, and of how many."""
    grown = expired = 0
    for (_, before), (stamp_s, speeds) in pairwise(commands):
        came = [valid_s for published_s, _, valid_s in chunks if published_s <= stamp_s + _SLACK_S]
        if not came or max(came) >= stamp_s - _SLACK_S or not (before and speeds):
            continue
        expired += 1
        grown += bool((np.abs(speeds) > np.abs(before) + _FASTER).any())
    return grown, expired


def _wait(ready: Any, launch: subprocess.Popen[bytes]) -> None:
    end = time.monotonic() + _START_S
    while not ready():
        if launch.poll() is not None or time.monotonic() > end:
            raise RuntimeError(f"the launch did not come up within {_START_S:.0f} s (exit code {launch.poll()})")
        time.sleep(0.1)


def _policy_pid(ancestor: int) -> int:
    """Return the process of policy_node among the descendants of `ancestor`."""
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            words = (folder / "cmdline").read_bytes().split(b"\0")
            if any(word.endswith((b"policy_node", b"policy_node.py")) for word in words[:6]):
                parent = int(folder.name)
                while parent > 1 and parent != ancestor:
                    parent = int((Path("/proc") / str(parent) / "stat").read_text().rsplit(")", 1)[1].split()[1])
                if parent == ancestor:
                    return int(folder.name)
        except OSError:
            continue
    raise RuntimeError("no process of the policy node was found under the launch")


def _memory_growth(pid: int, seconds: float) -> float:
    """Return the growth of resident memory [%], without the shared memory of its peers, over `seconds`."""
    begun_s, said_s = time.monotonic(), 0.0
    samples: list[int] = []
    while (passed_s := time.monotonic() - begun_s) < seconds:
        if passed_s - said_s >= 60.0:
            said_s = passed_s
            say(f"live: {passed_s:.0f} of {seconds:.0f} s, {samples[-1] * PAGE_MB:.0f} MB")
        resident, shared = map(int, Path(f"/proc/{pid}/statm").read_text().split()[1:3])
        samples.append(resident - shared)
        time.sleep(seconds / _SAMPLES)
    tenth = max(len(samples) // 10, 1)
    first, last = np.mean(samples[tenth : 2 * tenth]), np.mean(samples[-tenth:])
    return float(100.0 * (last - first) / first)


def _figure(value: float, unit: str, bar: float | None, better: str = "lower") -> dict[str, Any]:
    return {"value": round(float(value), 3), "unit": unit, "bar": bar, "better": better}
