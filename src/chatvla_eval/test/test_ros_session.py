# SPDX-License-Identifier: Apache-2.0
"""A session over real DDS with a policy that answers late or not at all, and reports of other benches."""

from contextlib import contextmanager
from dataclasses import replace

import pytest
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
from rclpy.qos import DurabilityPolicy, QoSProfile
from std_msgs.msg import String

from chatvla_control.robot_spec import robot_spec
from chatvla_control.ros.convert_scene import scene_truth_to_msg
from chatvla_control.ros.instruction_goals import InstructionGoals
from chatvla_eval.bags.topics import TRIAL_TOPIC
from chatvla_eval.ros.graph_wait import wait_for_parts
from chatvla_eval.ros.ros_session import RosSession
from chatvla_eval.ros.trial_marks import read_mark
from chatvla_eval.ros.trial_topics import ALL, TrialTopics
from chatvla_eval.session import TrialSetup
from chatvla_eval.tasks.example_scene import scene
from chatvla_msgs.action import FollowInstruction
from chatvla_msgs.msg import BenchState, Reasoning

from .bench_nodes import beside, wait_until

LATCHED = QoSProfile(depth=10, durability=DurabilityPolicy.TRANSIENT_LOCAL)
SETUP = TrialSetup(index=0, split="open_world", seed=1)


def policy_beside(node, ends):
    """Return the goals of a policy that ends none by itself."""
    goals = InstructionGoals(node, default_timeout_s=60.0, on_begin=lambda run: None, on_end=lambda run, code: None)
    ends.append(lambda: goals.destroy("the test is over"))
    return goals


@contextmanager
def session_with_policy(namespace):
    """Yield a session and the goals of a policy that ends none by itself, beside a bench that shows a scene."""
    ends, session_ends = [], []
    with beside(namespace, "policy", ends) as policy, beside(namespace, "rollout", session_ends) as node:
        goals = policy_beside(policy, ends)
        truths = policy.create_publisher(BenchState, "sim/bench_state", ALL)
        truth = replace(scene(), ready=True)
        policy.create_timer(0.05, lambda: truths.publish(scene_truth_to_msg(truth)))
        session = RosSession(node, robot_spec("arx_r5"), policy="expert")
        session_ends.append(session.destroy)
        parts = [part for part in session.parts() if part.what.startswith(("scene truth", "policy"))]
        assert wait_for_parts(parts, timeout_s=60.0, report=print, stopped=lambda: False)
        wait_until(lambda: session._topics.truth()[0])
        yield session, goals


def test_late_result_of_an_earlier_goal_does_not_end_the_next_trial(ros_domain):
    with session_with_policy("late_result") as (session, goals):
        session.start(SETUP, "Pick the card.", 60.0)
        first = goals.run
        session.watch()
        session.stop()
        # The server ends the first goal now, as a newer one takes its place.
        session.start(SETUP, "Pick the card.", 60.0)
        wait_until(first.ended.done)
        for _ in range(15):
            watch = session.watch()
        assert (watch.finished, watch.error) == (False, "")
        goals.end(goals.run, FollowInstruction.Result.TASK_FAILED, "the model says no")
        wait_until(lambda: session.watch().finished)


def test_policy_that_does_not_say_that_its_time_is_over_is_named(ros_domain):
    with session_with_policy("silent_policy") as (session, _):
        session.start(SETUP, "Pick the card.", 1.0)
        while not (watch := session.watch()).error:
            assert watch.elapsed_s < 20.0
        assert "did not end its goal within 3 s after its time" in watch.error


def test_a_trial_that_was_broken_off_gets_no_mark_of_its_end(ros_domain):
    with session_with_policy("broken_off") as (session, _):
        marks = []
        session._node.create_subscription(String, TRIAL_TOPIC, lambda msg: marks.append(read_mark(msg.data)), LATCHED)
        for end in (session.close, session.stop):
            session.start(SETUP, "Pick the card.", 60.0)
            session.watch()
            end()
        wait_until(lambda: marks)
        session.watch()
    assert [mark["event"] for mark in marks] == ["end"]


def test_second_server_of_the_action_is_named_and_publishers_of_its_topics_are_not(ros_domain):
    with session_with_policy("second_server") as (session, _):
        session.start(SETUP, "Pick the card.", 60.0)
        ends = []
        with beside("second_server", "player", ends) as player:
            player.create_publisher(Reasoning, "reasoning", 10)
            while (watch := session.watch()).elapsed_s < 2.0:
                assert not watch.error
            policy_beside(player, ends)
            while not (watch := session.watch()).error:
                assert watch.elapsed_s < 20.0
            assert watch.error.startswith("the policy was restarted")


@pytest.mark.parametrize(("own", "others"), [("/", "/two"), ("/two", "/"), ("/two", "/tw"), ("/two", "/two/left")])
def test_driver_of_another_namespace_is_not_listened_to(ros_domain, own, others):
    def report(namespace, fault):
        values = [KeyValue(key="accepted", value="1"), KeyValue(key="fault", value=fault)]
        return DiagnosticStatus(name=f"{namespace.rstrip('/')}/driver: arm", hardware_id="arx_r5", values=values)

    with beside(own) as peer:
        topics = TrialTopics(peer, robot_spec("arx_r5"))
        reports = peer.create_publisher(DiagnosticArray, "/diagnostics", 10)
        message = DiagnosticArray(status=[report(own, "own"), report(others, "another's")])
        heard: list[str] = []

        def send() -> None:
            reports.publish(message)
            heard.append(topics.fault() or "")

        peer.create_timer(0.05, send)
        wait_until(lambda: heard.count("own") > 5)
        assert set(heard) <= {"", "own"}
