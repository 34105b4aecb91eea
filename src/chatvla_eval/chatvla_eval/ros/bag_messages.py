# SPDX-License-Identifier: Apache-2.0
"""Read out of a bag what scoring needs, once through: truths, texts, motion, chunks, marks, some pictures. No graph.

Times are ROS time [s]: stamps for what carries one, the time of reception for marks.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rosbags.highlevel import AnyReader
from rosbags.typesys import Stores, get_typestore

from chatvla_control.bag_folder import check_bag_folder
from chatvla_control.contracts import ActionChunk, ReasoningSource
from chatvla_control.robot_spec import RobotSpec, robot_names, robot_spec
from chatvla_control.ros.convert import ConversionError, action_chunk_from_msg, joint_state_from_msg
from chatvla_control.ros.convert_scene import scene_truth_from_msg
from chatvla_control.ros.images import image_from_msg
from chatvla_control.ros.stamps import time_from_msg
from chatvla_control.scene import SceneTruth
from chatvla_eval.bags.topics import TRIAL_TOPIC
from chatvla_eval.ros.trial_marks import read_mark
from chatvla_eval.trace import FRAME_EVERY_S

__all__ = ["BagError", "BagMessages", "BagText", "read_bag"]


class BagError(ValueError):
    """The bag cannot be read or holds nothing to score; one sentence says what is missing."""


@dataclass(frozen=True, kw_only=True)
class BagText:
    """One published reasoning."""

    stamp_s: float
    text: str
    policy: str
    privileged: bool
    forced: bool = False
    """Whether the policy was given it instead of its own."""


@dataclass(kw_only=True)
class BagMessages:
    """What one bag holds, each list in the order of reception."""

    folder: Path
    start_s: float = 0.0
    end_s: float = 0.0
    truths: list[SceneTruth] = field(default_factory=list)
    texts: list[BagText] = field(default_factory=list)
    motion: list[tuple[float, NDArray[np.float64]]] = field(default_factory=list)
    chunks: list[ActionChunk] = field(default_factory=list)
    marks: list[dict[str, Any]] = field(default_factory=list)
    pictures: list[tuple[float, NDArray[np.uint8]]] = field(default_factory=list)
    unread: dict[str, str] = field(default_factory=dict)
    """Topics with a message that could not be read, and why."""


def read_bag(folder: Path, *, namespace: str = "chatvla", view: str = "top", pictures: bool = False) -> BagMessages:
    """Return what the bag in `folder` holds, with pictures only when asked for. Raises BagError.

    They are of `view`, or of the first view that the bag has.
    """
    prefix = "/" + namespace.strip("/") + "/" if namespace.strip("/") else "/"
    found = BagMessages(folder=folder)
    wanted = {"sim/bench_state", "reasoning", "joint_states", "action_chunk", TRIAL_TOPIC}
    try:
        check_bag_folder(folder)
        with AnyReader([folder], default_typestore=get_typestore(Stores.ROS2_JAZZY)) as reader:
            found.start_s, found.end_s = reader.start_time * 1e-9, reader.end_time * 1e-9
            if pictures:
                shown = {c.topic.removeprefix(prefix) for c in reader.connections if c.topic.startswith(prefix)}
                shown = {name for name in shown if fnmatchcase(name, "camera/*/image_raw")}
                wanted |= {f"camera/{view}/image_raw"} & shown or set(sorted(shown)[:1])
            chosen = [c for c in reader.connections if c.topic.removeprefix(prefix) in wanted]
            if not any(c.topic == f"{prefix}reasoning" for c in chosen):
                topics = ", ".join(sorted({connection.topic for connection in reader.connections}))
                raise BagError(f"{folder} has no topic {prefix}reasoning; it holds: {topics}. See --namespace")
            for connection, _, raw in reader.messages(connections=chosen):
                name = connection.topic.removeprefix(prefix)
                try:
                    _take(found, name, reader.deserialize(raw, connection.msgtype))
                except (ConversionError, ValueError) as error:
                    found.unread.setdefault(connection.topic, str(error))
    except BagError:
        raise
    except Exception as error:  # A damaged bag makes the reader raise anything.
        raise BagError(f"{folder} cannot be read as a bag: {type(error).__name__}: {error!s:.300}") from error
    return found


def _take(found: BagMessages, name: str, msg: Any) -> None:
    """Keep one message."""
    if name == "sim/bench_state":
        found.truths.append(scene_truth_from_msg(msg))
    elif name == "reasoning":
        found.texts.append(
            BagText(
                stamp_s=time_from_msg(msg.header.stamp),
                text=msg.text,
                policy=msg.policy,
                privileged=bool(msg.privileged),
                forced=msg.source == ReasoningSource.FORCED,
            )
        )
    elif name == "joint_states":
        state = joint_state_from_msg(msg, _robot_of(msg.name).joint_names)
        found.motion.append((state.stamp_s, state.positions))
    elif name == "action_chunk":
        found.chunks.append(action_chunk_from_msg(msg))
    elif name == TRIAL_TOPIC:
        found.marks.append(read_mark(msg.data))
    else:
        stamp_s = time_from_msg(msg.header.stamp)
        if not found.pictures or stamp_s - found.pictures[-1][0] >= FRAME_EVERY_S:
            found.pictures.append((stamp_s, image_from_msg(msg)))


def _robot_of(names: Any) -> RobotSpec:
    """Return the robot whose joints a message names. Raises ValueError when there is none."""
    given = set(names)
    for name in robot_names():
        if set(robot_spec(name).joint_names) <= given:
            return robot_spec(name)
    raise ValueError(
        f"joint_states name {', '.join(sorted(given))}; no known robot has these: {', '.join(robot_names())}"
    )


def truths_by_trial(messages: BagMessages) -> Mapping[int, list[SceneTruth]]:
    """Return the valid truths of each trial of the simulator, by its number of resets."""
    found: dict[int, list[SceneTruth]] = {}
    for truth in messages.truths:
        if truth.ready:
            found.setdefault(truth.trial, []).append(truth)
    return found
