# SPDX-License-Identifier: Apache-2.0
"""Run trials through ROS, in real time: reset_bench, follow_instruction, then watch topics.

A background thread spins the node; the methods here wait for it.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rclpy.action.client import ActionClient, ClientGoalHandle
from rclpy.node import Node
from rclpy.qos import QoSProfile
from rclpy.task import Future
from std_srvs.srv import Trigger

from chatvla_control.arm_controller import OPERATOR_STOP
from chatvla_control.robot_spec import RobotSpec
from chatvla_control.ros.convert import action_chunk_to_msg
from chatvla_control.scene import SceneTruth
from chatvla_eval.policies import EXPERT, policy_name
from chatvla_eval.ros.go_home import home_chunk, is_home
from chatvla_eval.ros.graph_wait import GraphCrowdedError, Part
from chatvla_eval.ros.trial_marks import TrialMarks
from chatvla_eval.ros.trial_topics import TrialTopics
from chatvla_eval.session import TrialSetup, Watch
from chatvla_msgs.action import FollowInstruction
from chatvla_msgs.msg import ActionChunk
from chatvla_msgs.srv import OverrideReasoning, ResetBench

__all__ = ["RosSession", "RosSessionError", "StoppedError"]

SLICE_S = 0.1
_CALL_S = 15.0
_REPORT_S = 3.0
"""The driver reports once a second; so long a new scorer waits for its first report."""
_ANSWER_S = 3.0
"""A policy that lives ends a goal so soon after it was cancelled or its time is over."""
_LEASE_S = 25.0
"""The middleware counts a killed node for 20 s more."""
_DISCOVERY_S = 1.0
"""A node that is there is in the graph so long after others are, on a busy machine, too."""
_TRUTH_AGE_S = 3.0
_RESULT_NAMES = {
    getattr(FollowInstruction.Result, name): name
    for name in (
        "INVALID_GOAL",
        "CAMERA_FAULT",
        "JOINT_STATE_FAULT",
        "DRIVER_FAULT",
        "POLICY_FAULT",
        "PREEMPTED",
        "NODE_INACTIVE",
    )
}


class RosSessionError(RuntimeError):
    """A node did not do its part; the message says which and what it said."""


class StoppedError(RuntimeError):
    """The run was told to stop."""


class RosSession:
    """One bench and one policy behind ROS topics. Used by one thread; callbacks come from the executor's."""

    simulation = True

    def __init__(
        self, node: Node, spec: RobotSpec, *, policy: str, view: str = "top", stopped: threading.Event | None = None
    ) -> None:
        self._node = node
        self._spec = spec
        self._wanted = policy
        self._view = view
        self._stopped = stopped or threading.Event()
        self._topics = TrialTopics(node, spec, view=view)
        self._reset = node.create_client(ResetBench, "sim/reset_bench")
        self._override = node.create_client(OverrideReasoning, "override_reasoning")
        self._follow = ActionClient(node, FollowInstruction, "follow_instruction")
        self._chunks = node.create_publisher(ActionChunk, "action_chunk", QoSProfile(depth=1))
        self._clear = node.create_client(Trigger, "driver/clear_fault")
        self._goal: ClientGoalHandle | None = None
        self._outcome: FollowInstruction.Result | None = None
        self._timeout_s = 0.0
        self._policies: set[bytes] | None = None
        self._looked_around = False
        self._marks = TrialMarks(node)
        self._watch: Watch | None = None
        self._started_s = 0.0

    @property
    def policy_name(self) -> str:
        """Name of the policy: as it signs its reasoning, or as asked for before it reasons."""
        return self._topics.policy()[0] or policy_name(self._wanted)

    @property
    def privileged(self) -> bool:
        """Whether the policy saw the scene's truth."""
        name, privileged = self._topics.policy()
        return privileged if name else self._wanted == EXPERT

    def parts(self) -> list[Part]:
        """Return what must be in the graph before the first trial."""
        camera = f"camera/{self._view}/image_raw"
        return [
            Part(what="simulator (service sim/reset_bench)", ready=self._reset.service_is_ready),
            Part(what="scene truth (topic sim/bench_state)", ready=self._publishes("sim/bench_state")),
            Part(what=f"camera (topic {camera})", ready=self._publishes(camera)),
            Part(what="driver (topic joint_states)", ready=lambda: self._topics.joints() is not None),
            Part(
                what="driver (nobody listens to action_chunk)", ready=lambda: self._chunks.get_subscription_count() > 0
            ),
            Part(what="policy (action follow_instruction)", ready=self._follow.server_is_ready),
        ]

    def check_alone(self) -> None:
        """Raise GraphCrowdedError when another bench stays among the same topics: both would move the same arms.

        A killed node's lease is waited out, and at first a second bench's discovery. Raises StoppedError.
        """
        if not self._looked_around:
            self._looked_around = True
            if self._stopped.wait(_DISCOVERY_S):
                raise StoppedError("stopped while waiting")
        deadline = time.monotonic() + _LEASE_S
        while crowd := self._crowd():
            if time.monotonic() > deadline:
                raise GraphCrowdedError(crowd)
            self._node.get_logger().warning(f"waits up to {_LEASE_S:.0f} s: {crowd}", once=True)
            if self._stopped.wait(SLICE_S):
                raise StoppedError("stopped while waiting")

    def reset(self, setup: TrialSetup) -> SceneTruth:
        """Clear a fault, drive the arms home, build the scene and return its truth. Raises RosSessionError."""
        if setup.fonts:
            raise RosSessionError(
                "fonts are chosen when the simulator starts; give them to sim_node, not to the rollout"
            )
        self._clear_fault()
        self._drive_home()
        before, _ = self._topics.truth()
        request = ResetBench.Request(split=setup.split, seed=setup.seed, swap=setup.swap)
        response = self._wait(self._reset.call_async(request), _CALL_S, "sim/reset_bench did not answer")
        if not response.success:
            raise RosSessionError(f"sim/reset_bench refused: {response.message}")

        def fresh() -> SceneTruth | None:
            truth, _ = self._topics.truth()
            changed = truth is not None and (before is None or truth.trial != before.trial)
            fits = (
                changed and truth is not None and truth.ready and (truth.seed, truth.swap) == (setup.seed, setup.swap)
            )
            return truth if fits else None

        truth = self._until(fresh, _CALL_S, "sim/bench_state never showed the new scene")
        self._topics.begin(truth.stamp_s)
        self._marks.begin(setup, truth)
        return truth

    def start(self, setup: TrialSetup, instruction: str, timeout_s: float) -> None:
        """Force the reasoning if asked to, then send the instruction. Raises RosSessionError."""
        if setup.forced_reasoning:
            self._force(setup.forced_reasoning)
        self._outcome, self._timeout_s = None, timeout_s
        goal = FollowInstruction.Goal(instruction=instruction, timeout_s=float(timeout_s))
        handle = self._wait(self._follow.send_goal_async(goal), _CALL_S, "follow_instruction did not answer")
        if not handle.accepted:
            raise RosSessionError("follow_instruction refused the goal; see the policy's log")
        self._goal = handle
        self._started_s = time.monotonic()
        self._policies = None
        handle.get_result_async().add_done_callback(partial(self._on_result, handle))

    def watch(self) -> Watch:
        """Wait a tenth of a second and return what is known.

        Raises StoppedError and RosSessionError.
        """
        if not self._stopped.wait(SLICE_S) and time.monotonic() - self._started_s >= self._timeout_s:
            self._await_outcome()
        if self._stopped.is_set():
            raise StoppedError("stopped during a trial")
        seen, motion = self._topics.news()
        truth, age_s = self._topics.truth()
        # No truth may come after the last one seen: the bag is scored up to the stamp of this look.
        truth = seen[-1] if seen else truth
        if truth is None:
            raise RosSessionError("sim/bench_state never came")
        outcome = self._outcome
        # At every look: a second bench may come later, or be discovered late.
        error = (self._lost() if outcome is None else _error_of(outcome)) or self._crowd()
        if age_s > _TRUTH_AGE_S:
            error = f"sim/bench_state is silent for {age_s:.0f} s: the simulator stopped"
        self._watch = Watch(
            elapsed_s=time.monotonic() - self._started_s,
            truth=truth,
            texts=self._topics.texts(),
            finished=outcome is not None,
            timed_out=outcome is not None and outcome.error_code == FollowInstruction.Result.TIMEOUT,
            error=error,
            refused=self._topics.refused(),
            seen=seen,
            clock_s=self._node.get_clock().now().nanoseconds * 1e-9,
            joints=self._topics.joints(),
            motion=motion,
            chunks=self._topics.chunks(),
            counts=self._topics.policy_counts(),
        )
        return self._watch

    def frame(self) -> NDArray[np.uint8] | None:
        """Return the newest camera image, shape (H, W, 3); None before the first."""
        return self._topics.frame()

    def stop(self) -> None:
        """Cancel the instruction if it is still followed."""
        if self._watch is not None:
            self._marks.end(self._watch, policy=self.policy_name, privileged=self.privileged)
            self._watch = None
        self._topics.forget_camera()
        if self._goal is not None and self._outcome is None:
            self._goal.cancel_goal_async()
            self._await_outcome()
        self._goal = None

    def close(self) -> None:
        """Cancel what still runs; a trial that was not ended is marked as none."""
        self._watch = None
        self.stop()

    def destroy(self) -> None:
        """Free the action client, once the node is spun no more: an executor would trip over it."""
        self._follow.destroy()

    def _on_result(self, goal: ClientGoalHandle, future: Future) -> None:
        response = future.result()
        # The result of an earlier trial's goal may come late.
        if goal is self._goal:
            self._outcome = None if response is None else response.result

    def _await_outcome(self) -> None:
        """Wait for the goal's result, for _ANSWER_S at most; not once stopped: then nobody takes it in."""
        deadline = time.monotonic() + _ANSWER_S
        while self._outcome is None and time.monotonic() < deadline and not self._stopped.wait(0.02):
            pass

    def _serving(self) -> set[bytes]:
        """Return what tells each server of follow_instruction from the next one, also when a process is restarted."""
        infos = self._node.get_publishers_info_by_topic("follow_instruction/_action/status")
        return {bytes(info.endpoint_gid) for info in infos}

    def _lost(self) -> str:
        """Return why the goal on its way will have no result, "" while it may."""
        if not self._follow.server_is_ready():
            return "the policy went away during the trial"
        serving = self._serving()
        if self._policies is None:
            # The first look, SLICE_S after the goal was taken: all of who took it is in the graph by now,
            # and nothing yet of one started since, which needs three times as long.
            self._policies = serving
        if not serving <= self._policies:
            return "the policy was restarted during the trial, or a second one came"
        if time.monotonic() - self._started_s >= self._timeout_s + _ANSWER_S:
            return f"the policy did not end its goal within {_ANSWER_S:.0f} s after its time: it died or hangs"
        return ""

    def _crowd(self) -> str:
        """Return which part of the bench is there twice and what to do, "" for none."""
        for what, topic in (("simulators", "sim/bench_state"), ("drivers", "joint_states")):
            count = self._node.count_publishers(topic)
            if count > 1:
                return (
                    f"{count} {what} publish {self._node.resolve_topic_name(topic)}, only one may; "
                    "end the other launch, or start this one with another namespace or ROS_DOMAIN_ID"
                )
        return ""

    def _publishes(self, topic: str) -> Callable[[], bool]:
        return lambda: self._node.count_publishers(topic) > 0

    def _force(self, text: str) -> None:
        if not self._override.service_is_ready():
            raise RosSessionError(
                f"policy {self._wanted!r} offers no override_reasoning service: nothing can be forced"
            )
        request = OverrideReasoning.Request(scope=OverrideReasoning.Request.ONE_INSTRUCTION, text=text)
        response = self._wait(self._override.call_async(request), _CALL_S, "override_reasoning did not answer")
        if not response.success:
            raise RosSessionError(f"override_reasoning refused: {response.message}")

    def _clear_fault(self) -> None:
        """Release a simulated arm from the fault of an earlier trial; one that an operator stopped stays stopped."""
        report_s = time.monotonic() + _REPORT_S
        while self._topics.fault() is None and time.monotonic() < report_s:
            if self._stopped.wait(0.02):
                raise StoppedError("stopped while waiting")
        fault = self._topics.fault()
        if fault and not fault.startswith(OPERATOR_STOP) and self._clear.service_is_ready():
            self._node.get_logger().warning(f"cleared the driver's fault: {fault:.300}")
            self._wait(self._clear.call_async(Trigger.Request()), _CALL_S, "driver/clear_fault did not answer")
            # Who sends chunks knows of the fault by the same reports.
            self._until(lambda: not self._topics.fault(), _REPORT_S, f"the driver's fault stayed ({fault:.300})")

    def _drive_home(self) -> None:
        positions = self._topics.joints()
        if positions is None or is_home(positions, self._spec):
            return
        now_s = self._node.get_clock().now().nanoseconds * 1e-9
        chunk = home_chunk(positions, self._spec, now_s=now_s)
        self._chunks.publish(action_chunk_to_msg(chunk))
        allowed_s = chunk.valid_until_s - now_s + 1.0

        def at_home() -> bool:
            joints = self._topics.joints()
            return joints is not None and is_home(joints, self._spec)

        self._until(
            at_home, allowed_s, f"the arms did not come home (driver: {self._topics.refused() or 'no refusal'})"
        )

    def _wait(self, future: Future, timeout_s: float, complaint: str) -> Any:
        self._until(future.done, timeout_s, complaint)
        return future.result()

    def _until(self, ready: Callable[[], Any], timeout_s: float, complaint: str) -> Any:
        """Return the first true value of `ready`. Raises RosSessionError with `complaint` after `timeout_s`."""
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            if value := ready():
                return value
            if self._stopped.wait(0.02):
                raise StoppedError("stopped while waiting")
        raise RosSessionError(f"{complaint} within {timeout_s:.0f} s")


def _error_of(outcome: FollowInstruction.Result) -> str:
    """Return the sentence of a result that is an error; "" for done, failed at the task, or out of time."""
    name = _RESULT_NAMES.get(outcome.error_code)
    return f"{name}: {outcome.error_msg}" if name else ""
