# SPDX-License-Identifier: Apache-2.0
"""The nodes over real DDS: what the simulator publishes, and one trial with simulator, driver and expert."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator

import pytest

rclpy = pytest.importorskip("rclpy")

from diagnostic_msgs.msg import DiagnosticArray  # noqa: E402
from rclpy.action import ActionClient  # noqa: E402
from rclpy.node import Node  # noqa: E402
from rclpy.qos import DurabilityPolicy, QoSProfile  # noqa: E402
from rclpy.task import Future  # noqa: E402
from sensor_msgs.msg import CameraInfo, Image, JointState  # noqa: E402

from chatvla_control.robot_spec import robot_spec  # noqa: E402
from chatvla_msgs.action import FollowInstruction  # noqa: E402
from chatvla_msgs.msg import BenchState, Reasoning  # noqa: E402
from chatvla_msgs.srv import OverrideReasoning, ResetBench  # noqa: E402
from chatvla_sim.math_match.geometry import TOP_CAMERA  # noqa: E402

NODES = {
    "sim_node": ["-m", "chatvla_sim.ros.sim_node", "--ros-args", "-p", "split:=open_world", "-p", "seed:=3"],
    "driver": ["-c", "import sys; from arx_r5_driver.driver_node import main; sys.exit(main())"],
    "expert_node": ["-m", "chatvla_sim.ros.expert_node"],
}
STREAMS = {"camera/top/image_raw", "camera/top/camera_info", "sim/joint_states", "sim/bench_state"}
LATCHED = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
Codes = FollowInstruction.Result


class Watcher:
    """A node that keeps the newest message of each topic, counts them, and calls services."""

    def __init__(self, node: Node) -> None:
        self.node = node
        self.newest: dict[str, object] = {}
        self.counts: dict[str, int] = {}

    def watch(self, kind: type, topic: str, qos: QoSProfile | int = 10) -> None:
        def keep(message: object) -> None:
            self.newest[topic] = message
            self.counts[topic] = self.counts.get(topic, 0) + 1

        self.node.create_subscription(kind, topic, keep, qos)

    def until(self, ready: Callable[[], bool], timeout_s: float) -> bool:
        end = time.monotonic() + timeout_s
        while time.monotonic() < end and not ready():
            rclpy.spin_once(self.node, timeout_sec=0.05)
        return ready()

    def call(self, future: Future, timeout_s: float = 20.0):
        assert self.until(future.done, timeout_s), "no answer"
        return future.result()


@pytest.fixture(scope="module")
def watcher(ros_domain: int) -> Iterator[Watcher]:
    rclpy.init()
    watcher = Watcher(rclpy.create_node("watcher"))
    watcher.watch(Image, "camera/top/image_raw")
    watcher.watch(CameraInfo, "camera/top/camera_info")
    watcher.watch(JointState, "sim/joint_states", 100)
    watcher.watch(DiagnosticArray, "/diagnostics")
    watcher.watch(BenchState, "sim/bench_state", LATCHED)
    watcher.watch(Reasoning, "reasoning", LATCHED)
    yield watcher
    watcher.node.destroy_node()
    rclpy.shutdown()


@pytest.fixture(scope="module")
def nodes(watcher: Watcher) -> Iterator[dict[str, subprocess.Popen[bytes]]]:
    running = {name: subprocess.Popen([sys.executable, *arguments]) for name, arguments in NODES.items()}
    assert watcher.until(lambda: set(watcher.newest) >= STREAMS, 30.0)
    yield running
    for process in running.values():
        if process.poll() is None:
            process.send_signal(signal.SIGINT)
    assert {name: process.wait(timeout=5.0) for name, process in running.items()} == dict.fromkeys(running, 0)


@pytest.fixture(scope="module")
def action(watcher: Watcher, nodes: object) -> Iterator[ActionClient]:
    """A client that has been answered once: a server may not know yet where to send the first answers."""
    client = ActionClient(watcher.node, FollowInstruction, "follow_instruction")
    assert client.wait_for_server(timeout_sec=20.0)

    def answered() -> bool:
        goal = client.send_goal_async(FollowInstruction.Goal(instruction=""))
        return watcher.until(goal.done, 3.0) and watcher.until(goal.result().get_result_async().done, 3.0)

    assert any(answered() for _ in range(5))
    yield client
    client.destroy()


def reset(watcher: Watcher, **request: object) -> ResetBench.Response:
    client = watcher.node.create_client(ResetBench, "sim/reset_bench")
    assert client.wait_for_service(timeout_sec=10.0)
    return watcher.call(client.call_async(ResetBench.Request(**request)))


def send(watcher: Watcher, client: ActionClient, **goal: object):
    return watcher.call(client.send_goal_async(FollowInstruction.Goal(**goal)))


@pytest.mark.usefixtures("nodes")
def test_camera_publishes_as_a_camera_driver_does(watcher: Watcher) -> None:
    image, info = watcher.newest["camera/top/image_raw"], watcher.newest["camera/top/camera_info"]
    assert (image.width, image.height, image.encoding, image.step) == (320, 240, "rgb8", 960)
    assert image.header.frame_id == info.header.frame_id == "camera_top_optical_frame"
    assert info.k[0] == pytest.approx(TOP_CAMERA.focal_px)
    assert (info.k[2], info.k[5]) == (160.0, 120.0)


@pytest.mark.usefixtures("nodes")
def test_streams_keep_coming_in_real_time(watcher: Watcher) -> None:
    # Bounds for a machine that is busy with other tests; benchmarks/ measures the rates.
    before, begun = dict(watcher.counts), time.monotonic()
    watcher.until(lambda: False, 2.0)
    seconds = time.monotonic() - begun
    rates = {topic: (watcher.counts[topic] - before[topic]) / seconds for topic in before}
    assert rates["sim/joint_states"] > 30
    assert rates["camera/top/image_raw"] > 5
    assert watcher.newest["sim/bench_state"].real_time_factor > 0.5


@pytest.mark.usefixtures("nodes")
def test_joint_states_carry_the_specs_names(watcher: Watcher) -> None:
    assert tuple(watcher.newest["sim/joint_states"].name) == robot_spec("arx_r5").joint_names


@pytest.mark.usefixtures("nodes")
def test_unknown_split_is_refused_with_those_that_exist(watcher: Watcher) -> None:
    response = reset(watcher, split="nope", seed=1)
    assert not response.success
    assert "in_domain, open_world, held_out" in response.message


@pytest.mark.usefixtures("nodes")
def test_garbage_commands_do_not_end_the_simulator(watcher: Watcher, nodes: dict[str, subprocess.Popen[bytes]]) -> None:
    publisher = watcher.node.create_publisher(JointState, "sim/joint_command", 10)
    names = list(robot_spec("arx_r5").joint_names)
    for message in (
        JointState(),
        JointState(name=["x"], position=[1.0]),
        JointState(name=names, position=[float("nan")] * 14),
    ):
        publisher.publish(message)
    count = watcher.counts["sim/joint_states"]
    assert watcher.until(lambda: watcher.counts["sim/joint_states"] > count + 20, 5.0)
    assert nodes["sim_node"].poll() is None


def test_empty_instruction_is_aborted_as_invalid(watcher: Watcher, action: ActionClient) -> None:
    result = watcher.call(send(watcher, action, instruction="  ").get_result_async()).result
    assert result.error_code == Codes.INVALID_GOAL


def test_bad_timeout_is_aborted_as_invalid(watcher: Watcher, action: ActionClient) -> None:
    result = watcher.call(send(watcher, action, instruction="go", timeout_s=-1.0).get_result_async()).result
    assert result.error_code == Codes.INVALID_GOAL


def test_timeout_cancel_and_preemption_have_their_codes(watcher: Watcher, action: ActionClient) -> None:
    assert reset(watcher, split="open_world", seed=5).success
    result = watcher.call(send(watcher, action, instruction="go", timeout_s=0.3).get_result_async())
    assert result.result.error_code == Codes.TIMEOUT
    first = send(watcher, action, instruction="go")
    second = send(watcher, action, instruction="go")
    assert watcher.call(first.get_result_async()).result.error_code == Codes.PREEMPTED
    watcher.call(second.cancel_goal_async())
    assert watcher.call(second.get_result_async()).status == 5, "canceled"


def test_one_trial_through_driver_and_simulator(watcher: Watcher, action: ActionClient) -> None:
    response = reset(watcher, split="open_world", seed=7)
    assert response.success
    handle = send(watcher, action, instruction=response.instruction, timeout_s=30.0)
    result = watcher.call(handle.get_result_async(), 40.0).result
    assert result.error_code == Codes.NONE, result.error_msg
    assert result.chunks > 10
    assert watcher.until(lambda: watcher.newest["sim/bench_state"].success, 2.0)
    state, reasoning = watcher.newest["sim/bench_state"], watcher.newest["reasoning"]
    assert reasoning.text == result.reasoning
    assert reasoning.privileged
    assert reasoning.answer == state.answer
    assert len(reasoning.boxes) == len(state.objects)


@pytest.mark.usefixtures("nodes")
def test_override_of_the_reasoning_is_checked(watcher: Watcher) -> None:
    client = watcher.node.create_client(OverrideReasoning, "override_reasoning")
    assert client.wait_for_service(timeout_sec=10.0)
    request = OverrideReasoning.Request
    assert not watcher.call(client.call_async(request(scope=9, text="x"))).success
    assert not watcher.call(client.call_async(request(scope=request.UNTIL_RELEASED, text=""))).success
    assert watcher.call(client.call_async(request(scope=request.UNTIL_RELEASED, text="pick left card"))).success
    assert watcher.call(client.call_async(request(scope=request.RELEASE))).success


def test_bad_parameter_ends_the_node_with_one_sentence(ros_domain: int) -> None:
    command = [sys.executable, "-m", "chatvla_sim.ros.sim_node", "--ros-args", "-p", "split:=nope"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, env=os.environ, check=False)
    assert done.returncode == 1
    assert "sim_node: no split 'nope'; math_match has: in_domain, open_world, held_out" in done.stderr
