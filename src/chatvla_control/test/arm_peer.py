# SPDX-License-Identifier: Apache-2.0
"""A small kinematic arm in a process of its own, and a client to drive it with: peers of the driver over real DDS."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import ExitStack
from types import TracebackType
from typing import Any

import numpy as np
import rclpy
from diagnostic_msgs.msg import DiagnosticArray
from sensor_msgs.msg import JointState
from std_srvs.srv import Trigger

from chatvla_control.contracts import ActionChunk
from chatvla_control.robot_spec import RobotSpec, robot_spec
from chatvla_control.ros.convert import action_chunk_to_msg
from chatvla_control.ros.spin import serving
from chatvla_msgs.msg import ActionChunk as ActionChunkMsg

SPEC = robot_spec("arx_r5")


class Client:
    """An arm that goes where it is commanded at once, plus topics and services to watch and drive the driver."""

    def __init__(self, domain: int, namespace: str, spec: RobotSpec = SPEC) -> None:
        self.spec = spec
        self.context = rclpy.Context()
        rclpy.init(context=self.context, domain_id=domain)
        self.node = rclpy.create_node("client", namespace=namespace, context=self.context)
        self.positions = np.array(spec.home)
        self.alive = True
        self.states: list[tuple[float, JointState]] = []
        self.commands: list[JointState] = []
        self.diagnostics: list[dict[str, str]] = []
        self._to_driver = self.node.create_publisher(JointState, "sim/joint_states", 1)
        self.chunks = self.node.create_publisher(ActionChunkMsg, "action_chunk", 1)
        self.node.create_subscription(JointState, "sim/joint_command", self._on_command, 1)
        self.node.create_subscription(
            JointState, "joint_states", lambda msg: self.states.append((time.monotonic(), msg)), 100
        )
        self.node.create_subscription(JointState, "joint_command", self.commands.append, 100)
        self.node.create_subscription(DiagnosticArray, "/diagnostics", self._on_diagnostics, 100)
        self._services = {name: self.node.create_client(Trigger, f"driver/{name}") for name in ("stop", "clear_fault")}
        self.node.create_timer(0.01, self._publish_state)
        self._ends = ExitStack()
        self._ends.enter_context(serving(self.node))

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ends.close()
        self.node.destroy_node()
        rclpy.shutdown(context=self.context)

    def now_s(self) -> float:
        return self.node.get_clock().now().nanoseconds * 1e-9

    def send(self, chunk: ActionChunk) -> None:
        self.chunks.publish(action_chunk_to_msg(chunk))

    def call(self, name: str) -> Any:
        client = self._services[name]
        assert client.wait_for_service(5.0)
        future = client.call_async(Trigger.Request())
        self.wait(future.done, 5.0)
        return future.result()

    def wait(self, condition: Callable[[], object], timeout_s: float = 10.0) -> None:
        until_s = time.monotonic() + timeout_s
        while not condition():
            assert time.monotonic() < until_s, f"waited {timeout_s} s; last diagnostics: {self.diagnostics[-1:]}"
            time.sleep(0.01)

    def value(self, key: str) -> str:
        return self.diagnostics[-1].get(key, "") if self.diagnostics else ""

    def _on_command(self, msg: JointState) -> None:
        if self.alive:
            self.positions = np.array(msg.position)

    def _on_diagnostics(self, msg: DiagnosticArray) -> None:
        if msg.status[0].name.startswith(self.node.get_namespace() + "/"):
            self.diagnostics.append({item.key: item.value for item in msg.status[0].values})

    def _publish_state(self) -> None:
        if self.alive:
            msg = JointState(name=list(self.spec.joint_names), position=self.positions.tolist())
            msg.header.stamp = self.node.get_clock().now().to_msg()
            self._to_driver.publish(msg)
