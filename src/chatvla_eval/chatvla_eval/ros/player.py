# SPDX-License-Identifier: Apache-2.0
"""Play a bag back in time: raw bytes onto the topics they came from, with the quality of service of the recording."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rclpy.duration import Duration
from rclpy.node import Node
from rclpy.publisher import Publisher
from rosbags.interfaces import ConnectionExtRosbag2
from rosbags.rosbag2 import Reader

from chatvla_control.bag_folder import check_bag_folder
from chatvla_eval.bags.message_types import UnknownTypeError, message_class
from chatvla_eval.bags.topics import is_selected
from chatvla_eval.ros.qos import publisher_qos

__all__ = ["BagUnreadableError", "PlayReport", "play_bag"]

_LONGEST_NAP_S = 0.1
_FLUSH_S = 3.0


class BagUnreadableError(ValueError):
    """The folder is no bag that can be read; the message says why."""


@dataclass(frozen=True, kw_only=True)
class PlayReport:
    """What was played."""

    messages: int
    topics: int
    seconds: float
    latest_s: float
    """Largest delay of a message behind its time."""


def play_bag(
    node: Node,
    folder: Path,
    *,
    patterns: Sequence[str],
    rate: float = 1.0,
    delay_s: float = 1.0,
    stopped: threading.Event,
    on_progress: Callable[[float, float], None] = lambda done_s, total_s: None,
) -> PlayReport:
    """Publish the bag's messages on topics that fit the absolute `patterns`, `rate` times as fast as recorded.

    Waits `delay_s` after the publishers are made, so that subscribers find them. `on_progress` gets seconds of the bag,
    done and in all.
    A topic whose message type is not installed is left out with a warning, as `ros2 bag play` does.
    Raises BagUnreadableError, and UnknownTypeError when no topic is left.
    """
    try:
        check_bag_folder(folder)
        with Reader(folder) as reader:
            return _play(node, reader, patterns, rate, delay_s, stopped, on_progress)
    except (BagUnreadableError, UnknownTypeError):
        raise
    except Exception as error:  # A damaged bag makes the reader raise anything: OverflowError, KeyError, MemoryError.
        what = f"{type(error).__name__}: {error!s:.300}"
        raise BagUnreadableError(f"{folder} cannot be read as a bag: {what}") from error


def _play(
    node: Node,
    reader: Reader,
    patterns: Sequence[str],
    rate: float,
    delay_s: float,
    stopped: threading.Event,
    on_progress: Callable[[float, float], None],
) -> PlayReport:
    chosen = [connection for connection in reader.connections if is_selected(connection.topic, patterns)]
    if not chosen:
        names = ", ".join(sorted({connection.topic for connection in reader.connections})) or "none"
        raise BagUnreadableError(f"no topic of {reader.path} fits {', '.join(patterns)}; the bag holds: {names}")
    publishers: dict[int, Publisher] = {}
    unknown: UnknownTypeError | None = None
    for connection in chosen:
        try:
            publishers[connection.id] = _publisher(node, connection)
        except UnknownTypeError as error:
            node.get_logger().warning(f"{connection.topic} is not played: {error}")
            unknown = error
    chosen = [connection for connection in chosen if connection.id in publishers]
    if unknown is not None and not chosen:
        raise unknown
    stopped.wait(delay_s)
    begin_ns, total_s = reader.start_time, reader.duration * 1e-9
    started_s = time.monotonic()
    messages, latest_s = 0, 0.0
    for connection, time_ns, data in reader.messages(connections=chosen):
        due_s = started_s + (time_ns - begin_ns) * 1e-9 / rate
        while (wait_s := due_s - time.monotonic()) > 0 and not stopped.wait(min(wait_s, _LONGEST_NAP_S)):
            on_progress((time.monotonic() - started_s) * rate, total_s)
        if stopped.is_set():
            break
        publishers[connection.id].publish(bytes(data))
        messages += 1
        latest_s = max(latest_s, time.monotonic() - due_s)
    on_progress(total_s, total_s)
    for publisher in publishers.values():
        publisher.wait_for_all_acked(Duration(seconds=0 if stopped.is_set() else _FLUSH_S))
    elapsed_s = time.monotonic() - started_s
    return PlayReport(messages=messages, topics=len(chosen), seconds=elapsed_s, latest_s=latest_s)


def _publisher(node: Node, connection: Any) -> Publisher:
    stored = connection.ext.offered_qos_profiles if isinstance(connection.ext, ConnectionExtRosbag2) else []
    return node.create_publisher(message_class(connection.msgtype), connection.topic, publisher_qos(stored))
