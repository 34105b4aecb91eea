# SPDX-License-Identifier: Apache-2.0
"""A bag through a checkpoint: the same bytes each time, errors per joint and horizon, sentences for unfit bags."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("rclpy")

from rclpy.serialization import serialize_message
from sensor_msgs.msg import CameraInfo
from std_msgs.msg import String

from chatvla_control.arm_port import JointState
from chatvla_control.robot_spec import robot_spec
from chatvla_control.ros.convert import joint_state_to_msg
from chatvla_control.ros.images import image_to_msg
from chatvla_eval import replay_cli
from chatvla_eval.bags.bag_writer import BagWriter
from chatvla_eval.bags.message_types import MessageTypes
from chatvla_eval.bags.metadata import TopicInfo
from chatvla_policy.systems.untrained import save_untrained

SPEC = robot_spec("arx_r5")
START_S = 1_700_000_000.0
KINDS = {
    "/chatvla/camera/top/image_raw": "sensor_msgs/msg/Image",
    "/chatvla/camera/top/camera_info": "sensor_msgs/msg/CameraInfo",
    "/chatvla/joint_states": "sensor_msgs/msg/JointState",
    "/chatvla/instruction": "std_msgs/msg/String",
}


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("checkpoint") / "untrained"
    save_untrained(folder, robot="arx_r5")
    return folder


@pytest.fixture(scope="module")
def bag(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_bag(tmp_path_factory.mktemp("bags") / "bag")


def write_bag(folder: Path, columns: int = 320, border: tuple[int, int] = (0, 0), focal_y: float = 0.0) -> Path:
    """Write two seconds of a robot that moves slowly; about its images lies a border of so many rows and columns."""
    writer = BagWriter(folder, MessageTypes())
    for name, kind in KINDS.items():
        writer.add_topic(TopicInfo(name=name, msgtype=kind))

    def write(topic: str, time_s: float, message: object) -> None:
        writer.write(topic, round(time_s * 1e9), serialize_message(message))

    write("/chatvla/instruction", START_S, String(data="Pick the card."))
    rng, still = np.random.default_rng(0), np.zeros(SPEC.width)
    for tick in range(100):
        time_s = START_S + 0.02 * (tick + 1)
        positions = np.array(SPEC.home) + 0.0005 * tick * (np.array(SPEC.home) < SPEC.upper - 0.1)
        state = JointState(positions=positions, velocities=still, efforts=still, stamp_s=time_s)
        write("/chatvla/joint_states", time_s + 0.001, joint_state_to_msg(SPEC.joint_names, state))
        if tick % 2 == 0:
            image = rng.integers(0, 255, (240, columns, 3), np.uint8)
            image = np.pad(image, ((border[0],) * 2, (border[1],) * 2, (0, 0)), constant_values=90)
            write("/chatvla/camera/top/image_raw", time_s + 0.004, image_to_msg(image, time_s, "camera"))
    if focal_y:
        info = CameraInfo(height=240 + 2 * border[0], width=columns + 2 * border[1])
        info.k[4] = focal_y
        write("/chatvla/camera/top/camera_info", START_S + 1.5, info)
    writer.close()
    return folder


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_same_bag_checkpoint_and_seed_give_the_same_bytes(bag: Path, checkpoint: Path, tmp_path: Path) -> None:
    for name, seed in (("first", "0"), ("again", "0"), ("other", "1")):
        words = [str(bag), "--policy", str(checkpoint), "--out", str(tmp_path / name), "--seed", seed]
        assert replay_cli.main(words) == 0
    first, again, other = (files(tmp_path / name) for name in ("first", "again", "other"))
    assert set(first) == {"reasoning.jsonl", "chunks.npy", "replay.json"}
    assert first == again
    assert first["chunks.npy"] != other["chunks.npy"]


def test_of_a_wider_camera_the_policy_sees_what_the_node_would_take(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    # 240 rows are the middle of 720, by a lens that shows them as 27 degrees.
    focal_y = 120.0 / math.tan(math.radians(13.5))
    small = write_bag(tmp_path / "small_bag", columns=330)
    wide = write_bag(tmp_path / "wide_bag", columns=330, border=(240, 475), focal_y=focal_y)
    # An untrained policy looks at nothing.
    words = ["--policy", "tiny", "--out"]
    assert replay_cli.main([str(small), *words, str(tmp_path / "small")]) == 0
    assert replay_cli.main([str(wide), *words, str(tmp_path / "cut"), "--view-height-deg", "top=27"]) == 0
    assert "camera top: the middle 330x240 of 1280x720 pixels was taken" in capsys.readouterr().out
    assert replay_cli.main([str(wide), *words, str(tmp_path / "higher")]) == 0
    # Without an angle, as the node: as high as the camera's, in the model's shape.
    assert "camera top: the middle 990x720 of 1280x720 pixels was taken" in capsys.readouterr().out
    chunks = {name: files(tmp_path / name)["chunks.npy"] for name in ("small", "cut", "higher")}
    assert chunks["cut"] == chunks["small"]
    assert chunks["cut"] != chunks["higher"]


def test_errors_come_per_joint_and_horizon(bag: Path, checkpoint: Path, tmp_path: Path) -> None:
    assert replay_cli.main([str(bag), "--policy", str(checkpoint), "--out", str(tmp_path / "out")]) == 0
    summary = json.loads((tmp_path / "out" / "replay.json").read_text())
    errors = summary["open_loop_error"]
    assert errors["against"] == "joint_states"
    assert set(errors["horizons_s"]) == {"0.1", "0.2", "0.5", "0.9"}
    assert set(errors["horizons_s"]["0.1"]) == {*SPEC.joint_names, "n"}
    lines = (tmp_path / "out" / "reasoning.jsonl").read_text().splitlines()
    assert len(lines) == summary["counts"]["chunks"] == 4
    assert {json.loads(line)["instruction"] for line in lines} == {"Pick the card."}


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--namespace", "elsewhere"], "has no topic /elsewhere/camera/top/image_raw"),
        (["--policy", "nowhere"], "'nowhere' is no folder"),
        (["--view-height-deg", "top=27"], "nothing tells how many degrees they show"),
        (["--view-height-deg", "left=27"], "--view-height-deg names left; untrained sees top"),
    ],
)
def test_what_does_not_fit_is_one_sentence(
    bag: Path, checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str], sentence: str
) -> None:
    assert replay_cli.main([str(bag), "--policy", str(checkpoint), "--out", str(tmp_path / "out"), *words]) == 1
    assert sentence in capsys.readouterr().err
