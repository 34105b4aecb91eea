# SPDX-License-Identifier: Apache-2.0
"""Listen to what a trial shows: the bench's truth, reasoning texts, the driver's refusals, joints, the camera.

Callbacks run in the executor's thread; readers take snapshots under one lock.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping

import numpy as np
from diagnostic_msgs.msg import DiagnosticArray
from numpy.typing import NDArray
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile, qos_profile_sensor_data
from rclpy.subscription import Subscription
from sensor_msgs.msg import Image, JointState

from chatvla_control.contracts import ActionChunk
from chatvla_control.robot_spec import RobotSpec
from chatvla_control.ros.convert import action_chunk_from_msg, joint_state_from_msg
from chatvla_control.ros.convert_scene import scene_truth_from_msg
from chatvla_control.ros.diagnostics import is_from
from chatvla_control.ros.images import image_from_msg
from chatvla_control.ros.qos import NEWEST_LATCHED
from chatvla_control.ros.stamps import time_from_msg
from chatvla_control.scene import SceneTruth
from chatvla_msgs.msg import ActionChunk as ActionChunkMsg
from chatvla_msgs.msg import BenchState, Reasoning

__all__ = ["TrialTopics"]

ALL = QoSProfile(depth=100, durability=DurabilityPolicy.TRANSIENT_LOCAL)
"""Every message counts: what a gripper held for a moment is part of the result."""
_KEPT = 500
"""Messages kept between two looks: ten seconds of joint states."""
_COUNTED = "policy_"
"""How the policy node names on /diagnostics what its policy counts."""
_MOST_COUNTS = 50


class TrialTopics:
    """The newest of everything that a trial shows."""

    def __init__(self, node: Node, spec: RobotSpec, *, view: str = "top") -> None:
        self._node = node
        self._spec = spec
        self._view = view
        self._namespace = node.get_namespace()
        self._lock = threading.Lock()
        self._truth: SceneTruth | None = None
        self._truth_at_s = -np.inf
        self._texts: list[str] = []
        self._texts_from_s = np.inf
        self._policy = ""
        self._privileged = False
        self._refused = ""
        self._fault: str | None = None
        self._counts = (0, 0)
        self._policy_counts: dict[str, int] = {}
        self._image: Image | None = None
        self._camera: Subscription | None = None
        self._listens = False
        self._joints: JointState | None = None
        self._seen: list[SceneTruth] = []
        self._motion: list[JointState] = []
        self._chunks: list[ActionChunk] = []
        node.create_subscription(BenchState, "sim/bench_state", self._on_truth, ALL)
        node.create_subscription(Reasoning, "reasoning", self._on_reasoning, NEWEST_LATCHED)
        node.create_subscription(DiagnosticArray, "/diagnostics", self._on_diagnostics, 20)
        node.create_subscription(JointState, "joint_states", self._on_joints, qos_profile_sensor_data)

    def begin(self, from_s: float) -> None:
        """Forget the last trial; only reasoning about observations from `from_s` (ROS time) on counts."""
        with self._lock:
            self._texts, self._texts_from_s, self._refused = [], from_s, ""
            self._seen, self._motion, self._chunks = [], [], []
            self._policy_counts = {}
        if not self._listens:
            # Only now: until the first trial, a listener of action_chunk means that the driver is there.
            self._node.create_subscription(ActionChunkMsg, "action_chunk", self._on_chunk, 10)
            self._listens = True

    def news(self) -> tuple[list[SceneTruth], list[tuple[float, NDArray[np.float64]]]]:
        """Return the truths and the measured positions since the last call, each in order."""
        with self._lock:
            seen, self._seen = self._seen, []
            motion, self._motion = self._motion, []
        names = self._spec.joint_names
        return seen, [(state.stamp_s, state.positions) for state in (joint_state_from_msg(m, names) for m in motion)]

    def chunks(self) -> tuple[ActionChunk, ...]:
        """Return the chunks published in this trial, in order."""
        with self._lock:
            return tuple(self._chunks)

    def truth(self) -> tuple[SceneTruth | None, float]:
        """Return the newest truth and its age [s]; None and infinity before the first."""
        with self._lock:
            return self._truth, time.monotonic() - self._truth_at_s

    def texts(self) -> tuple[str, ...]:
        """Return the distinct reasoning texts of this trial, in order."""
        with self._lock:
            return tuple(self._texts)

    def policy(self) -> tuple[str, bool]:
        """Return name and privilege of the policy that reasoned last; an empty name before."""
        with self._lock:
            return self._policy, self._privileged

    def policy_counts(self) -> dict[str, int]:
        """Return what the policy reported last of its own counts in this trial, by name; up to a second old."""
        with self._lock:
            return dict(self._policy_counts)

    def refused(self) -> str:
        """Return the code of the newest refused chunk when none was accepted after it, else ""."""
        with self._lock:
            return self._refused

    def fault(self) -> str | None:
        """Return the sentence of the fault on which the driver holds, "" for none; up to a second old.

        None before its first report.
        """
        with self._lock:
            return self._fault

    def joints(self) -> NDArray[np.float64] | None:
        """Return the newest measured positions [rad, m], shape (D,); None before the first."""
        with self._lock:
            msg = self._joints
        return None if msg is None else joint_state_from_msg(msg, self._spec.joint_names).positions

    def frame(self) -> NDArray[np.uint8] | None:
        """Return the newest camera image (H, W, 3); the first call starts to listen to the camera."""
        if self._camera is None:
            topic = f"camera/{self._view}/image_raw"
            self._camera = self._node.create_subscription(Image, topic, self._on_image, qos_profile_sensor_data)
        with self._lock:
            msg = self._image
        return None if msg is None else image_from_msg(msg)

    def forget_camera(self) -> None:
        """Stop listening to the camera."""
        if self._camera is not None:
            self._node.destroy_subscription(self._camera)
            self._camera = self._image = None

    def _on_truth(self, msg: BenchState) -> None:
        truth = scene_truth_from_msg(msg)
        with self._lock:
            self._truth, self._truth_at_s = truth, time.monotonic()
            self._seen = [*self._seen[-_KEPT:], truth]

    def _on_reasoning(self, msg: Reasoning) -> None:
        with self._lock:
            self._policy, self._privileged = msg.policy, msg.privileged
            fresh = time_from_msg(msg.header.stamp) >= self._texts_from_s
            if fresh and msg.text and msg.text not in self._texts[-1:]:
                self._texts.append(msg.text)

    def _on_diagnostics(self, msg: DiagnosticArray) -> None:
        for status in msg.status:
            if not is_from(status, self._namespace):
                continue
            values = {item.key: item.value for item in status.values}
            if status.name.endswith(": policy"):
                self._take_policy_counts(values)
            if "accepted" not in values:
                continue
            accepted = int(values["accepted"])
            refused = sum(int(value) for key, value in values.items() if key.startswith("refused."))
            with self._lock:
                self._fault = values.get("fault", "")
                if accepted > self._counts[0]:
                    self._refused = ""
                elif refused > self._counts[1]:
                    self._refused = values.get("last_refusal", "").partition(":")[0] or "unknown"
                self._counts = (accepted, refused)

    def _take_policy_counts(self, values: Mapping[str, str]) -> None:
        """Keep what the policy's report counts under "policy_NAME"."""
        counts = {
            key.removeprefix(_COUNTED): int(value)
            for key, value in values.items()
            if key.startswith(_COUNTED) and value.isascii() and value.isdecimal()
        }
        with self._lock:
            self._policy_counts = dict(list(counts.items())[:_MOST_COUNTS])

    def _on_joints(self, msg: JointState) -> None:
        # What does not fit raises here, in the executor, and is not kept.
        joint_state_from_msg(msg, self._spec.joint_names)
        with self._lock:
            self._joints = msg
            self._motion = [*self._motion[-_KEPT:], msg]

    def _on_chunk(self, msg: ActionChunkMsg) -> None:
        chunk = action_chunk_from_msg(msg)
        with self._lock:
            if chunk.stamp_s >= self._texts_from_s:
                self._chunks.append(chunk)

    def _on_image(self, msg: Image) -> None:
        image_from_msg(msg)
        with self._lock:
            self._image = msg
