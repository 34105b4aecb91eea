# SPDX-License-Identifier: Apache-2.0
"""What ends with an instruction when another comes, a goal is refused, or the node rests: over real DDS."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator

import pytest
from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState
from rcl_interfaces.srv import SetParameters
from rclpy.parameter import Parameter
from std_msgs.msg import String

from chatvla_control.contracts import Reasoning as Text
from chatvla_control.contracts import ReasoningSource
from chatvla_msgs.action import FollowInstruction
from chatvla_msgs.msg import Reasoning
from chatvla_msgs.srv import OverrideReasoning
from chatvla_policy.systems.settings import PolicySettings, Reuse

from .conftest import TalkingPolicy

Codes = FollowInstruction.Result
TEXT = "I should pick the left card."
Say = Callable[[str], None]


class Writing(TalkingPolicy):
    """Writes texts apart from chunks; its inferences wait while `gate` is shut."""

    def __init__(self) -> None:
        super().__init__()
        self.reuse, self.settings = True, PolicySettings(reuse=Reuse.REFRESH)
        self.gate, self.waits = threading.Event(), threading.Event()
        self.gate.set()

    def infer(self, *given):
        if not self.gate.is_set():
            self.waits.set()
            self.gate.wait(30.0)
        return super().infer(*given)

    def adopt(self, reasoning: Text) -> None:
        """Go on as before."""

    def thinks_about(self, text: str) -> bool:
        return text == TEXT

    def write(self, observation, *, pause) -> Text:
        pause()
        return Text(
            id="apart",
            text="I think again.",
            stamp_s=observation.stamp_s,
            source=ReasoningSource.GENERATED,
            policy=self.name,
            instruction=observation.instruction,
        )


@pytest.fixture
def say(serve, robot) -> Iterator[Say]:
    """Return a sender of texts on the topic `instruction`, which waits until they are followed; "" until all rests."""
    publisher = robot.node.create_publisher(String, "instruction", 1)

    def send(text: str) -> None:
        assert robot.until(lambda: publisher.get_subscription_count() and robot.health().get("state") == "active")
        publisher.publish(String(data=text))
        if text:
            assert robot.until(lambda: robot.texts and robot.texts[-1].instruction == text)
        else:
            assert robot.until(lambda: robot.chunks[-1].id.endswith("-hold"))

    yield send
    robot.node.destroy_publisher(publisher)


def force_once(served, robot) -> None:
    """Force TEXT for one instruction, and wait until the one that is followed is acted on with it."""
    assert served.service(OverrideReasoning, "override_reasoning", scope=1, text=TEXT).success
    assert robot.until(lambda: robot.texts[-1].text == TEXT)


def own_text_of(robot, instruction: str) -> bool:
    """Return whether all texts of `instruction` are the policy's own, once there are two."""
    assert robot.until(lambda: sum(text.instruction == instruction for text in robot.texts) >= 2)
    return {text.source for text in robot.texts if text.instruction == instruction} == {Reasoning.GENERATED}


def change(served, transition: int) -> bool:
    request = Transition(id=transition)
    return served.service(ChangeState, "policy_node/change_state", transition=request).success


def test_text_for_one_instruction_ends_with_the_next_text_on_the_topic(serve, robot, say: Say) -> None:
    served = serve(chunk_period_s=0.1)
    say("first")
    force_once(served, robot)
    say("second")
    assert own_text_of(robot, "second")


def test_text_for_one_instruction_ends_with_the_goal_that_takes_over(serve, robot, say: Say) -> None:
    served = serve(chunk_period_s=0.1)
    say("first")
    force_once(served, robot)
    handle = served.send(instruction="goal")
    assert own_text_of(robot, "goal")
    force_once(served, robot)
    say("second")
    assert served.result(handle).error_code == Codes.PREEMPTED
    assert own_text_of(robot, "second")


def test_text_for_one_instruction_ends_where_the_node_is_deactivated(serve, robot, say: Say) -> None:
    served = serve(chunk_period_s=0.1)
    say("first")
    force_once(served, robot)
    assert change(served, Transition.TRANSITION_DEACTIVATE)
    assert change(served, Transition.TRANSITION_ACTIVATE)
    say("second")
    assert own_text_of(robot, "second")


def test_text_for_one_instruction_waits_for_the_next_where_none_is_followed(serve, robot, say: Say) -> None:
    served = serve(chunk_period_s=0.1)
    say("first")
    say("")
    assert served.service(OverrideReasoning, "override_reasoning", scope=1, text=TEXT).success
    assert served.result(served.send(instruction=" ")).error_code == Codes.INVALID_GOAL
    say("second")
    assert {text.source for text in robot.texts if text.instruction == "second"} == {Reasoning.FORCED}


def test_text_until_released_outlives_the_instruction(serve, robot, say: Say) -> None:
    served = serve(chunk_period_s=0.1)
    say("first")
    assert served.service(OverrideReasoning, "override_reasoning", scope=0, text=TEXT).success
    say("second")
    assert {text.source for text in robot.texts if text.instruction == "second"} == {Reasoning.FORCED}


def test_refused_goal_leaves_an_instruction_from_the_topic(serve, robot, say: Say) -> None:
    served = serve(chunk_period_s=0.1)
    say("first")
    assert served.result(served.send(instruction=" ")).error_code == Codes.INVALID_GOAL
    count = len(robot.texts)
    assert robot.until(lambda: len(robot.texts) > count + 2)
    assert {text.instruction for text in robot.texts} == {"first"}
    assert not any(chunk.id.endswith("-hold") for chunk in robot.chunks)


def test_refused_goal_leaves_the_goal_on_its_way(serve, robot) -> None:
    served = serve(chunk_period_s=0.1)
    handle = served.send(instruction="goal")
    assert robot.until(lambda: robot.chunks)
    refused = served.result(served.send(instruction="go", timeout_s=-1.0))
    assert (refused.error_code, refused.chunks) == (Codes.INVALID_GOAL, 0)
    count = len(robot.texts)
    assert robot.until(lambda: len(robot.texts) > count + 2)
    assert not any(chunk.id.endswith("-hold") for chunk in robot.chunks)
    robot.call(handle.cancel_goal_async())
    result = served.result(handle)
    assert (result.error_code, result.error_msg) == (Codes.PREEMPTED, "the goal was cancelled")


def test_node_rests_and_acts_again_while_a_text_waits_behind_an_inference(serve, robot, say: Say) -> None:
    policy = Writing()
    served = serve(policy, chunk_period_s=0.1)
    say("first")
    policy.gate.clear()
    assert robot.until(policy.waits.is_set)
    at_once = Parameter("reason_every_s", value=0.0).to_parameter_msg()
    assert served.service(SetParameters, "policy_node/set_parameters", parameters=[at_once]).results[0].successful
    assert robot.until(lambda: served.node._acting.scheduler.writing), "no text waits"
    assert change(served, Transition.TRANSITION_DEACTIVATE)
    client = robot.node.create_client(ChangeState, "policy_node/change_state")
    assert robot.until(client.service_is_ready)
    request = ChangeState.Request(transition=Transition(id=Transition.TRANSITION_ACTIVATE))
    answer = client.call_async(request)
    time.sleep(0.5)  # It waits for the inference by now.
    policy.gate.set()
    assert robot.call(answer).success
    say("second")
    robot.node.destroy_client(client)


def test_the_scheduler_asks_the_policy_which_texts_it_thinks_about(serve, robot) -> None:
    served = serve(Writing())
    assert robot.until(lambda: robot.health().get("state") == "active")
    scheduler = served.node._acting.scheduler
    assert [scheduler.thinks_about(text) for text in (TEXT, "Stop.")] == [True, False]
