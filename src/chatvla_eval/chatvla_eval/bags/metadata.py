# SPDX-License-Identifier: Apache-2.0
"""Write the metadata.yaml of a rosbag2 folder, version 9, as ROS 2 Jazzy reads and writes it. Times in ns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from rosbags.interfaces import Qos

__all__ = ["METADATA_NAME", "VERSION", "PartInfo", "TopicInfo", "information_yaml", "qos_yaml", "write_metadata"]

METADATA_NAME = "metadata.yaml"
VERSION = 9


@dataclass(frozen=True, kw_only=True)
class TopicInfo:
    """One recorded topic."""

    name: str
    msgtype: str
    digest: str = ""
    """Type hash, RIHS01; the writer fills it in."""
    definition: str = ""
    """Text of the message definition with all it is made of; the writer fills it in."""
    qos: tuple[Qos, ...] = ()
    """What its publishers offered."""


@dataclass(frozen=True, kw_only=True)
class PartInfo:
    """One finished storage file of a bag."""

    path: str
    start_ns: int
    end_ns: int
    counts: Mapping[str, int]
    """Messages per topic name."""

    @property
    def messages(self) -> int:
        """Number of messages."""
        return sum(self.counts.values())


def write_metadata(folder: Path, parts: Sequence[PartInfo], topics: Sequence[TopicInfo]) -> None:
    """Write metadata.yaml so that a reader sees the old or the new one, never half of it."""
    aside = folder / f".{METADATA_NAME}"
    aside.write_text(_dump({"rosbag2_bagfile_information": _information(parts, topics)}), encoding="utf-8")
    aside.replace(folder / METADATA_NAME)


def information_yaml(parts: Sequence[PartInfo], topics: Sequence[TopicInfo]) -> str:
    """Return the bag's information as a storage file carries it within."""
    return _dump(_information(parts, topics))


def qos_yaml(profiles: Sequence[Qos]) -> str:
    """Return quality-of-service profiles as YAML."""
    return _dump([_qos(qos) for qos in profiles])


def _dump(data: Any) -> str:
    dumper = getattr(yaml, "CSafeDumper", yaml.SafeDumper)
    return str(yaml.dump(data, Dumper=dumper, sort_keys=False, default_flow_style=False))


def _information(parts: Sequence[PartInfo], topics: Sequence[TopicInfo]) -> dict[str, Any]:
    filled = [part for part in parts if part.messages]
    start = min((part.start_ns for part in filled), default=0)
    end = max((part.end_ns for part in filled), default=0)
    return {
        "version": VERSION,
        "storage_identifier": "mcap",
        "duration": {"nanoseconds": end - start},
        "starting_time": {"nanoseconds_since_epoch": start},
        "message_count": sum(part.messages for part in parts),
        "topics_with_message_count": [
            {"topic_metadata": _topic(topic), "message_count": sum(part.counts.get(topic.name, 0) for part in parts)}
            for topic in topics
        ],
        "compression_format": "",
        "compression_mode": "",
        "relative_file_paths": [part.path for part in parts],
        "files": [
            {
                "path": part.path,
                "starting_time": {"nanoseconds_since_epoch": part.start_ns},
                "duration": {"nanoseconds": part.end_ns - part.start_ns},
                "message_count": part.messages,
            }
            for part in parts
        ],
        "custom_data": None,
        "ros_distro": "jazzy",
    }


def _topic(topic: TopicInfo) -> dict[str, Any]:
    return {
        "name": topic.name,
        "type": topic.msgtype,
        "serialization_format": "cdr",
        "offered_qos_profiles": [_qos(qos) for qos in topic.qos],
        "type_description_hash": topic.digest,
    }


def _qos(qos: Qos) -> dict[str, Any]:
    def seconds(time: Any) -> dict[str, int]:
        return {"sec": time.sec, "nsec": time.nsec}

    return {
        "history": qos.history.name.lower(),
        "depth": qos.depth,
        "reliability": qos.reliability.name.lower(),
        "durability": qos.durability.name.lower(),
        "deadline": seconds(qos.deadline),
        "lifespan": seconds(qos.lifespan),
        "liveliness": qos.liveliness.name.lower(),
        "liveliness_lease_duration": seconds(qos.liveliness_lease_duration),
        "avoid_ros_namespace_conventions": qos.avoid_ros_namespace_conventions,
    }
