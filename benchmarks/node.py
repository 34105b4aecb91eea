# SPDX-License-Identifier: Apache-2.0
"""Measure the policy node: image stamp to published chunk by stage, its overhead over the bare policy, seams, memory.

A random checkpoint of the tiny size runs in a policy node of its own process; this process is the robot: camera 3.3 Hz,
joints 50 Hz, and a listener of chunks.

- Stages: wait (image stamp to inference), preprocess, reasoning, denoise, publish, as the node's diagnostics report
  them; fresh (written), reused and forced reasoning, one phase each.
- Overhead: what the node adds to the bare `Policy.infer`, per inference: from image stamp to published chunk, less the
  inference itself. Images come so slowly here that each finds the node idle: no wait for a turn is in it, the way of
  the image between two processes is.
- Seams: largest joint jump between an old plan and the new one at the moment of change over the 99th percentile of
  joint steps inside chunks, under inference delays of 0 to 500 ms, on a simulated clock.
- Memory: growth of the node's resident memory over MEMORY_S, after a tenth of it.
`stamp_to_arrival` is measured in this process: both ways between the processes are in it.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import rclpy
from diagnostic_msgs.msg import DiagnosticArray
from rcl_interfaces.srv import SetParameters
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.node import Node
from rclpy.parameter import Parameter
from rclpy.qos import qos_profile_sensor_data
from sensor_msgs.msg import Image, JointState
from std_msgs.msg import String

from chatvla_control.arm_port import JointState as JointRow
from chatvla_control.robot_spec import robot_spec
from chatvla_control.ros.convert import joint_state_to_msg
from chatvla_control.ros.images import image_to_msg
from chatvla_control.ros.stamps import time_from_msg
from chatvla_msgs.msg import ActionChunk
from chatvla_msgs.srv import OverrideReasoning
from chatvla_policy.runtime.seam_trial import seam_ratio
from chatvla_policy.runtime.timing import STAGES
from chatvla_policy.systems.untrained import save_untrained

__all__ = ["measure"]

SPEC = robot_spec("arx_r5")
PHASE_S = float(os.environ.get("CHATVLA_BENCH_PHASE_S", "30"))
MEMORY_S = float(os.environ.get("CHATVLA_BENCH_MEMORY_S", "600"))
TEXT = "On the whiteboard is 1+2. 1+2=3. There are: 3 (left) and 4 (right). I should pick left card."
PHASES = {
    "fresh": {"reuse": "never"},
    "reused": {"reuse": "refresh", "reason_every_s": 60.0},
    "forced": {"reuse": "never"},
}


class Robot(Node):
    """Camera, joints and a listener; spun by a thread of its own."""

    def __init__(self) -> None:
        super().__init__("node_benchmark")
        self.arrivals: list[tuple[float, float]] = []
        self.health: dict[str, str] = {}
        self._image = np.random.default_rng(0).integers(0, 255, (240, 320, 3), np.uint8)
        self._images = self.create_publisher(Image, "camera/top/image_raw", qos_profile_sensor_data)
        self._joints = self.create_publisher(JointState, "joint_states", 10)
        self.instruction = self.create_publisher(String, "instruction", 1)
        self.create_subscription(ActionChunk, "action_chunk", self.on_chunk, 10)
        self.create_subscription(DiagnosticArray, "/diagnostics", self.on_health, 10)
        self._message = image_to_msg(self._image, 1.0, "camera")
        self.create_timer(0.3, self.look)
        self.create_timer(0.02, self.feel)
        self.parameters = self.create_client(SetParameters, "policy_node/set_parameters")
        self.override = self.create_client(OverrideReasoning, "override_reasoning")

    def now_s(self) -> float:
        """Return ROS time [s]."""
        return self.get_clock().now().nanoseconds * 1e-9

    def look(self) -> None:
        """Publish one image."""
        self._message.header.stamp = self.get_clock().now().to_msg()
        self._images.publish(self._message)

    def feel(self) -> None:
        """Publish one joint state at home."""
        still = np.zeros(SPEC.width)
        state = JointRow(positions=np.array(SPEC.home), velocities=still, efforts=still, stamp_s=self.now_s())
        self._joints.publish(joint_state_to_msg(SPEC.joint_names, state))

    def on_chunk(self, msg: ActionChunk) -> None:
        """Keep the chunk's stamp and arrival [s]."""
        self.arrivals.append((time_from_msg(msg.header.stamp), self.now_s()))

    def on_health(self, msg: DiagnosticArray) -> None:
        """Keep the node's report."""
        for status in msg.status:
            if status.name.endswith(": policy"):
                self.health = {item.key: item.value for item in status.values}


def _spin(executor: SingleThreadedExecutor) -> None:
    try:
        executor.spin()
    except ExternalShutdownException:
        return


def measure() -> dict[str, dict[str, Any]]:
    """Return the figures; takes MEMORY_S and about a minute."""
    os.environ["ROS_DOMAIN_ID"] = str(1 + os.getpid() % 100)
    os.environ["ROS_AUTOMATIC_DISCOVERY_RANGE"] = "LOCALHOST"
    figures: dict[str, dict[str, Any]] = {}
    with tempfile.TemporaryDirectory() as folder:
        save_untrained(Path(folder) / "tiny", size="tiny")
        rclpy.init()
        robot, executor = Robot(), SingleThreadedExecutor()
        executor.add_node(robot)
        spinner = threading.Thread(target=_spin, args=(executor,), daemon=True)
        spinner.start()
        settings = {"checkpoint": f"{folder}/tiny", "chunk_period_s": 0.02, "scene_change": 1.1, "max_age_s": 2.0}
        options = [word for name, value in settings.items() for word in ("-p", f"{name}:={value}")]
        node = subprocess.Popen([sys.executable, "-m", "chatvla_policy.ros.policy_node", "--ros-args", *options])
        try:
            _until(lambda: robot.health.get("state") == "active", 120.0, "the node did not become active")
            for phase, parameters in PHASES.items():
                figures |= _phase(robot, phase, parameters)
            figures["memory_growth"] = _figure(_memory_growth(node.pid), "%", 1.0)
        finally:
            node.send_signal(signal.SIGINT)
            node.wait(timeout=20)
            executor.shutdown()
            rclpy.shutdown()
    for delay_ms in (0, 50, 100, 200, 350, 500):
        ratio = seam_ratio(delay_s=delay_ms / 1e3, seconds=30.0)
        figures[f"seam_jump_{delay_ms}ms"] = _figure(ratio, "ratio", 1.0)
    return figures


def _phase(robot: Robot, phase: str, parameters: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Return the figures of one kind of reasoning."""
    _call(robot.parameters, SetParameters.Request(
        parameters=[Parameter(name, value=value).to_parameter_msg() for name, value in parameters.items()]
    ))  # fmt: skip
    scope = OverrideReasoning.Request.UNTIL_RELEASED if phase == "forced" else OverrideReasoning.Request.RELEASE
    _call(robot.override, OverrideReasoning.Request(scope=scope, text=TEXT))
    robot.instruction.publish(String(data=f"Pick the card with the answer ({phase})."))
    time.sleep(3.0)
    source = {"fresh": "generated"}.get(phase, phase)
    begun = len(robot.arrivals)
    time.sleep(PHASE_S)
    health, arrivals = dict(robot.health), robot.arrivals[begun:]
    figures = {}
    for stage in STAGES:
        for rank, bar in {"p50": 1.5, "p99": 4.0}.items():
            key = f"{source}_{stage}_{rank}_ms"
            if key in health:
                bar = bar if stage == "overhead" else None
                figures[f"{phase}_{stage}_{rank}"] = _figure(float(health[key]), "ms", bar)
    ages_ms = 1e3 * np.array([arrived - stamp for stamp, arrived in arrivals])
    if len(ages_ms):
        figures[f"{phase}_stamp_to_arrival_p50"] = _figure(float(np.percentile(ages_ms, 50)), "ms", None)
        figures[f"{phase}_stamp_to_arrival_p99"] = _figure(float(np.percentile(ages_ms, 99)), "ms", None)
    return figures


def _call(client: Any, request: Any) -> Any:
    _until(client.service_is_ready, 20.0, f"{client.srv_name} is not there")
    future = client.call_async(request)
    _until(future.done, 20.0, f"{client.srv_name} did not answer")
    return future.result()


def _until(ready: Any, timeout_s: float, complaint: str) -> None:
    end = time.monotonic() + timeout_s
    while not ready():
        if time.monotonic() > end:
            raise RuntimeError(f"{complaint} within {timeout_s:.0f} s")
        time.sleep(0.05)


def _memory_growth(pid: int) -> float:
    """Return the growth of resident memory over MEMORY_S [%], from the mean of the second tenth to the last."""
    samples = []
    end = time.monotonic() + MEMORY_S
    while time.monotonic() < end:
        pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
        samples.append(pages)
        time.sleep(MEMORY_S / 200)
    tenth = len(samples) // 10
    first, last = np.mean(samples[tenth : 2 * tenth]), np.mean(samples[-tenth:])
    return float(100.0 * (last - first) / first)


def _figure(value: float, unit: str, bar: float | None) -> dict[str, Any]:
    return {"value": round(value, 3), "unit": unit, "bar": bar, "better": "lower"}
