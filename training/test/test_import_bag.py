# SPDX-License-Identifier: Apache-2.0
"""Bags become episodes: resampled, cut at gaps, and never with equations that robot data must not hold."""

from pathlib import Path

import numpy as np
import pytest
from rosbags.rosbag2 import StoragePlugin, Writer
from rosbags.typesys import Stores, get_types_from_msg, get_typestore

from chatvla_control.robot_spec import robot_spec
from chatvla_sim.math_match.equations import equations
from chatvla_training.data.episodes import EpisodeDataset
from chatvla_training.resample import Track, find_gaps, resampled, whole_stretches
from chatvla_training.ros.import_bag import main

MESSAGES = Path(__file__).resolve().parents[2] / "src/chatvla_msgs/msg"
START_S = 1000.0
SPEC = robot_spec("arx_r5")


def types():
    store = get_typestore(Stores.ROS2_JAZZY)
    found = {}
    for path in MESSAGES.glob("*.msg"):
        found |= get_types_from_msg(path.read_text(), f"chatvla_msgs/msg/{path.stem}")
    store.register(found)
    return store


class Bag:
    """A small bag of one namespace, written message by message."""

    def __init__(self, path: Path, storage: StoragePlugin) -> None:
        self.store, self.writer = types(), Writer(path, version=9, storage_plugin=storage)
        self.connections = {}

    def __enter__(self):
        self.writer.open()
        return self

    def __exit__(self, *_):
        self.writer.close()

    def type(self, name: str):
        return self.store.types[name]

    def header(self, time_s: float):
        whole = int(time_s)
        stamp = self.type("builtin_interfaces/msg/Time")(sec=whole, nanosec=round((time_s - whole) * 1e9))
        return self.type("std_msgs/msg/Header")(stamp=stamp, frame_id="")

    def write(self, topic: str, kind: str, time_s: float, message) -> None:
        if topic not in self.connections:
            self.connections[topic] = self.writer.add_connection(f"/chatvla/{topic}", kind, typestore=self.store)
        data = self.store.serialize_cdr(message, kind)
        self.writer.write(self.connections[topic], round(time_s * 1e9), data)

    def joints(self, topic: str, time_s: float, positions) -> None:
        kind = "sensor_msgs/msg/JointState"
        empty = np.zeros(0)
        # The bag's joint order is not the robot's: names decide.
        names = list(reversed(SPEC.joint_names))
        message = self.type(kind)(
            header=self.header(time_s),
            name=names,
            position=np.array(positions)[::-1].copy(),
            velocity=empty,
            effort=empty,
        )
        self.write(topic, kind, time_s, message)

    def lens(self, time_s: float, size: tuple[int, int], focal: float) -> None:
        kind = "sensor_msgs/msg/CameraInfo"
        roi = self.type("sensor_msgs/msg/RegionOfInterest")(x_offset=0, y_offset=0, height=0, width=0, do_rectify=False)
        k = np.array([focal, 0, size[1] / 2, 0, focal, size[0] / 2, 0, 0, 1], np.float64)
        message = self.type(kind)(
            header=self.header(time_s), height=size[0], width=size[1], distortion_model="plumb_bob", d=np.zeros(5),
            k=k, r=np.eye(3).ravel(), p=np.zeros(12), binning_x=0, binning_y=0, roi=roi,
        )  # fmt: skip
        self.write("camera/top/camera_info", kind, time_s, message)

    def wide_image(self, time_s: float, size: tuple[int, int]) -> None:
        """Write an image that is grey at its rim and whose middle third, both ways, is white."""
        kind, (rows, columns) = "sensor_msgs/msg/Image", size
        pixels = np.full((rows, columns, 3), 100, np.uint8)
        pixels[rows // 3 : rows - rows // 3, columns // 3 : columns - columns // 3] = 255
        message = self.type(kind)(
            header=self.header(time_s), height=rows, width=columns, encoding="rgb8", is_bigendian=0, step=3 * columns,
            data=pixels.ravel(),
        )  # fmt: skip
        self.write("camera/top/image_raw", kind, time_s, message)

    def image(self, time_s: float, value: int) -> None:
        kind = "sensor_msgs/msg/Image"
        pixels = np.zeros((24, 100), np.uint8)
        pixels[:, :96] = np.tile(np.array([value, 0, 255], np.uint8), 32)
        message = self.type(kind)(
            header=self.header(time_s),
            height=24,
            width=32,
            encoding="bgr8",
            is_bigendian=0,
            step=100,
            data=pixels.ravel(),
        )
        self.write("camera/top/image_raw", kind, time_s, message)

    def text(self, time_s: float, text: str) -> None:
        kind = "std_msgs/msg/String"
        self.write("instruction", kind, time_s, self.type(kind)(data=text))

    def reasoning(self, time_s: float, text: str, instruction: str = "") -> None:
        kind = "chatvla_msgs/msg/Reasoning"
        message = self.type(kind)(
            header=self.header(time_s), id="r", policy="p", privileged=False, instruction=instruction, text=text,
            answer="", boxes=[], source=0, seconds=0.0, GENERATED=0, FORCED=1, REUSED=2, SCRIPTED=3,
        )  # fmt: skip
        self.write("reasoning", kind, time_s, message)

    def truth(self, time_s: float, *, trial: int, equation: str, success: bool) -> None:
        kind = "chatvla_msgs/msg/BenchState"
        point = self.type("geometry_msgs/msg/Point")(x=0.0, y=0.0, z=0.0)
        turn = self.type("geometry_msgs/msg/Quaternion")(x=0.0, y=0.0, z=0.0, w=1.0)
        message = self.type(kind)(
            header=self.header(time_s), task="math_match", split="any", seed=trial, swap=False, trial=trial, phase=1,
            instruction=f"task {trial}", equation=equation, answer="", target="", objects=[], placed="",
            goal=self.type("geometry_msgs/msg/Pose")(position=point, orientation=turn), success=success, subsets=[],
            real_time_factor=1.0, RESETTING=0, READY=1,
        )  # fmt: skip
        self.write("sim/bench_state", kind, time_s, message)


def way(time_s: float) -> np.ndarray:
    return np.array(SPEC.home) + 0.05 * np.sin(time_s - START_S)


def fill(bag: Bag, duration_s: float, silent: tuple[float, float] = (0, 0)) -> None:
    for tick in range(round(duration_s * 40)):
        time_s = START_S + tick / 40
        if not silent[0] <= time_s - START_S < silent[1]:
            bag.joints("joint_states", time_s, way(time_s))
            bag.joints("joint_command", time_s, way(time_s) + 0.01)
        if tick % 4 == 0:
            bag.image(time_s, tick % 200)


@pytest.mark.parametrize("by", ["topic", "goal"])
def test_a_stop_ends_an_episode_and_begins_none(tmp_path: Path, by: str):
    with Bag(tmp_path / "bag", StoragePlugin.MCAP) as bag:
        if by == "topic":
            bag.text(START_S, "pick the card")
        bag.reasoning(START_S + 0.1, "a thought", "pick the card")
        bag.text(START_S + 3.0, "")
        fill(bag, 6.0)
    assert main([str(tmp_path / "bag"), "--out", str(tmp_path / "set"), "--image-codec", "png"]) == 0
    data = EpisodeDataset(tmp_path / "set", horizon=5)
    assert [round(episode["length"] / 50, 1) for episode in data.episodes] == pytest.approx([3.0], abs=0.2)
    assert data.sample(0, 0).instruction == "pick the card"


@pytest.mark.parametrize("storage", [StoragePlugin.MCAP, StoragePlugin.SQLITE3])
def test_real_robot_bag(tmp_path: Path, capsys: pytest.CaptureFixture[str], storage: StoragePlugin):
    with Bag(tmp_path / "bag", storage) as bag:
        bag.text(START_S, "pick the card")
        bag.reasoning(START_S + 0.5, "first thought")
        bag.reasoning(START_S + 2.0, "second thought")
        fill(bag, 6.0, silent=(3.0, 4.0))
    assert main([str(tmp_path / "bag"), "--out", str(tmp_path / "set"), "--image-codec", "png"]) == 0
    said = capsys.readouterr().out
    assert "gap: joint_states silent for 1.0" in said
    assert "2 episodes" in said
    data = EpisodeDataset(tmp_path / "set", horizon=5)
    length = sum(episode["length"] for episode in data.episodes)
    assert length == pytest.approx((3.0 + 2.0) * 50, abs=8)
    rows = np.arange(20)
    assert np.allclose(data.states_ND[rows], [way(START_S + row / 50) for row in rows], atol=2e-4)
    assert np.allclose(data.actions_ND[rows] - data.states_ND[rows], 0.01, atol=1e-5)
    sample = data.sample(0, 0)
    assert sample.instruction == "pick the card"
    assert sample.reasoning == "first thought"
    assert data.sample(25, 0).reasoning == "second thought"
    assert sample.images["top"][0, 0].tolist() == [255, 0, 0]


def wide_bag(path: Path) -> Path:
    """Write three seconds of a camera that shows 90 degrees of height in 360 rows, 16:9."""
    with Bag(path, StoragePlugin.MCAP) as bag:
        bag.text(START_S, "pick the card")
        for tick in range(120):
            time_s = START_S + tick / 40
            bag.joints("joint_states", time_s, way(time_s))
            if tick % 8 == 0:
                bag.wide_image(time_s, (360, 640))
        bag.lens(START_S + 1.0, (360, 640), focal=180.0)
    return path


def test_of_a_wider_camera_the_middle_is_kept_as_the_node_takes_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    words = [str(wide_bag(tmp_path / "bag")), "--image-codec", "png"]
    # 2 x 180 x tan(18.5 degrees) are 120 rows, the middle third; 4:3 of them are 160 columns.
    assert main([*words, "--out", str(tmp_path / "cut"), "--view-height-deg", "top=36.87"]) == 0
    assert "camera top: the middle 160x120 of 640x360 pixels is kept" in capsys.readouterr().out
    image = EpisodeDataset(tmp_path / "cut", horizon=5).sample(0, 0).images["top"]
    assert image.shape == (120, 160, 3)
    assert (image == 255).all()
    assert main([*words, "--out", str(tmp_path / "whole")]) == 0
    assert EpisodeDataset(tmp_path / "whole", horizon=5).sample(0, 0).images["top"].shape == (360, 640, 3)


@pytest.mark.parametrize(
    ("asked", "sentence"),
    [
        ("top=95", "camera/top/image_raw holds 640x360 pixels, 90.0 degrees high, 95 are asked for"),
        ("top=20", "63 rows of them for the 240 that the model sees"),
        ("right=38", "has no images of right; its views are top"),
    ],
)
def test_what_cannot_be_cut_stores_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], asked: str, sentence: str
):
    words = [str(wide_bag(tmp_path / "bag")), "--out", str(tmp_path / "set"), "--view-height-deg", asked]
    assert main(words) == 1
    assert sentence in capsys.readouterr().err
    assert not (tmp_path / "set").exists()


def test_heights_are_views_with_degrees(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    for text in ("top", "top=", "=27", "top=nan", "top=200", "top=27,top=28"):
        with pytest.raises(SystemExit):
            main([str(tmp_path / "bag"), "--out", str(tmp_path / "set"), "--view-height-deg", text])
        assert "is no VIEW=DEGREES" in capsys.readouterr().err


def test_thoughts_stay_with_their_instruction(tmp_path: Path):
    with Bag(tmp_path / "bag", StoragePlugin.MCAP) as bag:
        fill(bag, 8.0)
        for part, text in ((0.4, "a first"), (2.4, "a then"), (3.6, "a last"), (4.2, "a late")):
            bag.reasoning(START_S + part, text, "pick a")
        bag.text(START_S, "pick a")
        bag.text(START_S + 4.0, "pick b")
        bag.reasoning(START_S + 5.2, "b first", "pick b")
        bag.reasoning(START_S + 6.2, "anyone's")
    assert main([str(tmp_path / "bag"), "--out", str(tmp_path / "set")]) == 0
    said: dict[str, list[str]] = {}
    for split in ("train", "val"):
        data = EpisodeDataset(tmp_path / "set", horizon=5, split=split)
        for sample in (data.sample(index, 0) for index in range(len(data))):
            said.setdefault(sample.instruction, []).append(sample.reasoning)
    assert [*dict.fromkeys(said["pick a"])] == ["a first", "a then", "a last"]
    assert [*dict.fromkeys(said["pick b"])] == ["b first", "anyone's"]


def test_simulated_trials_are_checked(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    known, other = equations("in_domain")[0].text, equations("open_world")[0].text
    trials = [(1, known, True), (2, other, True), (3, known, False)]
    with Bag(tmp_path / "bag", StoragePlugin.MCAP) as bag:
        fill(bag, 9.0)
        for number, (trial, equation, success) in enumerate(trials):
            for part in (0.0, 1.0, 2.9):
                done = success and part > 2
                bag.truth(START_S + 3 * number + part, trial=trial, equation=equation, success=done)
    assert main([str(tmp_path / "bag"), "--out", str(tmp_path / "set")]) == 0
    said = capsys.readouterr().out
    assert f"trial 2 (seed 2): {other} is no equation for robot data" in said
    assert "trial 3 (seed 3): not solved" in said
    assert "frames have no reasoning" in said
    data = EpisodeDataset(tmp_path / "set", horizon=5)
    assert len(data.episodes) == 1
    assert data.facts(0)["equation"] == known
    assert data.sample(0, 0).instruction == "task 1"


def test_bag_without_joints_says_what_it_holds(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    with Bag(tmp_path / "bag", StoragePlugin.MCAP) as bag:
        bag.text(START_S, "hello")
    assert main([str(tmp_path / "bag"), "--out", str(tmp_path / "set")]) == 1
    assert "it holds: /chatvla/instruction" in capsys.readouterr().err
    assert main([str(tmp_path / "none"), "--out", str(tmp_path / "set")]) == 1
    assert "can't be read" in capsys.readouterr().err
    for number in ("0", "-2", "nan", "often"):
        with pytest.raises(SystemExit):
            main([str(tmp_path / "bag"), "--out", str(tmp_path / "set"), "--frame-hz", number])
        assert f"{number!r} is no number above 0" in capsys.readouterr().err


def test_gaps_cut_an_episode():
    times = np.array([0.0, 0.1, 0.2, 1.5, 1.6, 4.0])
    gaps = find_gaps("joints", times, limit_s=0.3)
    assert [round(gap.duration_s, 6) for gap in gaps] == [1.3, 2.4]
    assert whole_stretches(0.0, 4.0, gaps, shortest_s=0.15) == [(0.0, 0.2)]
    assert whole_stretches(0.0, 4.0, [], shortest_s=0.15) == [(0.0, 4.0)]


def test_resampling_is_linear():
    track = Track(name="t", times_s=np.array([0.0, 1.0]), values=np.array([[0.0, 2.0], [1.0, 4.0]]))
    assert np.allclose(resampled(track, np.array([0.0, 0.25, 1.0])), [[0, 2], [0.25, 2.5], [1, 4]])
