# SPDX-License-Identifier: Apache-2.0
"""Record topics as raw bytes into a bag. Topics may appear at any time; all is readable half a second after it came."""

from __future__ import annotations

import contextlib
import math
import shutil
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rclpy.event_handler import QoSMessageLostInfo, SubscriptionEventCallbacks
from rclpy.node import Node

from chatvla_eval.bags.bag_writer import BagWriter
from chatvla_eval.bags.message_types import MessageTypes, UnknownTypeError, message_class
from chatvla_eval.bags.metadata import TopicInfo
from chatvla_eval.bags.topics import is_selected
from chatvla_eval.ros.qos import bag_qos, recorder_qos

__all__ = ["Recorder", "RecorderReport", "free_bytes"]

FLUSH_S = 0.4
DISCOVERY_S = 0.25
_DRAIN_S = 0.05
_MOST_WAITING_BYTES = 10**9


@dataclass(frozen=True, kw_only=True)
class RecorderReport:
    """What a recording holds at its end."""

    messages: int
    topics: int
    lost: int
    """Messages that the middleware says it lost."""
    bytes: int
    seconds: float
    failure: str
    """Why recording ended before it was told to; empty when it was told to."""


def free_bytes(folder: Path) -> int:
    """Return the free space of the disk that holds `folder`."""
    return shutil.disk_usage(folder).free


class Recorder:
    """Subscribes on a node that the caller spins; writes in a thread of its own."""

    def __init__(
        self,
        node: Node,
        folder: Path,
        *,
        patterns: Sequence[str],
        least_free_bytes: int,
        free: Callable[[Path], int] = free_bytes,
    ) -> None:
        """Start recording the topics that fit the absolute `patterns`.

        Stops by itself, with `failed` set, when less than `least_free_bytes` are free.
        Raises BagExistsError and OSError.
        """
        self._node = node
        self._patterns = tuple(patterns)
        self._least_free = least_free_bytes
        self._free = free
        self._bag = BagWriter(folder, MessageTypes())
        self._queue: deque[tuple[str, int, bytes]] = deque()
        self._new_topics: deque[TopicInfo] = deque()
        self._seen: set[str] = set()
        self._lost = self._bytes = self._arrived_bytes = 0
        self._started_s = time.monotonic()
        self._closing = threading.Event()
        self.failed = threading.Event()
        self._failure = ""
        self._discover()
        node.create_timer(DISCOVERY_S, self._discover)
        self._writer = threading.Thread(target=self._write, name="bag writer", daemon=True)
        self._writer.start()

    @property
    def topics(self) -> tuple[str, ...]:
        """Names of the topics that are recorded, sorted."""
        return tuple(sorted(self._seen))

    def close(self) -> RecorderReport:
        """Write what has arrived, close the bag and say what it holds."""
        self._closing.set()
        self._writer.join()
        return RecorderReport(
            messages=self._bag.messages,
            topics=len(self._seen),
            lost=self._lost,
            bytes=self._bytes,
            seconds=time.monotonic() - self._started_s,
            failure=self._failure,
        )

    def _discover(self) -> None:
        for topic, types in self._node.get_topic_names_and_types():
            if topic in self._seen or not is_selected(topic, self._patterns):
                continue
            offered = [info.qos_profile for info in self._node.get_publishers_info_by_topic(topic)]
            if not offered:
                continue
            self._seen.add(topic)
            if len(types) != 1:
                self._node.get_logger().warning(
                    f"{topic} is not recorded: it has {len(types)} types, {', '.join(types)}"
                )
                continue
            try:
                kind = message_class(types[0])
            except UnknownTypeError as error:
                self._node.get_logger().warning(f"{topic} is not recorded: {error}")
                continue
            qos = tuple(dict.fromkeys(bag_qos(profile) for profile in offered))
            self._new_topics.append(TopicInfo(name=topic, msgtype=types[0], qos=qos))
            self._node.create_subscription(
                kind,
                topic,
                self._keeper(topic),  # pyright: ignore[reportArgumentType]  # rclpy's stub knows one argument only
                recorder_qos(offered),
                raw=True,
                event_callbacks=SubscriptionEventCallbacks(message_lost=self._on_lost),
            )

    def _keeper(self, topic: str) -> Callable[[bytes, dict[str, Any]], None]:
        """Return the callback that keeps the bytes of `topic` with the time they were received."""

        def keep(data: bytes, info: dict[str, Any]) -> None:
            self._queue.append((topic, info.get("received_timestamp") or time.time_ns(), data))
            self._arrived_bytes += len(data)

        return keep

    def _on_lost(self, info: QoSMessageLostInfo) -> None:
        self._lost += info.total_count_change

    def _write(self) -> None:
        """Move messages from the queue into the bag until told to close; on an error keep what is readable."""
        try:
            flushed_s = time.monotonic()
            while not self._closing.wait(_DRAIN_S if not self._queue else 0.0):
                self._drain(FLUSH_S)
                if (waiting := self._arrived_bytes - self._bytes) > _MOST_WAITING_BYTES:
                    raise OSError(
                        f"the disk of {self._bag.folder} is too slow: {waiting / 1e6:.0f} MB wait to be written; "
                        "record fewer topics (--topics) or elsewhere (--out); recording stops"
                    )
                if time.monotonic() - flushed_s >= FLUSH_S:
                    flushed_s = time.monotonic()
                    self._bag.flush()
                    if (free := self._free(self._bag.folder)) < self._least_free:
                        raise OSError(
                            f"only {free / 1e6:.0f} MB are free on the disk of {self._bag.folder}, "
                            f"less than {self._least_free / 1e6:.0f} MB; recording stops"
                        )
            self._drain()
            self._bag.close()
        except Exception as error:  # Whatever it is, a recorder that goes on without its writer keeps nothing.
            expected = isinstance(error, (OSError, UnknownTypeError))
            self._failure = str(error) if expected else f"the writer failed: {error!r}"
            self._save()
            self.failed.set()
            self._queue = deque(maxlen=0)

    def _save(self) -> None:
        """Close the bag if the disk lets us; else keep what was readable. Never raises."""
        try:
            self._bag.close()
        except Exception:
            with contextlib.suppress(Exception):
                self._bag.abandon()

    def _drain(self, most_s: float = math.inf) -> None:
        """Write what waits, for `most_s` at most: on a slow disk there is always more."""
        self._add_topics()
        until_s = time.monotonic() + most_s
        while self._queue and time.monotonic() < until_s:
            topic, time_ns, data = self._queue.popleft()
            # Again: a topic may be discovered while the queue is emptied, and its first messages come at once.
            self._add_topics()
            self._bag.write(topic, time_ns, data)
            self._bytes += len(data)

    def _add_topics(self) -> None:
        while self._new_topics:
            self._bag.add_topic(self._new_topics.popleft())
