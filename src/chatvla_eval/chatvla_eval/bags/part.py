# SPDX-License-Identifier: Apache-2.0
"""Write one storage file (mcap) of a bag: grown in a hidden place, moved into the bag when it is whole."""

from __future__ import annotations

import shutil
from collections import Counter
from pathlib import Path
from typing import Any

from rosbags.interfaces import Connection
from rosbags.rosbag2 import StoragePlugin, Writer

from chatvla_eval.bags.message_types import MessageTypes
from chatvla_eval.bags.metadata import PartInfo, TopicInfo

__all__ = ["PartWriter"]


class PartWriter:
    """One growing storage file. Times in ns."""

    def __init__(self, bag: Path, file_name: str, types: MessageTypes) -> None:
        self._bag = bag
        self._file_name = file_name
        self._types = types
        self._hidden = bag / f".{Path(file_name).stem}"
        self._writer = Writer(self._hidden, version=9, storage_plugin=StoragePlugin.MCAP)
        self._writer.open()
        self._connections: dict[str, Connection] = {}
        self._counts: Counter[str] = Counter()
        self.start_ns = 0
        self.end_ns = 0
        self.bytes = 0

    def write(self, topic: TopicInfo, time_ns: int, data: bytes) -> None:
        """Append one message. Raises OSError when the disk refuses."""
        connection = self._connections.get(topic.name) or self._connect(topic)
        self._writer.write(connection, time_ns, data)
        self.start_ns = min(self.start_ns, time_ns) if self._counts else time_ns
        self.end_ns = max(self.end_ns, time_ns)
        self.bytes += len(data)
        self._counts[topic.name] += 1

    def finish(self) -> PartInfo:
        """Close the file, move it into the bag and return what it holds."""
        self._writer.close()
        (self._hidden / f"{self._hidden.name}.mcap").replace(self._bag / self._file_name)
        shutil.rmtree(self._hidden)
        return PartInfo(path=self._file_name, start_ns=self.start_ns, end_ns=self.end_ns, counts=dict(self._counts))

    def discard(self) -> None:
        """Remove what was written."""
        self._writer.abort()
        shutil.rmtree(self._hidden, ignore_errors=True)

    def _connect(self, topic: TopicInfo) -> Connection:
        options: dict[str, Any] = {"typestore": self._types.store, "offered_qos_profiles": topic.qos}
        connection = self._writer.add_connection(topic.name, topic.msgtype, **options)
        self._connections[topic.name] = connection
        return connection
