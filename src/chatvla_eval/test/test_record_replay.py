# SPDX-License-Identifier: Apache-2.0
"""Record and replay over real DDS: nothing is lost, SIGKILL costs less than a second, a replay equals its bag."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections import defaultdict
from contextlib import ExitStack
from pathlib import Path

import pytest
import rclpy
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile, qos_profile_sensor_data
from rosbags.highlevel import AnyReader
from rosbags.rosbag2 import Writer
from rosbags.typesys import Stores, get_types_from_msg, get_typestore
from sensor_msgs.msg import Image, JointState
from std_msgs.msg import String

from chatvla_control.ros.spin import serving
from chatvla_eval import record_cli, replay_cli
from chatvla_eval.bags.bag_writer import BagWriter
from chatvla_eval.bags.message_types import UnknownTypeError
from chatvla_eval.bags.metadata import TopicInfo
from chatvla_eval.ros import recorder as recorder_module
from chatvla_eval.ros.player import BagUnreadableError, play_bag
from chatvla_eval.ros.recorder import Recorder
from chatvla_msgs.msg import BenchState

LATCHED = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
PIXELS = bytes(320 * 240 * 3)
ALL = ["/record_test/*"]
RATES_HZ = {"image": 30, "joints": 50, "fast": 100}


@pytest.fixture
def context(ros_domain):
    made = rclpy.Context()
    rclpy.init(context=made, domain_id=ros_domain)
    yield made
    rclpy.try_shutdown(context=made)


@pytest.fixture
def spinning(context):
    """Return a function that makes a node which is spun in the background."""
    with ExitStack() as ends:

        def make(name):
            node = Node(name, context=context, namespace="record_test")
            ends.callback(node.destroy_node)
            ends.enter_context(serving(node))
            return node

        yield make


class Traffic:
    """Numbered messages at the suite's rates, from one thread."""

    def __init__(self, node):
        self.publishers = {
            "image": node.create_publisher(Image, "image", 5),
            "joints": node.create_publisher(JointState, "joints", 10),
            "fast": node.create_publisher(JointState, "fast", 10),
        }
        self.bench = node.create_publisher(BenchState, "bench_state", LATCHED)
        self.bench.publish(BenchState(task="math_match", seed=7))
        self.sent = dict.fromkeys(RATES_HZ, 0)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *error):
        self._stop.set()
        self._thread.join()

    def _run(self):
        started = time.monotonic()
        while not self._stop.wait(0.002):
            for name, rate_hz in RATES_HZ.items():
                if (time.monotonic() - started) * rate_hz >= self.sent[name]:
                    self._send(name)

    def _send(self, name):
        if name == "image":
            message = Image(height=240, width=320, step=960, encoding="rgb8")
            message.data = PIXELS
        else:
            message = JointState(name=["a"], position=[0.5])
        message.header.frame_id = str(self.sent[name])
        message.header.stamp.sec, message.header.stamp.nanosec = divmod(time.time_ns(), 10**9)
        self.publishers[name].publish(message)
        self.sent[name] += 1


def numbers_and_stamps(folder):
    """Return per topic the numbers in the messages' frame_id and their stamps [s]; every message must deserialise."""
    found = defaultdict(list)
    with AnyReader([folder]) as reader:
        for connection, _, data in reader.messages():
            message = reader.deserialize(data, connection.msgtype)
            stamp = message.header.stamp
            found[connection.topic.rpartition("/")[2]].append(
                (message.header.frame_id, stamp.sec + stamp.nanosec * 1e-9)
            )
    return found


def wait_until(ready, timeout_s=20.0):
    deadline = time.monotonic() + timeout_s
    while not ready() and time.monotonic() < deadline:
        time.sleep(0.02)
    assert ready()


def test_sigkill_leaves_a_bag_up_to_the_last_second_and_nothing_is_lost(spinning, tmp_path):
    folder = tmp_path / "bag"
    command = [sys.executable, "-m", "chatvla_eval.record_cli", "--out", str(folder), "--topics", *ALL]
    with Traffic(spinning("traffic")):
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        wait_until(lambda: len(list(folder.glob("*.mcap"))) > 2)
        time.sleep(3.0)
        killed_s = time.time()
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    found = numbers_and_stamps(folder)
    assert len(found["bench_state"]) == 1
    for name, rate_hz in RATES_HZ.items():
        counted = [int(number) for number, _ in found[name]]
        assert counted == list(range(counted[0], counted[0] + len(counted))), f"{name} has gaps"
        assert len(counted) > 2.5 * rate_hz
        assert killed_s - found[name][-1][1] < 1.0


def test_replay_gives_every_message_back_byte_for_byte(spinning, tmp_path):
    source = spinning("traffic")
    with Traffic(source) as traffic:
        recorder = Recorder(spinning("recorder"), tmp_path / "first", patterns=ALL, least_free_bytes=0)
        wait_until(lambda: len(recorder.topics) == 4)
        time.sleep(2.0)
        report = recorder.close()
    assert (report.failure, report.lost, report.topics) == ("", 0, 4)
    for publisher in (*traffic.publishers.values(), traffic.bench):
        source.destroy_publisher(publisher)
    player = spinning("player")
    wait_until(lambda: player.count_publishers("bench_state") == 0)
    again = Recorder(spinning("again"), tmp_path / "second", patterns=ALL, least_free_bytes=0)
    played = play_bag(player, tmp_path / "first", patterns=ALL, rate=2.0, delay_s=2.0, stopped=threading.Event())
    late = []
    spinning("late").create_subscription(BenchState, "bench_state", late.append, LATCHED)
    wait_until(lambda: late)
    assert (late[0].task, late[0].seed) == ("math_match", 7)
    assert played.messages == report.messages
    assert played.seconds < report.seconds
    time.sleep(0.5)
    assert again.close().messages == report.messages

    def raw(folder):
        found = defaultdict(list)
        with AnyReader([folder]) as reader:
            for connection, _, data in reader.messages():
                found[connection.topic, connection.msgtype].append(bytes(data))
            durability = {c.topic: c.ext.offered_qos_profiles[0].durability.name for c in reader.connections}
        assert durability["/record_test/bench_state"] == "TRANSIENT_LOCAL"
        assert durability["/record_test/image"] == "VOLATILE"
        return found

    assert raw(tmp_path / "first") == raw(tmp_path / "second")


def test_topic_that_appears_late_and_a_best_effort_one_are_recorded(spinning, tmp_path):
    recorder = Recorder(spinning("recorder"), tmp_path / "bag", patterns=ALL, least_free_bytes=0)
    time.sleep(0.5)
    publisher = spinning("late").create_publisher(String, "late", qos_profile_sensor_data)
    wait_until(lambda: publisher.get_subscription_count() > 0)
    publisher.publish(String(data="here"))
    wait_until(lambda: recorder._bag.messages == 1)
    assert recorder.close().messages == 1


def test_topic_discovered_while_the_queue_is_emptied_loses_nothing(spinning, tmp_path, monkeypatch):
    honest = BagWriter.write
    waiting = [
        lambda: recorder._new_topics.append(TopicInfo(name="/late", msgtype="std_msgs/msg/String")),
        lambda: recorder._queue.append(("/late", 2, b"\x00\x01\x00\x00\x02\x00\x00\x00b\x00")),
    ]

    def write(self, *arguments):
        # What the node's thread does between two messages.
        while waiting:
            waiting.pop(0)()
        honest(self, *arguments)

    monkeypatch.setattr(BagWriter, "write", write)
    recorder = Recorder(spinning("recorder"), tmp_path / "bag", patterns=["/nothing"], least_free_bytes=0)
    recorder._new_topics.append(TopicInfo(name="/first", msgtype="std_msgs/msg/String"))
    recorder._queue.append(("/first", 1, b"\x00\x01\x00\x00\x02\x00\x00\x00a\x00"))
    time.sleep(0.3)
    report = recorder.close()
    assert (report.messages, report.failure) == (2, "")


def test_recorder_whose_writer_breaks_says_so_and_ends(spinning, tmp_path):
    recorder = Recorder(spinning("recorder"), tmp_path / "bag", patterns=["/nothing"], least_free_bytes=0)
    recorder._queue.append(("/unknown", 1, b"\x00"))
    assert recorder.failed.wait(5.0)
    assert "the writer failed: KeyError" in recorder.close().failure


def test_recorder_on_a_disk_that_refuses_everything_says_so_and_keeps_no_more(spinning, tmp_path, monkeypatch):
    def refuse(*_):
        raise OSError("no space left on device")

    for name in ("write", "close", "abandon"):
        monkeypatch.setattr(BagWriter, name, refuse)
    recorder = Recorder(spinning("recorder"), tmp_path / "bag", patterns=["/nothing"], least_free_bytes=0)
    recorder._queue.append(("/unknown", 1, b"\x00"))
    assert recorder.failed.wait(5.0)
    recorder._queue.append(("/unknown", 2, b"\x00"))
    assert not recorder._queue
    assert recorder.close().failure == "no space left on device"


def test_recorder_gives_up_where_the_disk_is_too_slow(spinning, tmp_path, monkeypatch):
    monkeypatch.setattr(recorder_module, "_MOST_WAITING_BYTES", 1000)
    monkeypatch.setattr(BagWriter, "write", lambda *_: time.sleep(0.2))
    recorder = Recorder(spinning("recorder"), tmp_path / "bag", patterns=["/nothing"], least_free_bytes=0)
    keep = recorder._keeper("/unknown")
    for _ in range(30):
        keep(bytes(100), {})
    assert recorder.failed.wait(10.0)
    assert "is too slow: 0 MB wait to be written; record fewer topics" in recorder.close().failure


def test_bag_is_named_by_itself_or_by_its_option(capsys):
    assert record_cli._parse(["runs/a"]).out == record_cli._parse(["--out", "runs/a"]).out == Path("runs/a")
    with pytest.raises(SystemExit):
        record_cli._parse(["runs/a", "--out", "runs/b"])
    assert "two folders are given, runs/a and runs/b" in capsys.readouterr().err


def test_recording_stops_and_closes_before_the_disk_is_full(spinning, tmp_path):
    free = iter([10**9] * 3)
    with Traffic(spinning("traffic")):
        recorder = Recorder(
            spinning("recorder"),
            tmp_path / "bag",
            patterns=ALL,
            least_free_bytes=10**8,
            free=lambda folder: next(free, 10**7),
        )
        assert recorder.failed.wait(15.0)
        report = recorder.close()
    assert "MB are free" in report.failure
    assert report.messages > 0
    assert [path.name for path in sorted((tmp_path / "bag").iterdir())] == ["bag_0.mcap", "metadata.yaml"]
    assert sum(map(len, numbers_and_stamps(tmp_path / "bag").values())) == report.messages


def test_record_refuses_to_overwrite(ros_domain, tmp_path, capsys):
    assert record_cli.main(["--out", str(tmp_path)]) == 1
    assert "is not overwritten" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("content", [{}, {"metadata.yaml": "rosbag2_bagfile_information: {"}, {"metadata.yaml": "{}"}])
def test_replay_of_what_is_no_bag_is_one_sentence(ros_domain, tmp_path, capsys, content):
    for name, text in content.items():
        (tmp_path / name).write_text(text)
    assert replay_cli.main([str(tmp_path), "--quiet"]) == 1
    assert "cannot be read as a bag" in capsys.readouterr().err


def test_replay_without_a_fitting_topic_lists_the_bag(spinning, tmp_path):
    node = spinning("player")
    recorder = Recorder(spinning("recorder"), tmp_path / "bag", patterns=ALL, least_free_bytes=0)
    recorder.close()
    with pytest.raises(BagUnreadableError, match="holds: none"):
        play_bag(node, tmp_path / "bag", patterns=["/x"], stopped=threading.Event())


def test_topic_of_a_type_that_is_not_installed_is_left_out_and_the_rest_plays(context, spinning, tmp_path, capfd):
    """Bags of `ros2 bag record -a` hold such topics on machines without rosbag2."""
    store = get_typestore(Stores.ROS2_JAZZY)
    store.register(get_types_from_msg("string text", "absent_msgs/msg/Absent"))
    with Writer(tmp_path / "bag", version=9) as writer:
        for topic, name in (("/record_test/known", "std_msgs/msg/String"), ("/odd", "absent_msgs/msg/Absent")):
            connection = writer.add_connection(topic, name, typestore=store)
            kind = store.types[name]
            writer.write(connection, 1, store.serialize_cdr(kind("hello"), name))
    heard = []
    spinning("listener").create_subscription(String, "known", lambda message: heard.append(message.data), 10)
    node = Node("player", context=context)
    play_bag(node, tmp_path / "bag", patterns=["/*"], delay_s=1.0, stopped=threading.Event())
    deadline = time.monotonic() + 5.0
    while not heard and time.monotonic() < deadline:
        time.sleep(0.02)
    assert heard == ["hello"]
    assert "/odd is not played: message type absent_msgs/msg/Absent" in capfd.readouterr().err
    with pytest.raises(UnknownTypeError, match="absent_msgs/msg/Absent"):
        play_bag(node, tmp_path / "bag", patterns=["/odd"], delay_s=0.0, stopped=threading.Event())
    node.destroy_node()


@pytest.mark.parametrize("words", [["--topics", ""], ["--namespace", "9x"], ["--out", ""]])
def test_record_refuses_what_names_nothing(words, capsys):
    with pytest.raises(SystemExit) as end:
        record_cli.main(words)
    assert end.value.code == 2
    assert words[0] in capsys.readouterr().err


def test_recording_of_nothing_is_an_error(ros_domain, tmp_path, capsys):
    assert record_cli.main([str(tmp_path / "bag"), "--topics", "/nobody", "--duration", "0.5"]) == 1
    assert "nothing was recorded: no topic fitted /nobody" in capsys.readouterr().err
