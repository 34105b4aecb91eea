# SPDX-License-Identifier: Apache-2.0
"""Turn messages into contracts and back, in this one place (images and times: images.py and stamps.py, offered here).

Strict both ways: whatever does not hold together raises ConversionError with one sentence and the field's name.
Units and shapes are those of contracts.py, scene.py and arm_port.py.
"""

# Generated messages and array.array carry no types that pyright knows:
# pyright: reportUnknownMemberType=false, reportUnknownArgumentType=false, reportUnknownVariableType=false
# pyright: reportMissingTypeStubs=false

from __future__ import annotations

import math
from array import array
from collections.abc import Sequence
from enum import IntEnum
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from sensor_msgs.msg import JointState as JointStateMsg

from chatvla_control.arm_port import JointState
from chatvla_control.contracts import (
    ActionChunk,
    ActionMode,
    BoundingBox,
    InputKind,
    Reasoning,
    ReasoningSource,
    RouterStats,
)
from chatvla_control.ros.convert_scene import scene_truth_from_msg, scene_truth_to_msg
from chatvla_control.ros.errors import ConversionError
from chatvla_control.ros.images import depth_from_msg, depth_to_msg, image_from_msg, image_to_msg
from chatvla_control.ros.stamps import time_from_msg, time_to_msg
from chatvla_msgs.msg import ActionChunk as ActionChunkMsg
from chatvla_msgs.msg import BoundingBox as BoundingBoxMsg
from chatvla_msgs.msg import Reasoning as ReasoningMsg
from chatvla_msgs.msg import RouterStats as RouterStatsMsg

__all__ = [
    "ConversionError",
    "action_chunk_from_msg",
    "action_chunk_to_msg",
    "bounding_box_from_msg",
    "bounding_box_to_msg",
    "depth_from_msg",
    "depth_to_msg",
    "image_from_msg",
    "image_to_msg",
    "joint_state_from_msg",
    "joint_state_to_msg",
    "reasoning_from_msg",
    "reasoning_to_msg",
    "router_stats_from_msg",
    "router_stats_to_msg",
    "scene_truth_from_msg",
    "scene_truth_to_msg",
    "time_from_msg",
    "time_to_msg",
]

_Enum = TypeVar("_Enum", bound=IntEnum)


def action_chunk_to_msg(chunk: ActionChunk, *, frame_id: str = "") -> ActionChunkMsg:
    """Return the chunk as a message; `frame_id` is the base frame for CARTESIAN_POSE. Raises ConversionError."""
    if chunk.actions.ndim != 2:
        raise ConversionError("actions", f"chunk has shape {chunk.actions.shape}, expected (T, D)")
    msg = ActionChunkMsg()
    msg.header.stamp = time_to_msg(chunk.stamp_s)
    msg.header.frame_id = frame_id
    msg.id, msg.policy, msg.privileged, msg.robot = chunk.id, chunk.policy, bool(chunk.privileged), chunk.robot
    msg.joint_names = list(chunk.joint_names)
    msg.mode = int(chunk.mode)
    msg.steps, msg.width = chunk.actions.shape
    msg.actions = array("d", np.ascontiguousarray(chunk.actions, np.float64).tobytes())
    msg.start_time = time_to_msg(chunk.start_s)
    msg.step_period_s = float(chunk.step_period_s)
    msg.valid_until = time_to_msg(chunk.valid_until_s)
    msg.reasoning_id = chunk.reasoning_id
    msg.reasoning_source = int(chunk.reasoning_source)
    msg.checkpoint_hash, msg.statistics_hash = chunk.checkpoint_hash, chunk.statistics_hash
    return msg


def action_chunk_from_msg(msg: ActionChunkMsg) -> ActionChunk:
    """Return the message's chunk; values are not judged here (see chunk_check). Raises ConversionError."""
    actions = _numbers(msg.actions, np.float64)
    steps, width = int(msg.steps), int(msg.width)
    if steps < 1 or width < 1 or steps * width != actions.size:
        raise ConversionError(
            "actions", f"chunk announces {steps} rows of {width} values and carries {actions.size}; send steps x width"
        )
    return ActionChunk(
        id=msg.id,
        actions=actions.reshape(steps, width),
        joint_names=tuple(msg.joint_names),
        robot=msg.robot,
        mode=_constant(ActionMode, msg.mode, "mode"),
        stamp_s=time_from_msg(msg.header.stamp),
        start_s=time_from_msg(msg.start_time),
        step_period_s=float(msg.step_period_s),
        valid_until_s=time_from_msg(msg.valid_until),
        policy=msg.policy,
        privileged=bool(msg.privileged),
        reasoning_id=msg.reasoning_id,
        reasoning_source=_constant(ReasoningSource, msg.reasoning_source, "reasoning_source"),
        checkpoint_hash=msg.checkpoint_hash,
        statistics_hash=msg.statistics_hash,
    )


def bounding_box_to_msg(box: BoundingBox) -> BoundingBoxMsg:
    """Return the box as a message."""
    return BoundingBoxMsg(
        label=box.label,
        view=box.view,
        x_min=float(box.x_min),
        y_min=float(box.y_min),
        x_max=float(box.x_max),
        y_max=float(box.y_max),
    )


def bounding_box_from_msg(msg: BoundingBoxMsg) -> BoundingBox:
    """Return the message's box [pixels]. Raises ConversionError unless min <= max and both are finite."""
    corners = (float(msg.x_min), float(msg.y_min), float(msg.x_max), float(msg.y_max))
    if not all(math.isfinite(corner) for corner in corners) or corners[0] > corners[2] or corners[1] > corners[3]:
        raise ConversionError("boxes", f"box {msg.label!r:.60} has corners {corners}, expected finite min <= max")
    return BoundingBox(
        label=msg.label, view=msg.view, x_min=corners[0], y_min=corners[1], x_max=corners[2], y_max=corners[3]
    )


def reasoning_to_msg(reasoning: Reasoning) -> ReasoningMsg:
    """Return the reasoning as a message. Raises ConversionError."""
    msg = ReasoningMsg()
    msg.header.stamp = time_to_msg(reasoning.stamp_s)
    msg.id, msg.policy, msg.privileged = reasoning.id, reasoning.policy, bool(reasoning.privileged)
    msg.instruction, msg.text, msg.answer = reasoning.instruction, reasoning.text, reasoning.answer
    msg.boxes = [bounding_box_to_msg(box) for box in reasoning.boxes]
    msg.source = int(reasoning.source)
    msg.seconds = float(reasoning.seconds)
    return msg


def reasoning_from_msg(msg: ReasoningMsg) -> Reasoning:
    """Return the message's reasoning. Raises ConversionError."""
    return Reasoning(
        id=msg.id,
        text=msg.text,
        stamp_s=time_from_msg(msg.header.stamp),
        source=_constant(ReasoningSource, msg.source, "source"),
        policy=msg.policy,
        privileged=bool(msg.privileged),
        instruction=msg.instruction,
        answer=msg.answer,
        boxes=tuple(bounding_box_from_msg(box) for box in msg.boxes),
        seconds=float(msg.seconds),
    )


def router_stats_to_msg(stats: RouterStats) -> RouterStatsMsg:
    """Return the statistics as a message. Raises ConversionError when the shapes disagree."""
    if stats.load.ndim != 2 or stats.load.size == 0:
        raise ConversionError("load", f"router load has shape {stats.load.shape}, expected (layers, experts)")
    msg = RouterStatsMsg()
    msg.header.stamp = time_to_msg(stats.stamp_s)
    msg.kind = int(stats.kind)
    msg.layers, msg.experts = stats.load.shape
    msg.top_k, msg.tokens = int(stats.top_k), int(stats.tokens)
    for name in ("load", "entropy_bits", "top_ratio", "drift"):
        values = np.ascontiguousarray(getattr(stats, name), np.float32)
        _check_router_shape(name, values.size, msg.layers, msg.experts)
        setattr(msg, name, array("f", values.tobytes()))
    return msg


def router_stats_from_msg(msg: RouterStatsMsg) -> RouterStats:
    """Return the message's statistics. Raises ConversionError."""
    layers, experts = int(msg.layers), int(msg.experts)
    parts = {name: _numbers(getattr(msg, name), np.float32) for name in ("load", "entropy_bits", "top_ratio", "drift")}
    for name, values in parts.items():
        _check_router_shape(name, values.size, layers, experts)
    if not 1 <= msg.top_k <= experts:
        raise ConversionError("top_k", f"top_k is {msg.top_k}, expected 1 to {experts} experts")
    return RouterStats(
        stamp_s=time_from_msg(msg.header.stamp),
        kind=_constant(InputKind, msg.kind, "kind"),
        top_k=int(msg.top_k),
        tokens=int(msg.tokens),
        load=parts["load"].reshape(layers, experts),
        entropy_bits=parts["entropy_bits"],
        top_ratio=parts["top_ratio"],
        drift=parts["drift"],
    )


def joint_state_to_msg(names: Sequence[str], state: JointState) -> JointStateMsg:
    """Return the state of joints `names` as a message; efforts are omitted when unknown. Raises ConversionError."""
    for part in (state.positions, state.velocities, state.efforts):
        if part.shape != (len(names),):
            raise ConversionError("position", f"joint state has shape {part.shape}, expected ({len(names)},)")
    msg = JointStateMsg()
    msg.header.stamp = time_to_msg(state.stamp_s)
    msg.name = list(names)
    # The generated setters take lists and arrays of Python floats, not of numpy.
    msg.position = state.positions.tolist()
    msg.velocity = state.velocities.tolist()
    msg.effort = [] if np.isnan(state.efforts).all() else state.efforts.tolist()
    return msg


def joint_state_from_msg(msg: JointStateMsg, names: Sequence[str]) -> JointState:
    """Return the state of joints `names`, in that order whatever the message's order; further joints are ignored.

    Missing velocities and efforts are NaN. Raises ConversionError when a joint is missing, doubled or without
    position.
    """
    places = {name: place for place, name in enumerate(msg.name)}
    missing = [name for name in names if name not in places]
    if missing:
        raise ConversionError("name", f"joint state lacks {missing[0]!r}, expected: {', '.join(names)}")
    if len(places) != len(msg.name):
        raise ConversionError("name", "joint state names a joint twice; send each joint once")
    order = [places[name] for name in names]
    parts: list[NDArray[np.float64]] = []
    for field, required in (("position", True), ("velocity", False), ("effort", False)):
        values = _numbers(getattr(msg, field), np.float64)
        if values.size == len(msg.name):
            parts.append(values[order])
        elif values.size == 0 and not required:
            parts.append(np.full(len(names), np.nan))
        else:
            raise ConversionError(field, f"joint state has {len(msg.name)} names and {values.size} values of {field}")
    return JointState(
        positions=parts[0], velocities=parts[1], efforts=parts[2], stamp_s=time_from_msg(msg.header.stamp)
    )


def _numbers(values: Any, dtype: type[Any]) -> NDArray[Any]:
    # frombuffer on the generated array.array: no copy value by value; the copy makes it ours.
    return np.array(np.frombuffer(values, dtype)) if len(values) else np.zeros(0, dtype)


def _constant(kind: type[_Enum], value: int, field: str) -> _Enum:
    try:
        return kind(value)
    except ValueError:
        known = ", ".join(f"{member.value} {member.name}" for member in kind)
        raise ConversionError(field, f"{field} is {value}, expected one of: {known}") from None


def _check_router_shape(name: str, size: int, layers: int, experts: int) -> None:
    expected = layers * experts if name == "load" else layers
    if (size != expected and not (name == "drift" and size == 0)) or expected == 0:
        raise ConversionError(
            name, f"router {name} has {size} values, expected {expected} ({layers} layers, {experts} experts)"
        )
