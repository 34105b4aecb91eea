# SPDX-License-Identifier: Apache-2.0
"""A robot with a camera for the policy node: its chunks go through the driver's own controller."""

from __future__ import annotations

import time
from contextlib import ExitStack
from typing import Any

import numpy as np
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile, qos_profile_sensor_data
from sensor_msgs.msg import CameraInfo, Image, JointState

from chatvla_control.arm_controller import ArmController
from chatvla_control.ros.convert import action_chunk_from_msg, joint_state_to_msg
from chatvla_control.ros.images import image_to_msg
from chatvla_control.ros.spin import serving
from chatvla_msgs.msg import ActionChunk, Reasoning, RouterStats

from ..runtime.swinging import SPEC, joint_state, picture

LATCHED = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)


class RobotPeer:
    """Robot and listener in one node, spun by a thread of its own."""

    def __init__(self) -> None:
        self.node = Node("robot_peer")
        self.camera_on = self.joints_on = True
        self.frame = picture()
        self.encoding = "rgb8"
        self.focal_y: float | None = None
        self.fault = ""
        self.refuse = False
        self.joint_names = SPEC.joint_names
        self.chunks: list[ActionChunk] = []
        self.arrived_s: list[float] = []
        self.texts: list[Reasoning] = []
        self.routers: list[RouterStats] = []
        self.overlays: list[Image] = []
        self.reports: list[DiagnosticArray] = []
        self.refused: list[str] = []
        self.positions = np.clip(np.array(SPEC.home), SPEC.lower + 0.3, SPEC.upper - 0.3)
        self.positions[[6, 13]] = 0.04
        self.controller = ArmController(SPEC)
        self.commands: list[np.ndarray] = []
        self._count = 0
        node = self.node
        self._images = node.create_publisher(Image, "camera/top/image_raw", qos_profile_sensor_data)
        self._infos = node.create_publisher(CameraInfo, "camera/top/camera_info", qos_profile_sensor_data)
        self._joints = node.create_publisher(JointState, "joint_states", 10)
        self._diagnostics = node.create_publisher(DiagnosticArray, "/diagnostics", 10)
        node.create_subscription(ActionChunk, "action_chunk", self._on_chunk, 1)
        node.create_subscription(Reasoning, "reasoning", self.texts.append, LATCHED)
        node.create_subscription(RouterStats, "router", self.routers.append, 1)
        node.create_subscription(DiagnosticArray, "/diagnostics", self.reports.append, 10)
        node.create_timer(0.02, self._tick)
        node.create_timer(1 / 30, self._look)
        node.create_timer(0.2, self._report)
        self._ends = ExitStack()
        self._ends.enter_context(serving(node))

    def close(self) -> None:
        self._ends.close()
        self.node.destroy_node()

    def until(self, ready: Any, timeout_s: float = 15.0) -> bool:
        end = time.monotonic() + timeout_s
        while time.monotonic() < end and not ready():
            time.sleep(0.01)
        return bool(ready())

    def call(self, future: Any, timeout_s: float = 15.0) -> Any:
        assert self.until(future.done, timeout_s), "no answer"
        return future.result()

    def health(self) -> dict[str, str]:
        """Return the newest values of the policy's diagnostics, with its message under "message"."""
        for array in reversed(list(self.reports)):
            for status in array.status:
                if status.name.endswith(": policy"):
                    return {item.key: item.value for item in status.values} | {"message": status.message}
        return {}

    def now_s(self) -> float:
        return self.node.get_clock().now().nanoseconds * 1e-9

    def _tick(self) -> None:
        now_s = self.now_s()
        command = self.controller.step(now_s=now_s, measured=self.positions)
        self.positions = command.positions
        self.commands.append(command.positions)
        if self.joints_on:
            state = joint_state(now_s, command.positions, command.velocities)
            self._joints.publish(joint_state_to_msg(self.joint_names, state))

    def _look(self) -> None:
        self._count += 1
        if self.camera_on:
            frame = self.frame if self._count % 2 else self.frame ^ 1
            writable = self.encoding in ("rgb8", "bgra8")
            msg = image_to_msg(frame, self.now_s(), "camera_top_optical_frame", self.encoding if writable else "rgb8")
            msg.encoding = self.encoding
            self._images.publish(msg)
            if self.focal_y is not None:
                info = CameraInfo(header=msg.header, height=msg.height, width=msg.width)
                info.k[0] = info.k[4] = self.focal_y
                self._infos.publish(info)

    def _on_chunk(self, msg: ActionChunk) -> None:
        self.arrived_s.append(self.now_s())
        self.chunks.append(msg)
        fault = self.controller.accept(action_chunk_from_msg(msg), now_s=self.now_s(), measured=self.positions)
        if fault is not None:
            self.refused.append(f"{fault.code}: {fault.message}")

    def _report(self) -> None:
        status = self.controller.status()
        refused = self._count if self.refuse else sum(status.refused.values())
        values = {
            "accepted": 0 if self.refuse else status.accepted,
            "refused.jump": refused,
            "last_refusal": "jump: too far",
        }
        report = DiagnosticStatus(
            name="driver: arm",
            hardware_id=SPEC.name,
            level=DiagnosticStatus.ERROR if self.fault else DiagnosticStatus.OK,
            message=self.fault,
            values=[KeyValue(key=key, value=str(value)) for key, value in values.items()],
        )
        self._diagnostics.publish(DiagnosticArray(status=[report]))
