# SPDX-License-Identifier: Apache-2.0
"""Launches in simulation keep DDS on this host, with room for the images of three cameras, unless a user chose."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path
from xml.etree import ElementTree

import pytest
import rclpy
from rclpy.qos import qos_profile_sensor_data
from sensor_msgs.msg import Image

from chatvla_cli.launch_graph import read_graph

ROOT = Path(__file__).resolve().parents[1]
GRAPH = ROOT / "launch" / "graphs" / "math_match.launch.yaml"
CAMERAS = ("left", "top", "right")
READER = f"""
import rclpy
from rclpy.qos import qos_profile_sensor_data
from sensor_msgs.msg import Image

rclpy.init()
node = rclpy.create_node("reader")
for name in {CAMERAS}:
    node.create_subscription(Image, name, lambda _, name=name: print(name, flush=True), qos_profile_sensor_data)
rclpy.spin(node)
"""


@pytest.mark.parametrize("graph", sorted((ROOT / "launch").glob("*.launch.py")), ids=lambda path: path.name)
def test_simulation_stays_on_this_host_with_room_for_images(graph: Path) -> None:
    read = read_graph(graph.parent / "graphs" / graph.name.replace(".py", ".yaml"))
    environments = [node.environment for node in read.resolve({}, {}).nodes]
    assert len(environments) >= 4
    for environment in environments:
        assert environment["ROS_AUTOMATIC_DISCOVERY_RANGE"] == "SYSTEM_DEFAULT"
        profile = ElementTree.parse(environment["FASTRTPS_DEFAULT_PROFILES_FILE"])
        found = {element.tag.rpartition("}")[2]: (element.text or "").strip() for element in profile.iter()}
        assert found["useBuiltinTransports"] == "false"
        assert found["address"] == "127.0.0.1"
        assert int(found["segment_size"]) >= 4 * 3 * 320 * 240 * 3


@pytest.mark.parametrize(
    ("chosen", "left"),
    [
        ({"ROS_AUTOMATIC_DISCOVERY_RANGE": "SUBNET"}, "SUBNET"),
        ({"ROS_LOCALHOST_ONLY": "1"}, "LOCALHOST"),
        ({"FASTRTPS_DEFAULT_PROFILES_FILE": "mine.xml"}, "LOCALHOST"),
        ({"RMW_IMPLEMENTATION": "rmw_cyclonedds_cpp"}, "LOCALHOST"),
    ],
)
def test_what_a_user_chose_of_dds_is_kept(chosen: dict[str, str], left: str) -> None:
    for node in read_graph(GRAPH).resolve({}, chosen).nodes:
        assert node.environment["ROS_AUTOMATIC_DISCOVERY_RANGE"] == left
        assert "FASTRTPS_DEFAULT_PROFILES_FILE" not in node.environment


def test_no_camera_is_lost_to_a_reader_that_was_not_scheduled(ros_domain: int) -> None:
    context = rclpy.Context()
    rclpy.init(context=context, domain_id=ros_domain)
    node = rclpy.create_node("cameras", context=context)
    publishers = [node.create_publisher(Image, name, qos_profile_sensor_data) for name in CAMERAS]
    image = Image(height=240, width=320, encoding="rgb8", step=960, data=bytes(320 * 240 * 3))
    with subprocess.Popen([sys.executable, "-c", READER], stdout=subprocess.PIPE, text=True) as reader:
        try:
            end_s = time.monotonic() + 30.0
            while not all(publisher.get_subscription_count() for publisher in publishers):
                assert time.monotonic() < end_s, "the reader does not start"
                time.sleep(0.1)
            time.sleep(1.0)  # Each side finds the other on its own.
            reader.send_signal(signal.SIGSTOP)
            for publisher in publishers:
                publisher.publish(image)
            reader.send_signal(signal.SIGCONT)
            time.sleep(2.0)
        finally:
            reader.kill()
        assert reader.stdout is not None
        assert sorted(reader.stdout.read().split()) == sorted(CAMERAS)
    node.destroy_node()
    rclpy.shutdown(context=context)
