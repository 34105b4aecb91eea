# SPDX-License-Identifier: Apache-2.0
"""Serve follow_instruction: one goal at a time, each ended once, with a named code.

What is done meanwhile is the node's. A newer goal takes the place of the older, unless it is refused: that changes
nothing else. All methods belong to the executor's thread.
"""

# Generated messages carry no types that pyright knows:
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# pyright: reportUnknownParameterType=false, reportMissingTypeStubs=false, reportAttributeAccessIssue=false
# pyright: reportMissingTypeArgument=false, reportUnknownLambdaType=false

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field

from rclpy.action.server import ActionServer, CancelResponse, GoalResponse, ServerGoalHandle
from rclpy.clock import Clock
from rclpy.clock_type import ClockType
from rclpy.node import Node
from rclpy.task import Future

from chatvla_control.ros.forced_text import LONGEST_TEXT
from chatvla_msgs.action import FollowInstruction

__all__ = ["InstructionGoals", "Run"]

_LOOK_S, _LAST_LOOKS, _LOOKS_AFTER = 0.1, 30, 3
"""Before the server goes it is looked every so often [s], at most so many times, whether the last result is sent."""
_KEEP_RESULT_S = 10
"""A goal's sender may ask for the result until then after the goal's end."""
Result, Feedback = FollowInstruction.Result, FollowInstruction.Feedback


@dataclass(kw_only=True)
class Run:
    """One goal on its way."""

    handle: ServerGoalHandle
    instruction: str
    timeout_s: float
    begun_s: float
    ended: Future
    chunks: int = 0
    text: str = ""
    missing_since_s: float = field(default=math.nan)


class InstructionGoals:
    """The action server and the goal on its way, if any."""

    def __init__(
        self,
        node: Node,
        *,
        default_timeout_s: float,
        on_begin: Callable[[Run], None],
        on_end: Callable[[Run, int], None],
        refusal: Callable[[], str] = lambda: "",
        on_cancel: Callable[[], None] = lambda: None,
    ) -> None:
        """Serve on `node`.

        `on_begin` is called with each goal that is taken up, `on_end` with its code before the result is sent. A
        sentence from `refusal` ends a new goal with NODE_INACTIVE. `on_cancel` says that `watch` should be called soon.
        """
        self._node = node
        self._on_cancel = on_cancel
        self._default_s = default_timeout_s
        self._on_begin, self._on_end, self._refusal = on_begin, on_end, refusal
        self._accepted: dict[bytes, Run] = {}
        self._untold = 0
        self.run: Run | None = None
        """The goal on its way."""
        self._server = ActionServer(
            node,
            FollowInstruction,
            "follow_instruction",
            execute_callback=self._execute,
            # A refused goal could not say why: it is accepted, then aborted with a code.
            goal_callback=lambda goal: GoalResponse.ACCEPT,
            handle_accepted_callback=self._on_accepted,
            cancel_callback=self._on_cancel_request,
            # By default each ended goal, with its text, is kept for a quarter of an hour.
            result_timeout=_KEEP_RESULT_S,
        )

    @property
    def told(self) -> bool:
        """Whether every goal that has ended has its result; the executor that took a goal up must serve it on."""
        return not self._untold

    def destroy(self, why: str, *, served: bool = False) -> Callable[[], None]:
        """End the goal on its way with NODE_INACTIVE and the sentence `why`; stop serving.

        With `served`, the node's callbacks go on being served: its sender then gets the result before the server goes.
        Whoever destroys the node before that calls what is returned first, at any time and as often as it likes.
        """
        if self.run is not None:
            self.end(self.run, Result.NODE_INACTIVE, why)
        gone = False

        def go() -> None:
            nonlocal gone
            if not gone:
                gone = True
                self._server.destroy()

        if not served or self.told:
            go()
            return go
        looks = iter(range(_LAST_LOOKS))
        more = iter(range(_LOOKS_AFTER))

        def last() -> None:
            # A result that is told is sent by callbacks of its own.
            if next(looks, None) is None or (self.told and next(more, None) is None):
                self._node.destroy_timer(timer)
                go()

        timer = self._node.create_timer(_LOOK_S, last, clock=Clock(clock_type=ClockType.STEADY_TIME))
        return go

    def watch(self) -> bool:
        """End the goal when it was cancelled or is out of time; return whether one is still on its way."""
        run = self.run
        if run is None or not run.handle.is_active:
            return False
        if run.handle.is_cancel_requested:
            self.end(run, Result.PREEMPTED, "the goal was cancelled")
        elif self._seconds(run) > run.timeout_s:
            self.end(run, Result.TIMEOUT, f"not done within {run.timeout_s:g} s")
        return self.run is run

    def wait_for_input(self, run: Run, *, patience_s: float, code: int, sentence: str) -> None:
        """Note that an input is missing now; end the goal with `code` when it stays away for `patience_s`."""
        now_s = self.now_s()
        if math.isnan(run.missing_since_s) or now_s < run.missing_since_s:
            run.missing_since_s = now_s
        self.feedback(run, Feedback.OBSERVING)
        if now_s - run.missing_since_s > patience_s:
            self.end(run, code, sentence)

    def feedback(self, run: Run, phase: int) -> None:
        """Tell the goal's sender the phase and the current text."""
        run.handle.publish_feedback(Feedback(phase=phase, reasoning=run.text, seconds=self._seconds(run)))

    def end(self, run: Run, code: int, message: str) -> None:
        """End a goal: NONE succeeds, everything else aborts, or cancels when that was asked for."""
        if run is self.run:
            self.run = None
            self._on_end(run, code)
        result = Result(
            error_code=code,
            error_msg=message,
            reasoning=run.text,
            chunks=run.chunks,
            seconds=self._seconds(run),
        )
        if code == Result.NONE:
            run.handle.succeed()
        elif run.handle.is_cancel_requested:
            run.handle.canceled()
        else:
            run.handle.abort()
        if not run.ended.done():
            run.ended.set_result(result)

    def now_s(self) -> float:
        """Return the node's time [s]."""
        return self._node.get_clock().now().nanoseconds * 1e-9

    def _seconds(self, run: Run) -> float:
        """Return how long a goal has been on its way; a clock that was set back begins to count anew."""
        run.begun_s = min(run.begun_s, self.now_s())
        return self.now_s() - run.begun_s

    def _on_cancel_request(self, handle: ServerGoalHandle) -> CancelResponse:
        self._on_cancel()
        return CancelResponse.ACCEPT

    def _on_accepted(self, handle: ServerGoalHandle) -> None:
        goal = handle.request
        run = self._accepted[bytes(handle.goal_id.uuid)] = Run(
            handle=handle,
            instruction=goal.instruction.strip(),
            timeout_s=goal.timeout_s if goal.timeout_s else self._default_s,
            begun_s=self.now_s(),
            ended=Future(),
        )
        handle.execute()
        self._untold += 1
        if (unfit := self._unfit(run)) is not None:
            return self.end(run, *unfit)
        if self.run is not None:
            self.end(self.run, Result.PREEMPTED, "a newer goal took this one's place")
        self.run = run
        self._on_begin(run)

    async def _execute(self, handle: ServerGoalHandle) -> FollowInstruction.Result:
        run = self._accepted.pop(bytes(handle.goal_id.uuid))
        await run.ended
        self._untold -= 1
        return _result_of(run)

    def _unfit(self, run: Run) -> tuple[int, str] | None:
        """Return the code and the sentence of a goal that cannot be followed, None for one that can."""
        if refusal := self._refusal():
            return Result.NODE_INACTIVE, refusal
        count = len(run.instruction)
        if not 1 <= count <= LONGEST_TEXT:
            return Result.INVALID_GOAL, f"the instruction has {count} characters, allowed are 1 to {LONGEST_TEXT}"
        if not (math.isfinite(run.timeout_s) and run.timeout_s > 0):
            return Result.INVALID_GOAL, f"timeout_s is {run.timeout_s}, it must be 0 or a positive number"
        return None


def _result_of(run: Run) -> FollowInstruction.Result:
    """Return the result that `end` gave the run."""
    result: FollowInstruction.Result | None = run.ended.result()
    if result is None:
        raise RuntimeError("a goal ended without a result")
    return result
