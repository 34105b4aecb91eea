# SPDX-License-Identifier: Apache-2.0
"""Follow instructions: goals of follow_instruction, and texts on the topic `instruction`. The newest takes over."""

from __future__ import annotations

import math
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
from rclpy.node import Node

from chatvla_control.contracts import Policy
from chatvla_control.ros.forced_text import ForcedText
from chatvla_control.ros.instruction_goals import InstructionGoals, Run
from chatvla_msgs.action import FollowInstruction
from chatvla_policy.ros.acting import Acting
from chatvla_policy.ros.driver_watch import DriverWatch
from chatvla_policy.ros.parameters import PolicyParameters
from chatvla_policy.runtime.observation_sync import InputFault, InputKind

__all__ = ["Following"]

Result, Feedback = FollowInstruction.Result, FollowInstruction.Feedback
JUDGE = "The instruction was: {instruction} Is it done? Answer yes or no."
_AT_REST_RAD = 0.02


class Following:
    """What the node follows now. All methods belong to the executor's thread."""

    def __init__(
        self,
        node: Node,
        acting: Acting,
        policy: Policy,
        driver: DriverWatch,
        forced: ForcedText,
        parameters: PolicyParameters,
        inactive: Callable[[], str],
        wake: Callable[[], None],
    ) -> None:
        """`inactive` returns why no instruction is taken now, or ""; `wake` has `watch` called soon."""
        self._node, self._acting, self._policy = node, acting, policy
        self._driver, self._forced, self._parameters = driver, forced, parameters
        self._topic_text = ""
        self._rest_from: tuple[float, np.ndarray] | None = None
        self._judge = ThreadPoolExecutor(1, thread_name_prefix="judge")
        self._verdict: Future[str] | None = None
        self._goals = InstructionGoals(
            node,
            default_timeout_s=parameters.timeout_s,
            on_begin=self._on_begin,
            on_end=self._on_end,
            refusal=inactive,
            on_cancel=wake,
        )

    def follow_topic(self, text: str) -> None:
        """Follow a text until the next one; an empty one stops."""
        run = self._goals.run
        if run is not None:
            self._goals.end(run, Result.PREEMPTED, "an instruction on the topic took this one's place")
        self._change(text or None, over=bool(self._topic_text))
        self._topic_text = text

    def watch(self) -> None:
        """Tell the goal's sender what happened, and end the goal when it is done or cannot go on."""
        run = self._goals.run
        if run is None:
            self._log_failure()
            return
        if not self._goals.watch():
            return
        now_s, patience_s = self._goals.now_s(), self._parameters.patience_s
        if self._driver.fault:
            return self._goals.end(run, Result.DRIVER_FAULT, f"the driver holds: {self._driver.fault}")
        if refusal := self._driver.refusal(now_s, patience_s=patience_s):
            return self._goals.end(run, Result.DRIVER_FAULT, f"the driver refuses the chunks: {refusal}")
        while self._acting.events:
            event = self._acting.events.popleft()
            if event.inference is None:
                return self._goals.end(run, Result.POLICY_FAULT, f"inference failed: {event.error}")
            run.chunks += 1
            if event.inference.reasoning.text != run.text:
                run.text = event.inference.reasoning.text
                self._goals.feedback(run, Feedback.REASONING)
            self._goals.feedback(run, Feedback.ACTING)
            if event.inference.done:
                return self._goals.end(run, Result.NONE, "")
        with self._acting.lock:
            fault = self._acting.scheduler.fault(now_s)
        if fault is not None:
            return self._wait(run, fault)
        run.missing_since_s = math.nan
        self._ask_whether_done(run, now_s)

    def end(self, why: str) -> None:
        """End what is followed with NODE_INACTIVE and the sentence `why`."""
        if self._goals.run is not None:
            self._goals.end(self._goals.run, Result.NODE_INACTIVE, why)
        elif self._topic_text:
            self._change(None, over=True)
        self._topic_text = ""

    @property
    def told(self) -> bool:
        """Whether the senders of all goals that have ended know it."""
        return self._goals.told

    def destroy(self, why: str, *, served: bool) -> Callable[[], None]:
        """End what is followed and stop serving; `served`: whether the node's callbacks go on being served.

        Returns what ends the serving at once, for whoever destroys the node.
        """
        last = self._goals.destroy(why, served=served)
        self._judge.shutdown(wait=True, cancel_futures=True)
        return last

    def _on_begin(self, run: Run) -> None:
        self._driver.begin()
        self._rest_from = self._verdict = None
        self._change(run.instruction, over=bool(self._topic_text))
        self._topic_text = ""

    def _on_end(self, run: Run, code: int) -> None:
        while self._acting.events:
            run.chunks += self._acting.events.popleft().inference is not None
        self._change(None, over=True)

    def _change(self, instruction: str | None, *, over: bool) -> None:
        """Follow another instruction, or none; with `over`, one is over, and a text forced for it alone with it."""
        if over:
            self._forced.end_instruction()
        with self._acting.lock:  # No inference may begin for the one with the text of the other.
            self._acting.scheduler.force(self._forced.text)
            self._acting.follow(instruction, seed=self._parameters.seed)

    def _wait(self, run: Run, fault: InputFault) -> None:
        code = Result.JOINT_STATE_FAULT if fault.kind is InputKind.JOINTS else Result.CAMERA_FAULT
        self._goals.wait_for_input(run, patience_s=self._parameters.patience_s, code=code, sentence=fault.message)

    def _log_failure(self) -> None:
        """Report failures of an instruction from the topic: nobody waits for their code."""
        while self._acting.events:
            event = self._acting.events.popleft()
            if event.error:
                self._node.get_logger().error(f"inference failed: {event.error}", throttle_duration_sec=5.0)

    def _ask_whether_done(self, run: Run, now_s: float) -> None:
        """Let the model judge once the robot has rested for the time of the parameter; its word ends the goal."""
        if not self._parameters.judge_after_rest_s or not run.chunks or not hasattr(self._policy, "ask"):
            return
        if self._verdict is not None:
            if self._verdict.done():
                self._take_verdict(run, self._verdict)
            return
        with self._acting.lock:
            positions = self._acting.scheduler.sync.positions()
            images = self._acting.scheduler.sync.latest_images()
        if positions is None:
            return
        if self._rest_from is None or np.abs(positions - self._rest_from[1]).max() > _AT_REST_RAD:
            self._rest_from = (now_s, positions)
        elif now_s - self._rest_from[0] >= self._parameters.judge_after_rest_s:
            question = JUDGE.format(instruction=run.instruction)
            self._verdict = self._judge.submit(self._policy.ask, question, images)  # type: ignore[attr-defined]

    def _take_verdict(self, run: Run, verdict: Future[str]) -> None:
        try:
            answer = verdict.result()
        except Exception as error:  # The model may fail in any way.
            return self._goals.end(run, Result.POLICY_FAULT, f"judging failed: {type(error).__name__}: {error}")
        if answer.strip().lower().startswith("yes"):
            return self._goals.end(run, Result.NONE, "")
        return self._goals.end(run, Result.TASK_FAILED, f"the robot rests and the model says: {answer:.100}")
