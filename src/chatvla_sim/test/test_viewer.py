# SPDX-License-Identifier: Apache-2.0
"""The window onto a bench follows its scenes. No display is needed: a recorder stands where MuJoCo's window would."""

from __future__ import annotations

import time

import mujoco
import numpy as np
import pytest

from chatvla_sim.bench import BenchError
from chatvla_sim.math_match.bench import MathMatchBench
from chatvla_sim.toy_placement.bench import ToyPlacementBench

viewer = pytest.importorskip("mujoco.viewer")


class Window:
    """As MuJoCo's Handle and the simulation behind it: textures and model are taken over when asked to."""

    def __init__(self, model: mujoco.MjModel, data: mujoco.MjData, **_options: bool) -> None:
        self.m: mujoco.MjModel | None = None
        self.load(model, data, "")

    def load(self, model: mujoco.MjModel, data: mujoco.MjData, _path: str) -> None:
        self.m, self.d, self.textures = model, data, model.tex_data.copy()

    def update_texture(self, texture: int) -> None:
        start = int(self.m.tex_adr[texture])
        end = start + int(self.m.tex_height[texture] * self.m.tex_width[texture] * self.m.tex_nchannel[texture])
        self.textures[start:end] = self.m.tex_data[start:end]

    def sync(self) -> None:
        self.seen = self.d.qpos.copy()

    def _get_sim(self) -> Window:
        return self

    def close(self) -> None:
        self.m = None


@pytest.fixture
def windows(monkeypatch: pytest.MonkeyPatch) -> list[Window]:
    """All windows that were opened."""
    opened: list[Window] = []

    def launch_passive(model: mujoco.MjModel, data: mujoco.MjData, **options: bool) -> Window:
        opened.append(Window(model, data, **options))
        return opened[-1]

    monkeypatch.setenv("DISPLAY", ":77")
    monkeypatch.setattr(viewer, "launch_passive", launch_passive)
    return opened


def test_the_window_shows_the_present_equation_and_cards(windows: list[Window]) -> None:
    bench = MathMatchBench()
    bench.reset(split="open_world", seed=1)
    refresh = bench.open_viewer()
    bench.reset(split="open_world", seed=2)
    assert not np.array_equal(windows[0].textures, bench.model.tex_data)
    for _ in range(1 + len(bench.trial.cards)):
        refresh()
    assert np.array_equal(windows[0].textures, bench.model.tex_data)
    bench.close()
    assert windows[0].m is None


def test_one_window_follows_the_toys_from_scene_to_scene(windows: list[Window]) -> None:
    bench = ToyPlacementBench()
    bench.reset(split="in_domain", seed=1)
    refresh = bench.open_viewer()
    for seed in (2, 3):
        bench.reset(split="in_domain", seed=seed)
        refresh()
        assert (windows[0].m, windows[0].d) == (bench.model, bench.data)
        assert np.array_equal(windows[0].seen, bench.data.qpos)
    bench.close()
    assert len(windows) == 1
    assert windows[0].m is None


def test_a_window_that_cannot_follow_is_an_error_of_the_bench(
    windows: list[Window], monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = ToyPlacementBench()
    bench.reset(split="in_domain", seed=1)
    refresh = bench.open_viewer()
    monkeypatch.delattr(Window, "_get_sim")
    bench.reset(split="in_domain", seed=2)
    with pytest.raises(BenchError, match="cannot show the next scene"):
        refresh()
    bench.close()


def test_without_a_display_the_error_says_where_to_look(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DISPLAY", raising=False)
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    bench = MathMatchBench()
    bench.reset(split="in_domain", seed=1)
    with pytest.raises(BenchError, match="camera/top/image_raw"):
        bench.open_viewer()
    bench.close()


def test_the_simulator_goes_on_without_a_window_that_cannot_follow(
    windows: list[Window], ros_domain: int, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    rclpy = pytest.importorskip("rclpy")
    from rclpy.executors import SingleThreadedExecutor
    from sensor_msgs.msg import JointState

    from chatvla_msgs.srv import ResetBench
    from chatvla_sim.ros.sim_node import SimNode

    # The largest seed of a run, and of a trial.
    rclpy.init(args=["--ros-args", "-p", "task:=toy_placement", "-p", "viewer:=true", "-p", f"seed:={10**12}"])
    node, client, executor = SimNode(), rclpy.create_node("client"), SingleThreadedExecutor()
    stamps: list[float] = []
    client.create_subscription(JointState, "sim/joint_states", lambda _: stamps.append(time.monotonic()), 10)
    reset = client.create_client(ResetBench, "sim/reset_bench")
    try:
        executor.add_node(node)
        executor.add_node(client)
        monkeypatch.delattr(Window, "_get_sim")
        assert reset.wait_for_service(20.0)
        future = reset.call_async(ResetBench.Request(split="in_domain", seed=10**17 + 99_999))
        executor.spin_until_future_complete(future, 20.0)
        assert future.result().success, future.result().message
        said, end_s, begun = "", time.monotonic() + 20.0, len(stamps)
        while ("no viewer any more" not in said or len(stamps) < begun + 50) and time.monotonic() < end_s:
            executor.spin_once(0.1)
            said += capfd.readouterr().err
        assert len(stamps) >= begun + 50
        assert said.count("no viewer any more: the viewer cannot show the next scene") == 1
        assert node.failure == ""
    finally:
        executor.shutdown()
        node.close()
        client.destroy_node()
        rclpy.shutdown()
