# SPDX-License-Identifier: Apache-2.0
"""Every error code of follow_instruction, provoked."""

from __future__ import annotations

import time

import numpy as np
import pytest
from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState

from chatvla_msgs.action import FollowInstruction

Codes = FollowInstruction.Result


@pytest.mark.parametrize(
    ("goal", "sentence"),
    [
        ({"instruction": "  "}, "the instruction has 0 characters, allowed are 1 to 2000"),
        ({"instruction": "x" * 2001}, "2001 characters"),
        ({"instruction": "go", "timeout_s": -1.0}, "timeout_s is -1.0, it must be 0 or a positive number"),
    ],
)
def test_goal_that_cannot_be_read(serve, goal: dict, sentence: str) -> None:
    served = serve()
    result = served.result(served.send(**goal))
    assert result.error_code == Codes.INVALID_GOAL
    assert sentence in result.error_msg


def test_camera_that_stops(serve, robot) -> None:
    served = serve(patience_s=0.5)
    handle = served.send(instruction="swing")
    assert robot.until(lambda: robot.chunks)
    robot.camera_on = False
    result = served.result(handle)
    assert result.error_code == Codes.CAMERA_FAULT
    assert "camera top is" in result.error_msg
    count = len(robot.chunks)
    time.sleep(0.7)
    assert len(robot.chunks) == count


def test_camera_of_another_encoding(serve, robot) -> None:
    served = serve(patience_s=0.3)
    handle = served.send(instruction="swing")
    assert robot.until(lambda: robot.chunks)
    robot.encoding = "yuv422"
    result = served.result(handle)
    assert result.error_code == Codes.CAMERA_FAULT
    assert "encoding 'yuv422'" in result.error_msg


def test_joint_states_that_stop(serve, robot) -> None:
    served = serve(patience_s=0.5)
    handle = served.send(instruction="swing")
    assert robot.until(lambda: robot.chunks)
    robot.joints_on = False
    result = served.result(handle)
    assert result.error_code == Codes.JOINT_STATE_FAULT
    assert "joint_states is" in result.error_msg


def test_driver_that_holds_on_a_fault(serve, robot) -> None:
    served = serve()
    handle = served.send(instruction="swing")
    robot.fault = "left_joint2 stayed 0.50 rad from its command"
    result = served.result(handle)
    assert (result.error_code, result.error_msg) == (Codes.DRIVER_FAULT, f"the driver holds: {robot.fault}")


def test_driver_that_refuses_every_chunk(serve, robot) -> None:
    served = serve(patience_s=0.5)
    robot.refuse = True
    result = served.result(served.send(instruction="swing"))
    assert result.error_code == Codes.DRIVER_FAULT
    assert result.error_msg == "the driver refuses the chunks: jump: too far"


@pytest.mark.parametrize(("field", "value"), [("error", "out of memory"), ("bad", True)])
def test_policy_that_fails(serve, robot, field: str, value: object) -> None:
    served = serve()
    handle = served.send(instruction="swing")
    assert robot.until(lambda: robot.chunks)
    setattr(served.policy, field, value)
    result = served.result(handle)
    assert result.error_code == Codes.POLICY_FAULT
    assert ("out of memory" if field == "error" else "not finite") in result.error_msg
    assert result.chunks >= 1


def test_goal_that_takes_too_long(serve) -> None:
    served = serve()
    result = served.result(served.send(instruction="swing", timeout_s=0.5))
    assert (result.error_code, result.error_msg) == (Codes.TIMEOUT, "not done within 0.5 s")


def test_newer_goal_and_cancel_preempt(serve, robot) -> None:
    served = serve()
    first, second = served.send(instruction="swing"), served.send(instruction="swing on")
    assert served.result(first).error_code == Codes.PREEMPTED
    assert robot.until(lambda: any("swing on" in text.text for text in robot.texts))
    robot.call(second.cancel_goal_async())
    result = served.result(second)
    assert (result.error_code, result.error_msg) == (Codes.PREEMPTED, "the goal was cancelled")
    assert result.chunks == sum(text.instruction == "swing on" for text in robot.texts)


def test_node_that_is_inactive_or_deactivated(serve, robot) -> None:
    served = serve()
    handle = served.send(instruction="swing")
    assert robot.until(lambda: len(robot.chunks) >= 2)
    change = Transition(id=Transition.TRANSITION_DEACTIVATE)
    assert served.service(ChangeState, "policy_node/change_state", transition=change).success
    result = served.result(handle)
    assert (result.error_code, result.error_msg) == (Codes.NODE_INACTIVE, "the node was deactivated")
    time.sleep(0.1)
    count = len(robot.chunks)
    assert robot.chunks[-1].id.endswith("-hold")
    result = served.result(served.send(instruction="again"))
    assert result.error_code == Codes.NODE_INACTIVE
    assert "the policy node is inactive" in result.error_msg
    time.sleep(0.6)
    assert len(robot.chunks) == count
    np.testing.assert_allclose(robot.commands[-1], robot.commands[-5])


@pytest.mark.parametrize("how", ["signal", "transition"])
def test_node_that_shuts_down_tells_the_goals_sender(serve, robot, how: str) -> None:
    served = serve()
    handle = served.send(instruction="swing")
    assert robot.until(lambda: robot.chunks)
    waiting = handle.get_result_async()
    if how == "signal":
        served.end()
    else:
        change = Transition(id=Transition.TRANSITION_ACTIVE_SHUTDOWN)
        served.service(ChangeState, "policy_node/change_state", transition=change)
    result = robot.call(waiting).result
    assert (result.error_code, result.error_msg) == (Codes.NODE_INACTIVE, "the node is shutting down")
    assert robot.until(lambda: robot.chunks[-1].id.endswith("-hold"))


@pytest.mark.parametrize(("answer", "code"), [("no", Codes.TASK_FAILED), ("Yes", Codes.NONE)])
def test_model_judges_once_the_robot_rests(serve, robot, answer: str, code: int) -> None:
    served = serve(judge_after_rest_s=0.2)
    served.policy.answer = answer
    rest = served.policy.infer

    def at_rest(observation, forced=None, previous=None):
        import dataclasses

        made = rest(observation, forced, previous)
        rows = np.repeat(observation.joint_positions[None], 75, axis=0)
        return dataclasses.replace(made, chunk=dataclasses.replace(made.chunk, actions=rows))

    served.policy.infer = at_rest
    result = served.result(served.send(instruction="swing"))
    assert result.error_code == code
    assert served.policy.asked == ["The instruction was: swing Is it done? Answer yes or no."]


def test_policy_that_says_it_is_done(serve) -> None:
    served = serve()
    served.policy.done = True
    result = served.result(served.send(instruction="swing"))
    assert (result.error_code, result.error_msg, result.chunks) == (Codes.NONE, "", 1)
    assert result.reasoning == "I should swing for: swing"
