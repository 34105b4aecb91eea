# SPDX-License-Identifier: Apache-2.0
"""Write a rosbag2 folder that is whole at every moment, so that a SIGKILL costs at most the last half second.

A storage file can be read only when its index is written, at its end. So every message goes into two files: a short
one, finished at each `flush`, and a long one, finished once a minute or every half gigabyte. A finished file enters the
bag by a rename, and metadata.yaml, renamed into place after it, lists the long files and then the short ones that no
long file covers yet. When a long file is done, it takes the place of its short ones. A bag that was closed holds long
files only; a killed one ends with short files, and every reader of rosbag2 folders takes both.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from chatvla_eval.bags.message_types import MessageTypes
from chatvla_eval.bags.metadata import PartInfo, TopicInfo, write_metadata
from chatvla_eval.bags.part import PartWriter

__all__ = ["BagExistsError", "BagWriter"]

LONG_NS = 60 * 10**9
LONG_BYTES = 512 * 1024**2


class BagExistsError(FileExistsError):
    """The bag's folder is there already; nothing is overwritten."""


class BagWriter:
    """One bag being written. Not thread-safe. Times in ns since the epoch."""

    def __init__(
        self, folder: Path, types: MessageTypes, *, long_ns: int = LONG_NS, long_bytes: int = LONG_BYTES
    ) -> None:
        """Make the bag's folder. Raises BagExistsError and OSError."""
        if folder.exists():
            raise BagExistsError(f"{folder} is there already and is not overwritten; choose another name")
        folder.mkdir(parents=True)
        self.folder = folder
        self._types = types
        self._long_ns = long_ns
        self._long_bytes = long_bytes
        self._topics: dict[str, TopicInfo] = {}
        self._finished: list[PartInfo] = []
        self._tail: list[PartInfo] = []
        self._long: PartWriter | None = None
        self._short: PartWriter | None = None
        self._long_count = self._short_count = 0
        write_metadata(self.folder, (), ())

    @property
    def messages(self) -> int:
        """Number of messages in the bag as it can be read now."""
        return sum(part.messages for part in (*self._finished, *self._tail))

    def add_topic(self, topic: TopicInfo) -> None:
        """Make a topic known; its messages may follow. Raises UnknownTypeError."""
        self._types.require(topic.msgtype)
        store = self._types.store
        definition, _ = store.generate_msgdef(topic.msgtype, ros_version=2)
        self._topics[topic.name] = replace(topic, digest=store.hash_rihs01(topic.msgtype), definition=definition)

    def write(self, topic_name: str, time_ns: int, data: bytes) -> None:
        """Append one message in CDR bytes. Raises OSError when the disk refuses."""
        topic = self._topics[topic_name]
        if self._long is None:
            self._long = PartWriter(self.folder, f"{self.folder.name}_{self._long_count}.mcap")
            self._long_count += 1
        if self._short is None:
            self._short = PartWriter(self.folder, f"{self.folder.name}_tail_{self._short_count:06d}.mcap")
            self._short_count += 1
        self._long.write(topic, time_ns, data)
        self._short.write(topic, time_ns, data)

    def flush(self) -> None:
        """Make everything written so far readable. Raises OSError when the disk refuses."""
        if self._short is None or self._long is None:
            return
        long = self._long
        if long.end_ns - long.start_ns >= self._long_ns or long.bytes >= self._long_bytes:
            self._finish_long(long)
            return
        self._tail.append(self._short.finish())
        self._short = None
        self._write_metadata()

    def close(self) -> None:
        """Make everything readable and leave long files only. Raises OSError when the disk refuses."""
        if self._long is not None:
            self._finish_long(self._long)

    def abandon(self) -> None:
        """Give up what is not readable yet; what `flush` made readable stays. For a disk that refuses."""
        for part in (self._short, self._long):
            if part is not None:
                part.discard()
        self._short = self._long = None

    def _finish_long(self, long: PartWriter) -> None:
        covered = list(self._tail)
        self._finished.append(long.finish())
        self._long = None
        self._tail = []
        self._write_metadata()
        for part in covered:
            (self.folder / part.path).unlink()
        if self._short is not None:
            self._short.discard()
            self._short = None

    def _write_metadata(self) -> None:
        write_metadata(self.folder, (*self._finished, *self._tail), tuple(self._topics.values()))
