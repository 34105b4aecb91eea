# SPDX-License-Identifier: Apache-2.0
"""The robot of the policy node's benchmark: a camera that shows one picture at a time, joints that follow the chunks.

The next picture comes a short while after the chunk that the one before it brought: no picture waits for its turn.
"""

from __future__ import annotations

import subprocess
import threading
import time
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

from chatvla_cli.errors import ChatvlaError
from chatvla_control.arm_port import JointState as JointRow
from chatvla_control.contracts import ActionChunk as PlannedChunk
from chatvla_control.robot_spec import robot_spec
from chatvla_control.ros.convert import action_chunk_from_msg, joint_state_to_msg
from chatvla_control.ros.images import image_to_msg
from chatvla_control.ros.stamps import time_from_msg
from chatvla_msgs.msg import ActionChunk
from chatvla_msgs.srv import OverrideReasoning
from chatvla_policy.runtime.seam import plan_at

__all__ = ["BenchmarkError", "Robot"]

SPEC = robot_spec("arx_r5")
_LONGEST_S = 5.0
_IN_VAIN = 5
"""Pictures in a row without a chunk, after which waiting ends."""


class BenchmarkError(ChatvlaError):
    """Nothing can be measured; the message says why."""


class Robot:
    """Camera, joints and listener in one node, spun by a thread of its own."""

    def __init__(self) -> None:
        node = self.node = Node("node_benchmark")
        rng = np.random.default_rng(0)
        pictures = [rng.integers(0, 255, (240, 320, 3), np.uint8) for _ in range(4)]
        self._messages = [image_to_msg(picture, 1.0, "camera") for picture in pictures]
        self._rng = rng
        self._arrived = threading.Event()
        self._wanted_s = 0.0
        self._plans: tuple[PlannedChunk, ...] = ()
        """The last two chunks."""
        self.arrivals: list[tuple[float, float, float]] = []
        """Stamp of the picture, publication of its chunk as DDS marks it, and arrival in this process [s]."""
        self.state = ""
        self._images = node.create_publisher(Image, "camera/top/image_raw", qos_profile_sensor_data)
        self._joints = node.create_publisher(JointState, "joint_states", 10)
        self._instruction = node.create_publisher(String, "instruction", 1)
        self._parameters = node.create_client(SetParameters, "policy_node/set_parameters")
        self._override = node.create_client(OverrideReasoning, "override_reasoning")
        node.create_subscription(ActionChunk, "action_chunk", self._on_chunk, 10)
        node.create_subscription(DiagnosticArray, "/diagnostics", self._on_health, 10)
        self._executor = SingleThreadedExecutor()
        self._executor.add_node(node)
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=work, daemon=True) for work in (self._spin, self._feel)]
        for thread in self._threads:
            thread.start()

    def close(self) -> None:
        """End the threads and destroy the node."""
        self._stop.set()
        for thread in self._threads:
            thread.join()
        self._executor.shutdown()
        self.node.destroy_node()

    def wait(
        self,
        ready: Any,
        timeout_s: float,
        complaint: str,
        *,
        process: subprocess.Popen[bytes] | None = None,
        looking: bool = False,
    ) -> None:
        """Wait until `ready`, showing pictures meanwhile when `looking`.

        Raises BenchmarkError with `complaint`, at once when `process` ended.
        """
        end = time.monotonic() + timeout_s
        while not ready():
            if process is not None and process.poll() is not None:
                raise BenchmarkError(f"{complaint}: its process ended with exit code {process.returncode}")
            if time.monotonic() > end:
                raise BenchmarkError(f"{complaint} within {timeout_s:.0f} s")
            if looking:
                self._show()
            time.sleep(0.1)

    def configure(self, parameters: dict[str, Any], *, forced: str | None) -> None:
        """Set parameters of the node, force a text or release it, and give an instruction."""
        values = [Parameter(name, value=value).to_parameter_msg() for name, value in parameters.items()]
        self._call(self._parameters, SetParameters.Request(parameters=values))
        scope = OverrideReasoning.Request.RELEASE if forced is None else OverrideReasoning.Request.UNTIL_RELEASED
        self._call(self._override, OverrideReasoning.Request(scope=scope, text=forced or ""))
        self._instruction.publish(String(data=f"Pick the card with the answer {self._rng.integers(1000)}."))
        time.sleep(0.3)

    def pictures(self, count: int, *, pauses: bool = True, least: float = 0.9) -> list[tuple[float, float, float]]:
        """Show `count` pictures one by one, 5 to 40 ms apart or at once; return what is in `arrivals` for each.

        Raises BenchmarkError when a smaller share of them than `least` brings a chunk.
        """
        begun, in_vain = len(self.arrivals), 0
        for _ in range(count):
            self._arrived.clear()
            self._show()
            in_vain = 0 if self._arrived.wait(_LONGEST_S) else in_vain + 1
            if in_vain == _IN_VAIN:
                break
            if pauses:
                time.sleep(float(self._rng.uniform(0.005, 0.04)))
        found = self.arrivals[begun:]
        if len(found) < least * count:
            raise BenchmarkError(
                f"{count} pictures brought {len(found)} chunks; an inference that outlasts its chunk brings "
                "none: free the processor, or see the node's messages above"
            )
        return found

    def now_s(self) -> float:
        """Return ROS time [s]."""
        return self.node.get_clock().now().nanoseconds * 1e-9

    def _show(self) -> None:
        message = self._messages[int(self._rng.integers(len(self._messages)))]
        message.header.stamp = self.node.get_clock().now().to_msg()
        self._wanted_s = time_from_msg(message.header.stamp)
        self._images.publish(message)

    def _on_chunk(self, msg: ActionChunk, info: dict[str, Any]) -> None:
        stamp_s = time_from_msg(msg.header.stamp)
        self.arrivals.append((stamp_s, 1e-9 * info["source_timestamp"], self.now_s()))
        if stamp_s == self._wanted_s:
            self._arrived.set()
        self._plans = (*self._plans[-1:], action_chunk_from_msg(msg))

    def _on_health(self, msg: DiagnosticArray) -> None:
        for status in msg.status:
            if status.name.endswith(": policy"):
                self.state = {item.key: item.value for item in status.values}.get("state", "")

    def _feel(self) -> None:
        """Publish joint states at 50 Hz: where the newest chunk that has begun wants the joints, from home on."""
        still, positions = np.zeros(SPEC.width), np.array(SPEC.home)
        while not self._stop.wait(0.02) and rclpy.ok():
            now_s = self.now_s()
            if begun := [plan for plan in self._plans if plan.start_s <= now_s]:
                positions = plan_at(begun[-1], now_s)
            state = JointRow(positions=positions, velocities=still, efforts=still, stamp_s=now_s)
            self._joints.publish(joint_state_to_msg(SPEC.joint_names, state))

    def _spin(self) -> None:
        try:
            while not self._stop.is_set() and rclpy.ok():
                self._executor.spin_once(timeout_sec=0.1)
        except ExternalShutdownException:
            return

    def _call(self, client: Any, request: Any) -> Any:
        self.wait(client.service_is_ready, 20.0, f"{client.srv_name} is not there")
        future = client.call_async(request)
        self.wait(future.done, 20.0, f"{client.srv_name} did not answer")
        return future.result()
