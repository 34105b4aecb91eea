# SPDX-License-Identifier: Apache-2.0
"""Write one storage file (mcap) of a bag: grown in a hidden place, moved into the bag when it is whole.

rosbags' mcap writer is used below its Writer class: that one formats three YAML documents a file in pure Python, 80 ms
for a dozen topics, too long for a file every half second.
"""

from __future__ import annotations

import contextlib
import shutil
from collections import Counter
from pathlib import Path

from rosbags.interfaces import Connection, ConnectionExtRosbag2, MessageDefinition, MessageDefinitionFormat
from rosbags.rosbag2.enums import CompressionMode
from rosbags.rosbag2.storage_mcap import McapWriter

from chatvla_eval.bags.metadata import VERSION, PartInfo, TopicInfo, information_yaml, qos_yaml

__all__ = ["PartWriter"]


class PartWriter:
    """One growing storage file. Times in ns."""

    def __init__(self, bag: Path, file_name: str) -> None:
        """Raises OSError."""
        self._bag = bag
        self._file_name = file_name
        self._hidden = bag / f".{Path(file_name).stem}"
        self._hidden.mkdir()
        self._storage = McapWriter(self._hidden, CompressionMode.NONE)
        self._connections: dict[str, Connection] = {}
        self._topics: list[TopicInfo] = []
        self._types: set[str] = set()
        self._counts: Counter[str] = Counter()
        self.start_ns = 0
        self.end_ns = 0
        self.bytes = 0

    def write(self, topic: TopicInfo, time_ns: int, data: bytes) -> None:
        """Append one message. Raises OSError when the disk refuses."""
        connection = self._connections.get(topic.name) or self._connect(topic)
        self._storage.write(connection, time_ns, data)
        self.start_ns = min(self.start_ns, time_ns) if self._counts else time_ns
        self.end_ns = max(self.end_ns, time_ns)
        self.bytes += len(data)
        self._counts[topic.name] += 1

    def finish(self) -> PartInfo:
        """Close the file, move it into the bag and return what it holds. Raises OSError when the disk refuses."""
        info = PartInfo(path=self._file_name, start_ns=self.start_ns, end_ns=self.end_ns, counts=dict(self._counts))
        self._storage.close(VERSION, information_yaml((info,), self._topics))
        self._storage.path.replace(self._bag / self._file_name)
        shutil.rmtree(self._hidden)
        return info

    def discard(self) -> None:
        """Remove what was written, also where the disk refuses what was not yet written."""
        with contextlib.suppress(OSError, ValueError):
            self._storage.abort()
        shutil.rmtree(self._hidden, ignore_errors=True)

    def _connect(self, topic: TopicInfo) -> Connection:
        connection = Connection(
            id=len(self._connections) + 1,
            topic=topic.name,
            msgtype=topic.msgtype,
            msgdef=MessageDefinition(MessageDefinitionFormat.MSG, topic.definition),
            digest=topic.digest,
            msgcount=0,
            ext=ConnectionExtRosbag2(serialization_format="cdr", offered_qos_profiles=list(topic.qos)),
            owner=self,
        )
        if topic.msgtype not in self._types:
            self._types.add(topic.msgtype)
            self._storage.add_msgtype(connection)
        self._storage.add_connection(connection, qos_yaml(topic.qos))
        self._topics.append(topic)
        self._connections[topic.name] = connection
        return connection
