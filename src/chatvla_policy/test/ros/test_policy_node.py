# SPDX-License-Identifier: Apache-2.0
"""The node over real DDS: lifecycle, topics, override, questions, parameters, what it never listens to."""

from __future__ import annotations

import ast
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from lifecycle_msgs.msg import State, Transition
from lifecycle_msgs.srv import ChangeState, GetState
from rcl_interfaces.srv import SetParameters
from rclpy.parameter import Parameter
from sensor_msgs.msg import Image
from std_msgs.msg import String

from chatvla_control.ros.images import image_from_msg
from chatvla_msgs.msg import Reasoning
from chatvla_msgs.srv import Ask, OverrideReasoning
from chatvla_policy.checkpoint import load_checkpoint, save_checkpoint
from chatvla_policy.ros.parameters import PolicyParameters
from chatvla_policy.runtime.overlay import PANEL_HEIGHT
from chatvla_policy.systems import load_policy
from chatvla_policy.systems.untrained import save_untrained

from ..runtime.swinging import SPEC
from .conftest import TalkingPolicy

TEXT = "I should pick the left card."


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("checkpoint") / "untrained"
    save_untrained(folder, robot="arx_r5")
    return folder


@pytest.fixture(scope="module")
def only_talks(folder: Path) -> Path:
    """Return a checkpoint as the training stage "language" leaves it."""
    talks = folder.parent / "only_talks"
    save_checkpoint(talks, replace(load_checkpoint(folder), provenance={"recipe": {"stage": "language"}}, golden=None))
    return talks


def state(served) -> int:
    return served.service(GetState, "policy_node/get_state").current_state.id


def change(served, transition: int) -> bool:
    request = Transition(id=transition)
    return served.service(ChangeState, "policy_node/change_state", transition=request).success


def test_untrained_checkpoint_acts_within_limits(serve, robot, folder: Path) -> None:
    served = serve(load=True, checkpoint=str(folder), chunk_period_s=0.2)
    handle = served.send(instruction="Pick the card.")
    assert robot.until(lambda: len(robot.chunks) >= 7, 30.0)
    robot.call(handle.cancel_goal_async())
    assert served.result(handle).chunks >= 5
    assert not robot.refused
    moves = np.diff(robot.commands, axis=0) / 0.02
    assert (np.abs(moves) <= SPEC.velocity * 3.0).all()  # The peer's timer is not exact; the player's own tick is.
    text, chunk = robot.texts[-1], [chunk for chunk in robot.chunks if not chunk.id.endswith("-hold")][-1]
    assert text.policy == "untrained"
    assert chunk.reasoning_id in {each.id for each in robot.texts}
    assert len(chunk.checkpoint_hash) == 64
    assert {each.source for each in robot.texts} == {Reasoning.GENERATED, Reasoning.REUSED}
    assert robot.routers[-1].layers == 2
    assert robot.until(lambda: "total_p50_ms" in robot.health())


def test_lifecycle_runs_through_all_states_and_back(serve, robot, folder: Path) -> None:
    served = serve(load=True, checkpoint=str(folder), autostart=False)
    assert state(served) == State.PRIMARY_STATE_UNCONFIGURED
    for _ in range(2):
        assert change(served, Transition.TRANSITION_CONFIGURE)
        assert state(served) == State.PRIMARY_STATE_INACTIVE
        assert change(served, Transition.TRANSITION_ACTIVATE)
        before = len(robot.chunks)
        handle = served.send(instruction="Pick the card.")
        assert robot.until(lambda count=before: len(robot.chunks) > count + 1)
        assert change(served, Transition.TRANSITION_DEACTIVATE)
        served.result(handle)
        assert change(served, Transition.TRANSITION_CLEANUP)
        assert state(served) == State.PRIMARY_STATE_UNCONFIGURED
        assert served.node.count_publishers("action_chunk") == 0


@pytest.mark.parametrize(
    ("parameters", "spoil", "sentence"),
    [
        ({"checkpoint": ""}, {}, "parameter checkpoint is empty"),
        ({"checkpoint": "nowhere"}, {}, "'nowhere' is no folder"),
        ({"robot": "franka"}, {}, "does not drive robot 'franka'; it drives: arx_r5"),
        ({"device": "tpu"}, {}, "device is 'tpu', expected cpu, cuda or cuda:N"),
        ({"statistics_hash": "abc"}, {}, "parameter statistics_hash wants abc"),
        ({}, {"camera_on": False}, "/camera/top/image_raw sends nothing within 0.5 s"),
        ({}, {"joints_on": False}, "/joint_states sends nothing within 0.5 s"),
        ({}, {"encoding": "yuv422"}, "/camera/top/image_raw cannot be read: image encoding 'yuv422'"),
        ({}, {"frame": np.zeros((320, 240, 3), np.uint8)}, "sends 240x320 pixels, the model sees "),
        ({}, {"frame": np.zeros((60, 80, 3), np.uint8)}, "sends 80x60 pixels, 60 rows of them for the "),
        ({"view_height_deg.top": 27.0}, {}, "/camera/top/camera_info sends nothing within 0.5 s, which parameter"),
        ({"view_height_deg.top": 27.0}, {"focal_y": 0.0}, "its camera_info has the focal length 0; calibrate"),
        ({"view_height_deg.top": 27.0}, {"focal_y": 900.0}, "15.2 degrees high, 27 are asked for"),
        ({"view_height_deg.top": 200.0}, {}, "parameter view_height_deg.top must be of type float from 0.0 to 170.0"),
        ({}, {"joint_names": tuple(f"x{name}" for name in SPEC.joint_names)}, "/joint_states does not fit arx_r5"),
    ],
)
def test_configure_refuses_with_one_sentence(
    serve, robot, folder: Path, parameters: dict, spoil: dict, sentence: str
) -> None:
    for name, value in spoil.items():
        setattr(robot, name, value)
    served = serve(load=True, **{"checkpoint": str(folder), "autostart": False, "graph_wait_s": 0.5, **parameters})
    assert not change(served, Transition.TRANSITION_CONFIGURE)
    assert state(served) == State.PRIMARY_STATE_UNCONFIGURED
    assert robot.until(lambda: sentence in robot.health().get("message", "")), robot.health()


def test_checkpoint_that_only_talks_is_refused(serve, robot, only_talks: Path) -> None:
    serve(load=True, checkpoint=str(only_talks))
    sentence = "checkpoint 'only_talks' comes from training stage 'language', its action expert is untrained"
    assert robot.until(lambda: sentence in robot.health().get("message", "")), robot.health()
    assert load_policy(only_talks).ask("What is 2+2?") is not None


def test_checkpoint_is_loaded_once_while_inputs_are_missing(robot, serve) -> None:
    loads: list[TalkingPolicy] = []

    def load(parameters: PolicyParameters) -> TalkingPolicy:
        loads.append(TalkingPolicy())
        return loads[-1]

    robot.camera_on = False
    served = serve(loader=load, graph_wait_s=0.2)
    assert robot.until(lambda: "sends nothing" in robot.health().get("message", ""))
    time.sleep(1.5)
    robot.camera_on = True
    assert robot.until(lambda: robot.health().get("state") == "active")
    assert len(loads) == 1
    assert change(served, Transition.TRANSITION_DEACTIVATE)
    assert change(served, Transition.TRANSITION_CLEANUP)
    # On a busy machine a new subscription may take longer than graph_wait_s to hear its first picture.
    assert any(change(served, Transition.TRANSITION_CONFIGURE) for _ in range(20))
    assert len(loads) == 2


def test_reasoning_is_shown_to_late_listeners(serve, robot) -> None:
    served = serve()
    served.send(instruction="swing", timeout_s=1.0)
    assert robot.until(lambda: robot.texts)
    late: list[Reasoning] = []
    from .robot_peer import LATCHED

    subscription = robot.node.create_subscription(Reasoning, "reasoning", late.append, LATCHED)
    assert robot.until(lambda: late)
    robot.node.destroy_subscription(subscription)


def test_forced_text_is_marked_until_released(serve, robot) -> None:
    served = serve(chunk_period_s=0.1)
    served.send(instruction="swing")
    assert robot.until(lambda: robot.chunks)
    answer = served.service(OverrideReasoning, "override_reasoning", scope=0, text=TEXT)
    assert (answer.success, answer.message) == (True, f"in force: {TEXT}")
    begun = len(robot.texts)
    assert robot.until(lambda: len(robot.texts) > begun + 2)
    assert {(each.text, each.source) for each in robot.texts[begun:]} == {(TEXT, Reasoning.FORCED)}
    assert robot.chunks[-1].reasoning_source == Reasoning.FORCED
    assert served.service(OverrideReasoning, "override_reasoning", scope=2).success
    assert robot.until(lambda: robot.texts[-1].source == Reasoning.GENERATED)


def test_text_forced_for_one_instruction_ends_with_it(serve, robot) -> None:
    served = serve(chunk_period_s=0.1)
    assert served.service(OverrideReasoning, "override_reasoning", scope=1, text=TEXT).success
    served.result(served.send(instruction="swing", timeout_s=0.5))
    assert {each.text for each in robot.texts} == {TEXT}
    served.result(served.send(instruction="swing", timeout_s=0.5))
    assert robot.texts[-1].source == Reasoning.GENERATED


def test_texts_are_renewed_apart_from_chunks(serve, robot, folder: Path) -> None:
    served = serve(load=True, checkpoint=str(folder), reason_every_s=0.5, chunk_period_s=0.1)
    served.send(instruction="Pick the card.")
    assert robot.until(lambda: sum(text.source == Reasoning.GENERATED for text in robot.texts) >= 3)
    stamps = [text.header.stamp for text in robot.texts if text.source == Reasoning.GENERATED]
    assert len({(stamp.sec, stamp.nanosec) for stamp in stamps}) == len(stamps)
    # Only the first chunk came with its text; the others went on with one written apart.
    sources = [chunk.reasoning_source for chunk in robot.chunks]
    assert sources[0] == Reasoning.GENERATED
    assert set(sources[1:]) == {Reasoning.REUSED}


def test_text_that_is_too_long_to_follow_is_refused(serve, folder: Path) -> None:
    served = serve(load=True, checkpoint=str(folder))
    answer = served.service(OverrideReasoning, "override_reasoning", scope=0, text="pick " * 300)
    assert not answer.success
    assert "at most 48 are followed" in answer.message


def test_questions_are_answered_while_acting_goes_on(serve, robot) -> None:
    served = serve(chunk_period_s=0.1)
    slow = served.policy.ask

    def ask(question: str, images: dict) -> str:
        time.sleep(0.6)
        return slow(question, images)

    served.policy.ask = ask
    served.send(instruction="swing")
    assert robot.until(lambda: robot.chunks)
    before = len(robot.chunks)
    answer = served.service(Ask, "ask", question="What do you see?")
    assert (answer.success, answer.answer) == (True, "no, ['top']")
    assert answer.seconds >= 0.6
    assert len(robot.chunks) - before >= 4
    empty = served.service(Ask, "ask", question=" ")
    assert (empty.success, empty.message) == (False, "the question has 0 characters, allowed are 1 to 2000")


def test_instruction_topic_starts_changes_and_stops(serve, robot) -> None:
    served = serve(chunk_period_s=0.1)
    publisher = robot.node.create_publisher(String, "instruction", 1)
    assert robot.until(lambda: publisher.get_subscription_count() and robot.health().get("state") == "active")
    for text in ("swing", "swing back"):
        publisher.publish(String(data=text))
        assert robot.until(lambda wanted=text: robot.texts and robot.texts[-1].instruction == wanted)
    publisher.publish(String(data=""))
    assert robot.until(lambda: robot.chunks[-1].id.endswith("-hold"))
    count = len(robot.chunks)
    time.sleep(0.4)
    assert len(robot.chunks) == count
    robot.node.destroy_publisher(publisher)
    assert served.node is not None


def test_overlay_shows_image_text_and_plan(serve, robot) -> None:
    served = serve()
    pictures: list[Image] = []
    subscription = robot.node.create_subscription(Image, "overlay", pictures.append, 1)
    served.send(instruction="swing")
    assert robot.until(lambda: len(pictures) >= 4)
    picture = image_from_msg(pictures[-1])
    assert picture.shape == (240 + PANEL_HEIGHT, 320, 3)
    assert len(np.unique(picture[240:].reshape(-1, 3), axis=0)) > 10
    robot.node.destroy_subscription(subscription)


def test_parameters_have_types_ranges_and_descriptions(serve, robot) -> None:
    served = serve()
    assert robot.until(lambda: robot.health().get("state") == "active")

    def set_value(name: str, value: object) -> tuple[bool, str]:
        parameter = Parameter(name, value=value).to_parameter_msg()
        (result,) = served.service(SetParameters, "policy_node/set_parameters", parameters=[parameter]).results
        return result.successful, result.reason

    assert set_value("chunk_period_s", 0.1) == (True, "")
    assert robot.until(lambda: served.node._acting.scheduler.settings.chunk_period_s == 0.1)
    assert not set_value("chunk_period_s", 100.0)[0]
    assert not set_value("chunk_period_s", "often")[0]
    assert set_value("reuse", "always") == (False, "reuse is 'always', expected one of: refresh, draft, never")
    assert set_value("checkpoint", "other") == (False, "checkpoint is read when configuring; clean the node up first")
    assert not set_value("timeout_s", 5.0)[0]
    ours = [name for name in served.node._parameters if name not in ("use_sim_time", "start_type_description_service")]
    assert all(served.node.describe_parameter(name).description for name in ours)


def test_camera_fault_is_reported_and_mended(serve, robot) -> None:
    served = serve(patience_s=30.0, chunk_period_s=0.1)
    served.send(instruction="swing")
    assert robot.until(lambda: robot.chunks)
    robot.camera_on = False
    assert robot.until(lambda: "camera top is" in robot.health().get("message", ""))
    count = len(robot.chunks)
    robot.camera_on = True
    assert robot.until(lambda: len(robot.chunks) > count + 2)


def test_policy_never_listens_to_the_scenes_truth(serve, robot) -> None:
    served = serve()
    assert robot.until(lambda: robot.health().get("state") == "active")
    topics: dict[str, list[str]] = {}

    def known() -> bool:
        topics.update(served.node.get_subscriber_names_and_types_by_node("policy_node", "/"))
        return "/camera/top/image_raw" in topics

    assert robot.until(known)
    assert not [
        name for name, kinds in topics.items() if "bench" in name or any("BenchState" in kind for kind in kinds)
    ]
    package = Path(__file__).parents[2] / "chatvla_policy"
    for path in package.rglob("*.py"):
        names = {node.id for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Name)}
        assert "BenchState" not in names, path
