# SPDX-License-Identifier: Apache-2.0
"""Serve follow_instruction with the scripted expert of a task: a learned policy's topics and driver, but privileged.

Subscribes joint_states, sim/bench_state (the truth) and /diagnostics; publishes reasoning and action_chunk; serves the
action follow_instruction and the service override_reasoning. One goal at a time: a newer one takes its place.
"""

from __future__ import annotations

import dataclasses
import math
import sys
from collections.abc import Callable, Sequence

import numpy as np
import rclpy
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile
from rclpy.signals import SignalHandlerOptions
from rclpy.utilities import try_shutdown
from sensor_msgs.msg import JointState as JointStateMsg

from chatvla_control.contracts import ActionChunk, Inference
from chatvla_control.robot_spec import robot_names, robot_spec
from chatvla_control.ros.convert import ConversionError, action_chunk_to_msg, joint_state_from_msg, reasoning_to_msg
from chatvla_control.ros.convert_scene import scene_truth_from_msg
from chatvla_control.ros.diagnostics import is_from
from chatvla_control.ros.forced_text import ForcedText
from chatvla_control.ros.instruction_goals import InstructionGoals, Run
from chatvla_control.ros.parameters import declare
from chatvla_control.ros.qos import NEWEST_LATCHED, NEWEST_UNRELIABLE
from chatvla_control.ros.spin import spin_until, stop_on_signals
from chatvla_control.scene import SceneTruth
from chatvla_msgs.action import FollowInstruction
from chatvla_msgs.msg import ActionChunk as ActionChunkMsg
from chatvla_msgs.msg import BenchState
from chatvla_msgs.msg import Reasoning as ReasoningMsg
from chatvla_msgs.srv import OverrideReasoning
from chatvla_sim.bench import BenchError
from chatvla_sim.benches import bench_names, bench_robot
from chatvla_sim.expert import make_expert
from chatvla_sim.ros.expert_inputs import ExpertInputs

__all__ = ["ExpertNode", "main"]

Result, Feedback = FollowInstruction.Result, FollowInstruction.Feedback
HOLD_AHEAD_S, HOLD_STEPS = 0.1, 10
"""A goal that ends early leaves the arms where the last chunk has them this much later."""


class ExpertNode(Node):
    """The expert of one task on ROS."""

    def __init__(self, *, node_name: str = "expert_node") -> None:
        """Raises BenchError or ParameterError with one sentence when a parameter does not fit."""
        super().__init__(node_name)
        task = declare(self, "task", "math_match", "Name of the bench.", choices=bench_names())
        robot = declare(self, "robot", "", "Name of the robot; empty: the bench's own.", choices=("", *robot_names()))
        period_s = declare(self, "chunk_period_s", 0.25, "Time between chunks, s.", low=0.05, high=1.0)
        default_s = declare(self, "timeout_s", 60.0, "Time-out of a goal that gives none, s.", low=1.0, high=3600.0)
        max_age_s = declare(self, "max_age_s", 0.5, "Oldest joints and truth to act on, s.", low=0.05, high=5.0)
        self._patience_s = declare(
            self, "patience_s", 5.0, "Fail after inputs stay away this long, s.", low=0.1, high=60.0
        )
        self._spec = robot_spec(robot or bench_robot(task))
        self._inputs = ExpertInputs(max_age_s=max_age_s)
        self._seen: SceneTruth | None = None
        self._expert = make_expert(task, self._spec, self._truth)
        self._chunk: ActionChunk | None = None
        self._forced = ForcedText()
        force = declare(self, "force", "", "Text to act on from the start on, until override_reasoning releases it.")
        if force.strip():
            self._forced.begin_with(force.strip())
        self._driver_fault = ""
        latched = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
        self._reasoning = self.create_publisher(ReasoningMsg, "reasoning", latched)
        self._chunks = self.create_publisher(ActionChunkMsg, "action_chunk", 1)
        self.create_subscription(JointStateMsg, "joint_states", self._on_joints, NEWEST_UNRELIABLE)
        self.create_subscription(BenchState, "sim/bench_state", self._on_truth, NEWEST_LATCHED)
        self.create_subscription(DiagnosticArray, "/diagnostics", self._on_diagnostics, 10)
        self.create_service(OverrideReasoning, "override_reasoning", self._forced.on_request)
        self._goals = InstructionGoals(self, default_timeout_s=default_s, on_begin=self._on_begin, on_end=self._on_end)
        self.create_timer(period_s, self._step)
        self.get_logger().info(f"the expert of {task} is ready; it sees the scene's truth")

    def farewell(self) -> Callable[[], bool]:
        """End the goal on its way; return what says that its sender knows."""
        if self._goals.run is not None:
            self._goals.end(self._goals.run, Result.NODE_INACTIVE, "the expert is shutting down")
        return lambda: self._goals.told

    def close(self) -> None:
        """End the goal on its way and destroy the node."""
        self._goals.destroy("the expert is shutting down")
        self.destroy_node()

    def _truth(self) -> SceneTruth:
        if self._seen is None:
            raise BenchError("the scene's truth has not been seen yet; is the simulator running?")
        return self._seen

    def _now_s(self) -> float:
        return self.get_clock().now().nanoseconds * 1e-9

    def _on_joints(self, msg: JointStateMsg) -> None:
        try:
            state = joint_state_from_msg(msg, self._spec.joint_names)
        except ConversionError as error:
            self.get_logger().warning(
                f"joint_states does not fit {self._spec.name}: {error}", throttle_duration_sec=5.0
            )
            return
        if np.isfinite(state.positions).all():
            self._inputs.add_joints(state)

    def _on_truth(self, msg: BenchState) -> None:
        try:
            self._inputs.add_truth(scene_truth_from_msg(msg))
        except ConversionError as error:
            self.get_logger().warning(f"sim/bench_state cannot be read: {error}", throttle_duration_sec=5.0)

    def _on_diagnostics(self, msg: DiagnosticArray) -> None:
        for status in msg.status:
            if status.hardware_id == self._spec.name and is_from(status, self.get_namespace()):
                self._driver_fault = status.message if status.level >= DiagnosticStatus.ERROR else ""

    def _on_begin(self, run: Run) -> None:
        self._expert.reset(0)
        self._chunk = None

    def _on_end(self, run: Run, code: int) -> None:
        self._forced.end_instruction()
        if code != Result.NONE:
            self._hold()

    def _hold(self) -> None:
        """Publish a chunk that leaves the arms where the last chunk has them in a moment."""
        chunk, now = self._chunk, self._now_s()
        if chunk is None:
            return
        row = round((now + HOLD_AHEAD_S - chunk.start_s) / chunk.step_period_s)
        actions = np.repeat(chunk.actions[None, min(max(row, 0), len(chunk.actions) - 1)], HOLD_STEPS, axis=0)
        self._publish(dataclasses.replace(chunk, id=f"{chunk.id}-hold", actions=actions, start_s=now + HOLD_AHEAD_S))
        self._chunk = None

    def _publish(self, chunk: ActionChunk) -> None:
        self._chunks.publish(action_chunk_to_msg(chunk, frame_id=self._spec.base_frame))

    def _step(self) -> None:
        """Look, think and publish the next chunk of the goal on its way."""
        run, now = self._goals.run, self._now_s()
        if run is None or not self._goals.watch():
            return
        if self._driver_fault:
            return self._goals.end(run, Result.DRIVER_FAULT, f"the driver holds: {self._driver_fault}")
        missing = self._inputs.missing(now)
        seen = None if missing else self._inputs.observe(run.instruction)
        if seen is None:
            return self._wait(run, missing or "sim/bench_state")
        run.missing_since_s = math.nan
        observation, self._seen = seen
        try:
            inference = self._expert.infer(observation, forced_reasoning=self._forced.text, previous_chunk=self._chunk)
        except (ValueError, ArithmeticError, LookupError) as error:
            return self._goals.end(run, Result.POLICY_FAULT, f"the expert failed: {type(error).__name__}: {error}")
        return self._act(run, inference)

    def _act(self, run: Run, inference: Inference) -> None:
        reasoning = inference.reasoning
        if reasoning.text != run.text:
            run.text = reasoning.text
            self._reasoning.publish(reasoning_to_msg(reasoning))
            self._goals.feedback(run, Feedback.REASONING)
        self._chunk = inference.chunk
        self._publish(inference.chunk)
        run.chunks += 1
        self._goals.feedback(run, Feedback.ACTING)
        if inference.done:
            self._goals.end(run, Result.NONE, "")

    def _wait(self, run: Run, missing: str) -> None:
        code = Result.JOINT_STATE_FAULT if missing == "joint_states" else Result.CAMERA_FAULT
        sentence = f"nothing usable on {missing} for {self._patience_s:g} s; is its sender running?"
        self._goals.wait_for_input(run, patience_s=self._patience_s, code=code, sentence=sentence)


def main(args: Sequence[str] | None = None) -> int:
    """Run the node until SIGINT or SIGTERM; return the exit code."""
    rclpy.init(args=None if args is None else list(args), signal_handler_options=SignalHandlerOptions.NO)
    stop = stop_on_signals()
    node: ExpertNode | None = None
    try:
        node = ExpertNode()
        spin_until(node, stop, farewell=node.farewell)
        return 0
    except (ValueError, RuntimeError) as error:
        print(f"expert_node: {error}", file=sys.stderr)
        return 1
    finally:
        if node is not None:
            node.close()
        try_shutdown()


if __name__ == "__main__":
    sys.exit(main())
