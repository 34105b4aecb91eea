# SPDX-License-Identifier: Apache-2.0
"""Read from a recorded bag what episodes are made of: joints, commands, images, reasoning, instructions, trials.

Works on rosbag2 folders (mcap or sqlite3) of a simulator or a real robot. Message definitions come from the bag itself.
Times are header stamps in s; a message without one counts from when it was received.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import numpy as np
from rosbags.highlevel import AnyReader
from rosbags.typesys import Stores, get_typestore

from chatvla_control.bag_folder import check_bag_folder
from chatvla_control.robot_spec import RobotSpec
from chatvla_control.ros.convert import ConversionError, image_from_msg, scene_truth_from_msg
from chatvla_control.scene import SceneTruth
from chatvla_policy.runtime.recorded_views import RecordedViews, recorded_lenses
from chatvla_policy.runtime.view_window import WindowError
from chatvla_training.data.record import encode_image
from chatvla_training.resample import Track

__all__ = ["BagContents", "BagError", "read_bag"]


class BagError(ValueError):
    """A bag can't be imported; the message says what is missing."""


@dataclass(kw_only=True)
class BagContents:
    """What one bag holds."""

    measured: Track
    commanded: Track
    images: dict[str, list[tuple[float, bytes]]]
    """(time, encoded image) per view, ascending."""
    reasoning: list[tuple[float, str, str]]
    """(time, text, instruction)."""
    instructions: list[tuple[float, str]]
    truths: list[SceneTruth]
    bad: Counter[str] = field(default_factory=Counter)
    """Messages that could not be read, by topic and reason."""


def read_bag(
    path: Path, spec: RobotSpec, *, namespace: str, codec: str, frame_hz: float, views: RecordedViews | None = None
) -> BagContents:
    """Return the contents of bag `path` for robot `spec`.

    Images are thinned to `frame_hz`, and cut by `views` where it names a height.

    Raises BagError when the bag can't be opened, has no joint states or images, or none that `views` can cut.
    """
    prefix = "/" + namespace.strip("/") + "/" if namespace.strip("/") else "/"
    rows: dict[str, list[tuple[float, np.ndarray]]] = {"joint_states": [], "joint_command": []}
    contents = BagContents(
        measured=Track(name="joint_states", times_s=np.zeros(0), values=np.zeros((0, spec.width))),
        commanded=Track(name="joint_command", times_s=np.zeros(0), values=np.zeros((0, spec.width))),
        images={},
        reasoning=[],
        instructions=[],
        truths=[],
    )
    found: set[str] = set()
    for topic, time_s, message in _messages(path, prefix, views):
        found.add(topic)
        if not topic.startswith(prefix):
            continue
        name = topic.removeprefix(prefix)
        try:
            if name in rows:
                order = [list(message.name).index(joint) for joint in spec.joint_names]
                rows[name].append((time_s, np.asarray(message.position, np.float64)[order]))
            elif fnmatchcase(name, "camera/*/image_raw"):
                kept = contents.images.setdefault(name.split("/")[1], [])
                if not kept or time_s - kept[-1][0] >= 0.9 / frame_hz:
                    image = image_from_msg(message)
                    if views is not None and name.split("/")[1] in views.heights_deg:
                        image = views.cut(name.split("/")[1], image)
                    kept.append((time_s, encode_image(image, codec=codec)))
            elif name == "reasoning":
                contents.reasoning.append((time_s, str(message.text), str(message.instruction)))
            elif name == "instruction":
                contents.instructions.append((time_s, str(message.data)))
            elif name == "sim/bench_state":
                contents.truths.append(scene_truth_from_msg(message))
        except WindowError as error:
            raise BagError(f"{path}: {error}") from error
        except (ConversionError, ValueError, IndexError) as error:
            contents.bad[f"{topic}: {error}"] += 1
    if len(rows["joint_states"]) < 2 or not contents.images:
        raise BagError(
            f"{path} has no joint_states or no camera/*/image_raw under {prefix}; "
            f"it holds: {', '.join(sorted(found))}. "
            "Another prefix is given by --namespace"
        )
    contents.measured = _track("joint_states", rows["joint_states"])
    if missing := [] if views is None else [view for view in views.heights_deg if view not in contents.images]:
        raise BagError(f"{path} has no images of {', '.join(missing)}; its views are {', '.join(contents.images)}")
    # Without recorded commands the joints' own later positions stand in for them.
    commanded = rows["joint_command"]
    contents.commanded = _track("joint_command" if commanded else "joint_states", commanded or rows["joint_states"])
    return contents


def _messages(path: Path, prefix: str, views: RecordedViews | None) -> Iterator[tuple[str, float, Any]]:
    try:
        check_bag_folder(path)
        with AnyReader([path], default_typestore=get_typestore(Stores.ROS2_JAZZY)) as reader:
            if views is not None:
                views.lenses = recorded_lenses(reader, prefix, filter(views.heights_deg.get, views.heights_deg))
            for connection, received_ns, raw in reader.messages():
                message = reader.deserialize(raw, connection.msgtype)
                stamp = getattr(getattr(message, "header", None), "stamp", None)
                time_s = received_ns / 1e9
                if stamp is not None and (stamp.sec or stamp.nanosec):
                    time_s = stamp.sec + stamp.nanosec / 1e9
                yield connection.topic, time_s, message
    except Exception as error:  # A damaged bag makes the reader raise anything: OverflowError, KeyError, MemoryError.
        raise BagError(f"{path} can't be read as a rosbag2 folder: {type(error).__name__}: {error!s:.300}") from error


def _track(name: str, rows: list[tuple[float, np.ndarray]]) -> Track:
    rows = sorted(rows, key=lambda row: row[0])
    return Track(
        name=name, times_s=np.array([time for time, _ in rows]), values=np.stack([values for _, values in rows])
    )
