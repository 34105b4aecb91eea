# SPDX-License-Identifier: Apache-2.0
"""A bag is whole at every moment, holds what was written, and looks like one that rosbags writes."""

import itertools
import json
import os
import shutil
from pathlib import Path

import pytest
import yaml
from ament_index_python.packages import get_package_share_directory
from rosbags.highlevel import AnyReader
from rosbags.interfaces import Qos, QosDurability, QosHistory, QosLiveliness, QosReliability, QosTime
from rosbags.rosbag2 import StoragePlugin, Writer

from chatvla_eval.bags.bag_writer import BagExistsError, BagWriter
from chatvla_eval.bags.message_types import MessageTypes, UnknownTypeError, message_class
from chatvla_eval.bags.metadata import TopicInfo
from chatvla_eval.bags.topics import EVALUATION_TOPICS, absolute_patterns, is_selected

FOREVER = QosTime(9223372036, 854775807)
LATCHED = Qos(
    QosHistory.KEEP_LAST, 1, QosReliability.RELIABLE, QosDurability.TRANSIENT_LOCAL, FOREVER, FOREVER,
    QosLiveliness.AUTOMATIC, FOREVER, False,
)  # fmt: skip
TOPICS = [
    TopicInfo(name="/chatvla/reasoning", msgtype="chatvla_msgs/msg/Reasoning", qos=(LATCHED,)),
    TopicInfo(name="/chatvla/text", msgtype="std_msgs/msg/String", qos=(LATCHED,)),
]
START_NS = 1_700_000_000_000_000_000


@pytest.fixture(scope="module")
def types():
    return MessageTypes()


def string(types, text):
    return bytes(types.store.serialize_cdr(types.store.types["std_msgs/msg/String"](data=text), "std_msgs/msg/String"))


def bag(folder, types, **limits):
    writer = BagWriter(folder, types, **limits)
    for topic in TOPICS:
        writer.add_topic(topic)
    return writer


def content(folder):
    with AnyReader([folder]) as reader:
        messages = [(connection.topic, time_ns, bytes(data)) for connection, time_ns, data in reader.messages()]
        assert reader.message_count == len(messages)
        assert sum(connection.msgcount for connection in reader.connections) == len(messages)
    return messages


def test_what_was_flushed_can_be_read_while_writing_goes_on(tmp_path, types):
    writer = bag(tmp_path / "bag", types, long_ns=10)
    written = []
    for count in range(40):
        message = ("/chatvla/text", START_NS + 3 * count, string(types, str(count)))
        writer.write(*message)
        written.append(message)
        if count % 3 == 2:
            writer.flush()
            assert content(tmp_path / "bag") == written
    writer.close()
    assert content(tmp_path / "bag") == written


def test_closed_bag_holds_one_long_file_and_metadata_only(tmp_path, types):
    writer = bag(tmp_path / "bag", types)
    for count in range(10):
        writer.write("/chatvla/text", START_NS + count, string(types, str(count)))
        writer.flush()
    assert len(list((tmp_path / "bag").glob("*.mcap"))) == 10
    writer.close()
    assert sorted(os.listdir(tmp_path / "bag")) == ["bag_0.mcap", "metadata.yaml"]


def test_every_state_on_the_disk_can_be_read(tmp_path, types, monkeypatch):
    """A copy of the folder after each system call that changes names is what a SIGKILL at that moment would leave."""
    folder, copies = tmp_path / "bag", itertools.count()
    flushed = []

    def snapshotting(change):
        def wrapped(*args, **kwargs):
            result = change(*args, **kwargs)
            if (folder / "metadata.yaml").exists():
                copy = tmp_path / f"copy_{next(copies)}" / "bag"
                shutil.copytree(folder, copy)
                assert content(copy)[: len(flushed)] == flushed
            return result

        return wrapped

    for name in ("replace", "unlink"):
        monkeypatch.setattr(Path, name, snapshotting(getattr(Path, name)))
    writer = bag(folder, types, long_ns=8)
    written = []
    for count in range(12):
        written.append(("/chatvla/text", START_NS + 2 * count, string(types, str(count))))
        writer.write(*written[-1])
        if count % 2:
            writer.flush()
            flushed[:] = written
    writer.close()
    assert next(copies) > 12


def test_empty_bag_can_be_read(tmp_path, types):
    writer = bag(tmp_path / "bag", types)
    assert content(tmp_path / "bag") == []
    writer.close()
    assert content(tmp_path / "bag") == []


def test_nothing_is_overwritten(tmp_path, types):
    bag(tmp_path / "bag", types).close()
    before = (tmp_path / "bag" / "metadata.yaml").read_bytes()
    with pytest.raises(BagExistsError, match="not overwritten"):
        BagWriter(tmp_path / "bag", types)
    assert (tmp_path / "bag" / "metadata.yaml").read_bytes() == before


def test_abandoned_bag_keeps_what_was_flushed(tmp_path, types):
    writer = bag(tmp_path / "bag", types)
    writer.write("/chatvla/text", START_NS, string(types, "kept"))
    writer.flush()
    writer.write("/chatvla/text", START_NS + 1, string(types, "lost"))
    writer.abandon()
    assert content(tmp_path / "bag") == [("/chatvla/text", START_NS, string(types, "kept"))]


def test_metadata_and_file_are_like_those_of_rosbags(tmp_path, types):
    ours = bag(tmp_path / "ours", types)
    theirs = Writer(tmp_path / "theirs", version=9, storage_plugin=StoragePlugin.MCAP)
    theirs.open()
    for topic in TOPICS:
        connection = theirs.add_connection(
            topic.name, topic.msgtype, typestore=types.store, offered_qos_profiles=[LATCHED]
        )
    for writer, target in ((ours, "/chatvla/text"), (theirs, connection)):
        writer.write(target, START_NS, string(types, "a"))
        writer.write(target, START_NS + 5, string(types, "b"))
        writer.close()

    def information(name):
        text = (
            (tmp_path / name / "metadata.yaml")
            .read_text()
            .replace(f"{name}_0.mcap", "FILE")
            .replace(f"{name}.mcap", "FILE")
        )
        found = yaml.safe_load(text)["rosbag2_bagfile_information"]
        return {key: value for key, value in found.items() if key != "ros_distro"}

    assert information("ours") == information("theirs")
    with AnyReader([tmp_path / "ours"]) as one, AnyReader([tmp_path / "theirs"]) as other:
        found = [
            {c.topic: (c.msgtype, c.msgdef, c.digest, c.ext) for c in reader.connections} for reader in (one, other)
        ]
        assert found[0]["/chatvla/text"] == found[1]["/chatvla/text"]


def test_hash_of_our_messages_is_the_one_that_ros_generated(types):
    descriptions = sorted(Path(get_package_share_directory("chatvla_msgs")).glob("msg/*.json"))
    assert descriptions
    for path in descriptions:
        name = f"chatvla_msgs/msg/{path.stem}"
        types.require(name)
        hashes = {item["type_name"]: item["hash_string"] for item in json.loads(path.read_text())["type_hashes"]}
        assert types.store.hash_rihs01(name) == hashes[name]


def test_unknown_types_are_named(types):
    with pytest.raises(UnknownTypeError, match="no_such_msgs"):
        types.require("no_such_msgs/msg/Thing")
    with pytest.raises(UnknownTypeError, match="Nothing"):
        types.require("chatvla_msgs/msg/Nothing")
    with pytest.raises(UnknownTypeError, match="Nothing"):
        message_class("chatvla_msgs/msg/Nothing")


@pytest.mark.parametrize(
    "name", ["{}/Popen", "{}/msg/Popen", "{}/run", "../{}/msg/Popen", "sensor_msgs/{}/Popen", "", "/"]
)
def test_a_name_in_a_bag_imports_nothing_but_messages(name, tmp_path, monkeypatch):
    for package in ("evil", "evil/msg"):
        (tmp_path / package).mkdir()
        (tmp_path / package / "__init__.py").write_text(f"open({str(tmp_path / 'exploded')!r}, 'w')\nPopen = run = 1\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(UnknownTypeError, match="is not installed"):
        message_class(name.format("evil"))
    assert not (tmp_path / "exploded").exists()


def test_messages_of_every_kind_of_package_have_a_class():
    for name in ("sensor_msgs/msg/Image", "chatvla_msgs/msg/ActionChunk", "std_msgs/msg/String"):
        assert message_class(name).__name__ == name.rpartition("/")[2]


@pytest.mark.parametrize(
    ("topic", "selected"),
    [
        ("/chatvla/camera/top/image_raw", True),
        ("/chatvla/camera/top/camera_info", True),
        ("/chatvla/joint_states", True),
        ("/chatvla/sim/bench_state", True),
        ("/chatvla/reasoning", True),
        ("/diagnostics", True),
        ("/chatvla/sim/joint_states", False),
        ("/other/joint_states", False),
        ("/rosout", False),
    ],
)
def test_default_topics(topic, selected):
    assert is_selected(topic, absolute_patterns(EVALUATION_TOPICS, "chatvla")) is selected
