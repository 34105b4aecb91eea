# SPDX-License-Identifier: Apache-2.0
"""Every contract survives the way into a message, over the wire format, and back; broken messages are refused."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
from rclpy.serialization import deserialize_message, serialize_message

from chatvla_control.arm_port import JointState
from chatvla_control.contracts import BoundingBox, InputKind, Reasoning, ReasoningSource, RouterStats
from chatvla_control.ros import convert
from chatvla_control.ros.convert import ConversionError
from chatvla_control.scene import Pose, SceneObject, SceneTruth

from .chunks import HOME, SPEC, chunk

STAMP_S = 1_795_000_000.25
BOX = BoundingBox(label="card 3", view="top", x_min=1.5, y_min=2.0, x_max=30.0, y_max=40.25)
REASONING = Reasoning(
    id="r1",
    text="On the whiteboard is 0+3. 0+3=3. Ich denke: √9 ✓",
    stamp_s=STAMP_S,
    source=ReasoningSource.SCRIPTED,
    policy="expert",
    privileged=True,
    instruction="Answer the question",
    answer="3",
    boxes=(BOX, BOX),
    seconds=0.5,
)
STATS = RouterStats(
    stamp_s=STAMP_S,
    kind=InputKind.ROBOT,
    top_k=2,
    tokens=77,
    load=np.full((3, 8), 0.125, np.float32),
    entropy_bits=np.full(3, 3.0, np.float32),
    top_ratio=np.array([1.0, 2.0, np.inf], np.float32),
    drift=np.zeros(3, np.float32),
)
POSE = Pose(position=(0.4, -0.1, 0.02), quaternion=(0.0, 0.0, 1.0, 0.0))
CARD = SceneObject(
    name="card_0",
    label="3",
    role="card",
    place="left",
    pose=POSE,
    size=(0.056, 0.07, 0.022),
    held=False,
    placed=True,
    box=BOX,
)
TRUTH = SceneTruth(
    stamp_s=STAMP_S,
    task="math_match",
    split="open_world",
    seed=2**40,
    swap=True,
    trial=3,
    ready=True,
    instruction="Answer the question",
    equation="0 + 3",
    answer="3",
    target="card_0",
    goal=POSE,
    objects=(CARD, dataclasses.replace(CARD, name="board", role="fixture", box=None)),
    placed="card_0",
    success=True,
    subsets=("never_seen_pair",),
)
STATE = JointState(positions=HOME, velocities=HOME * 0.1, efforts=HOME * 2.0, stamp_s=STAMP_S)
CHUNK = chunk(
    stamp_s=STAMP_S,
    start_s=STAMP_S + 0.125,
    valid_until_s=STAMP_S + 1.5,
    privileged=True,
    reasoning_id="r1",
    reasoning_source=ReasoningSource.FORCED,
    checkpoint_hash="ab",
    statistics_hash="cd",
)


def over_the_wire(msg: Any) -> Any:
    return deserialize_message(serialize_message(msg), type(msg))


def assert_equal(one: Any, other: Any) -> None:
    for field in dataclasses.fields(one):
        left, right = getattr(one, field.name), getattr(other, field.name)
        if isinstance(left, np.ndarray):
            assert np.array_equal(left, right, equal_nan=True), field.name
            assert left.dtype == right.dtype
        else:
            assert left == right, field.name
            assert type(left) is type(right)


@pytest.mark.parametrize(
    ("name", "value"),
    [("reasoning", REASONING), ("router_stats", STATS), ("scene_truth", TRUTH), ("action_chunk", CHUNK)],
)
def test_contract_survives_the_wire(name: str, value: Any) -> None:
    msg = getattr(convert, f"{name}_to_msg")(value)
    assert_equal(value, getattr(convert, f"{name}_from_msg")(over_the_wire(msg)))


def test_statistics_without_reference_survive() -> None:
    bare = dataclasses.replace(STATS, drift=np.zeros(0, np.float32))
    assert_equal(bare, convert.router_stats_from_msg(over_the_wire(convert.router_stats_to_msg(bare))))


def test_joint_state_survives_the_wire() -> None:
    msg = over_the_wire(convert.joint_state_to_msg(SPEC.joint_names, STATE))
    assert_equal(STATE, convert.joint_state_from_msg(msg, SPEC.joint_names))


def test_joint_state_is_read_by_name() -> None:
    msg = convert.joint_state_to_msg(SPEC.joint_names, STATE)
    msg.name, msg.position = list(msg.name)[::-1], list(msg.position)[::-1]
    msg.velocity, msg.effort = [], []
    state = convert.joint_state_from_msg(msg, SPEC.joint_names)
    assert np.array_equal(state.positions, HOME)
    assert np.isnan(state.velocities).all()


def test_unknown_efforts_are_left_out() -> None:
    bare = dataclasses.replace(STATE, efforts=np.full(14, np.nan))
    assert len(convert.joint_state_to_msg(SPEC.joint_names, bare).effort) == 0


def broken(msg: Any, **changes: Any) -> Any:
    for name, value in changes.items():
        setattr(msg, name, value)
    return msg


@pytest.mark.parametrize(
    ("name", "value", "changes", "field"),
    [
        ("action_chunk", CHUNK, {"steps": 51}, "actions"),
        ("action_chunk", CHUNK, {"steps": 0}, "actions"),
        ("action_chunk", CHUNK, {"width": 2**31}, "actions"),
        ("action_chunk", CHUNK, {"actions": []}, "actions"),
        ("action_chunk", CHUNK, {"mode": 9}, "mode"),
        ("action_chunk", CHUNK, {"reasoning_source": 200}, "reasoning_source"),
        ("reasoning", REASONING, {"source": 17}, "source"),
        ("router_stats", STATS, {"kind": 5}, "kind"),
        ("router_stats", STATS, {"layers": 4}, "load"),
        ("router_stats", STATS, {"drift": [0.5]}, "drift"),
        ("router_stats", STATS, {"top_k": 9}, "top_k"),
        ("router_stats", STATS, {"load": []}, "load"),
        ("scene_truth", TRUTH, {"phase": 3}, "phase"),
    ],
)
def test_broken_message_is_refused_by_field(name: str, value: Any, changes: dict[str, Any], field: str) -> None:
    msg = broken(getattr(convert, f"{name}_to_msg")(value), **changes)
    with pytest.raises(ConversionError) as caught:
        getattr(convert, f"{name}_from_msg")(msg)
    assert caught.value.field == field


def test_swapped_or_infinite_boxes_are_refused() -> None:
    for changes in ({"x_max": 0.0}, {"y_min": float("nan")}, {"y_max": float("inf")}):
        with pytest.raises(ConversionError, match="card 3"):
            convert.bounding_box_from_msg(broken(convert.bounding_box_to_msg(BOX), **changes))


def test_object_of_unknown_role_is_refused() -> None:
    msg = convert.scene_truth_to_msg(TRUTH)
    msg.objects[0].role = "ghost"
    with pytest.raises(ConversionError, match="ghost"):
        convert.scene_truth_from_msg(msg)


def test_pose_that_is_not_finite_is_refused() -> None:
    msg = convert.scene_truth_to_msg(TRUTH)
    msg.goal.position.x = float("nan")
    with pytest.raises(ConversionError, match="finite"):
        convert.scene_truth_from_msg(msg)


@pytest.mark.parametrize(
    "changes",
    [
        {"name": ["a"], "position": [1.0]},
        {"position": [1.0]},
        {"position": []},
        {"velocity": [1.0, 2.0]},
        {"name": [*SPEC.joint_names, SPEC.joint_names[0]], "position": [0.0] * 15},
    ],
)
def test_joint_state_that_does_not_fit_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(ConversionError):
        convert.joint_state_from_msg(
            broken(convert.joint_state_to_msg(SPEC.joint_names, STATE), **changes), SPEC.joint_names
        )


@pytest.mark.parametrize("time_s", [-1.0, float("nan"), float("inf"), 2.0**31])
def test_time_that_no_message_holds_is_refused(time_s: float) -> None:
    with pytest.raises(ConversionError):
        convert.time_to_msg(time_s)


@pytest.mark.parametrize("time_s", [0.0, 0.999999999, STAMP_S, 2.0**31 - 2])
def test_time_survives(time_s: float) -> None:
    assert convert.time_from_msg(convert.time_to_msg(time_s)) == pytest.approx(time_s, abs=3e-7)


def test_time_with_too_many_nanoseconds_is_refused() -> None:
    with pytest.raises(ConversionError):
        convert.time_from_msg(broken(convert.time_to_msg(1.0), nanosec=1_000_000_000))


def test_contracts_of_the_wrong_shape_are_refused() -> None:
    with pytest.raises(ConversionError):
        convert.action_chunk_to_msg(chunk(actions=np.zeros(3)))
    with pytest.raises(ConversionError):
        convert.router_stats_to_msg(dataclasses.replace(STATS, entropy_bits=np.zeros(2, np.float32)))
    with pytest.raises(ConversionError):
        convert.joint_state_to_msg(SPEC.joint_names, dataclasses.replace(STATE, velocities=np.zeros(3)))
