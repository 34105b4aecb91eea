# SPDX-License-Identifier: Apache-2.0
"""The driver on ros2_control, over real DDS: chunks of 15 Hz become smooth, safe trajectories for the controllers."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import rclpy
import yaml
from sensor_msgs.msg import JointState
from trajectory_msgs.msg import JointTrajectory

from chatvla_control.arm_port import ArmPortError, ArmStateMissingError, CommandRefusedError
from chatvla_control.contracts import ActionChunk, ActionMode
from chatvla_control.robot_spec import robot_spec
from chatvla_control.ros.convert import action_chunk_to_msg
from chatvla_control.ros.grippers import GRIPPER_KINDS, make_gripper
from chatvla_control.ros.spin import serving
from chatvla_control.ros.trajectory_arm import TrajectoryArm, trajectory_to_rest
from chatvla_msgs.msg import ActionChunk as ActionChunkMsg

from .controller_peer import ControllerPeer, seconds

SPEC = robot_spec("franka")
HOME = np.array(SPEC.home)
ARM_TOPIC, GRIPPER_TOPIC = "/franka_arm_controller/joint_trajectory", "/robotiq_gripper_controller/joint_trajectory"
HARDWARE = [f"panda_joint{number}" for number in range(1, 8)]
KNUCKLE = "robotiq_85_left_knuckle_joint"
RUN = "import sys; from chatvla_franka_bringup.driver_node import main; sys.exit(main())"
GRIPPER = {"joint": KNUCKLE, "width_m": 0.085, "open_joint": 0.0, "closed_joint": 0.7929, "max_effort": 40.0}


@pytest.fixture
def node(ros_domain: int) -> Iterator[Any]:
    context = rclpy.Context()
    rclpy.init(context=context, domain_id=ros_domain)
    node = rclpy.create_node("port_test", context=context)
    with serving(node):
        yield node
    node.destroy_node()
    rclpy.shutdown(context=context)


def port_of(node: Any, **changes: Any) -> TrajectoryArm:
    gripper = make_gripper(node, "trajectory", GRIPPER_TOPIC, **GRIPPER)
    stated = {
        "topic": ARM_TOPIC,
        "states_topics": ("/joint_states", "/gripper_states"),
        "joints": dict(zip(SPEC.joint_names, HARDWARE, strict=False)),
        "rate_hz": 100.0,
        "connect_timeout_s": 20.0,
    }
    return TrajectoryArm(node, SPEC, gripper, **{**stated, **changes})


def wait(condition: Any, timeout_s: float = 20.0) -> None:
    until_s = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < until_s, f"waited {timeout_s} s"
        time.sleep(0.02)


def test_every_trajectory_ends_at_rest_after_even_braking() -> None:
    velocities = np.array([0.6, -0.3, 0.0, 0.2, 0.0, 0.0, 0.0])
    msg = trajectory_to_rest(
        HARDWARE,
        HOME[:7],
        velocities,
        acceleration=SPEC.acceleration[:7],
        lower=SPEC.lower[:7],
        upper=SPEC.upper[:7],
        ahead_s=0.01,
    )
    first, last = msg.points
    stop_s = 0.6 / 7.5
    assert seconds(first.time_from_start) == pytest.approx(0.01)
    assert list(first.velocities) == velocities.tolist()
    assert seconds(last.time_from_start) == pytest.approx(0.01 + max(stop_s, 0.3 / 3.75))
    assert list(last.velocities) == [0.0] * 7
    assert np.array(last.positions) - np.array(first.positions) == pytest.approx(velocities * stop_s / 2, abs=1e-6)


def test_port_reads_arm_and_gripper_from_two_broadcasters_and_commands_both(node: Any, ros_domain: int) -> None:
    port = port_of(node)
    with (
        ControllerPeer(ros_domain, ARM_TOPIC, HARDWARE, list(HOME[:7])) as arm,
        ControllerPeer(ros_domain, GRIPPER_TOPIC, [KNUCKLE], [0.7929], "/gripper_states") as gripper,
    ):
        port.connect()
        wait(lambda: _readable(port))
        state = port.read()
        assert state.positions == pytest.approx([*HOME[:7], 0.0], abs=1e-6)
        assert abs(state.stamp_s - node.get_clock().now().nanoseconds * 1e-9) < 2.0
        target = HOME + 0.02
        target[7] = 0.0425
        port.write(target)
        wait(lambda: np.abs(arm.positions - target[:7]).max() < 1e-6)
        wait(lambda: abs(gripper.positions[0] - 0.7929 / 2) < 1e-3)
        wait(lambda: abs(port.read().positions[7] - 0.0425) < 1e-3)
        arm.leave()
        wait(lambda: _refuses(port, target))


def test_a_joined_topic_that_repeats_the_arm_does_not_stand_in_for_its_broadcaster(
    node: Any, request: pytest.FixtureRequest
) -> None:
    shipped = yaml.safe_load((request.path.parents[1] / "config" / "driver.yaml").read_text())["/**"]["ros__parameters"]
    topics = shipped["states_topic"], shipped["gripper_states_topic"]
    port = port_of(node, states_topics=topics)
    broadcaster, joined = (node.create_publisher(JointState, topic, 10) for topic in topics)
    assert f"panda_joint1' on {topics[0]} yet" in _missing(port)
    wait(lambda: broadcaster.publish(JointState(name=HARDWARE, position=[0.8] * 7)) or KNUCKLE in _missing(port))
    assert f"on {topics[1]} yet" in _missing(port)

    def repeat_joined(knuckle: float) -> float:
        """Publish an old arm and a gripper on the joined topic until the gripper was heard; return the port's stamp."""
        msg = JointState(name=[*HARDWARE, KNUCKLE], position=[*[0.9] * 7, knuckle])
        opening_m = 0.085 * (1.0 - knuckle / 0.7929)
        wait(lambda: joined.publish(msg) or (not _missing(port) and abs(port.read().positions[7] - opening_m) < 1e-6))
        return port.read().stamp_s

    repeat_joined(0.0)
    newest = iter(np.linspace(1.0, 1.1, 2000).tolist())

    def broadcast() -> bool:
        """Publish a new arm; return whether just this one was heard, so that none is still on its way."""
        value = next(newest)
        broadcaster.publish(JointState(name=HARDWARE, position=[value] * 7))
        time.sleep(0.02)
        return bool(port.read().positions[0] == value)

    wait(broadcast)
    arm = port.read().positions[:7]
    assert repeat_joined(0.3) == repeat_joined(0.5)
    assert np.array_equal(port.read().positions[:7], arm)


def test_missing_controller_is_named(node: Any) -> None:
    port = port_of(node, connect_timeout_s=0.2)
    with pytest.raises(ArmPortError, match=r"no controller listens on /franka_arm_controller/joint_trajectory"):
        port.connect()
    with pytest.raises(ArmStateMissingError, match="panda_joint1"):
        port.read()


def test_gripper_without_its_messages_says_what_to_install(node: Any) -> None:
    try:
        import control_msgs.action  # noqa: F401
    except ImportError:
        with pytest.raises(ArmPortError, match="ros-jazzy-control-msgs"):
            make_gripper(node, "gripper_command", "/g/gripper_cmd", **GRIPPER)
    with pytest.raises(ArmPortError, match=", ".join(GRIPPER_KINDS)):
        make_gripper(node, "suction", "/g", **GRIPPER)
    with pytest.raises(ArmPortError, match="measure both positions"):
        make_gripper(node, "trajectory", "/g", **{**GRIPPER, "closed_joint": 0.0})


def test_gripper_is_asked_again_when_its_controller_comes_or_may_be_another(node: Any) -> None:
    heard: list[Any] = []
    gripper = make_gripper(node, "trajectory", "/g/joint_trajectory", **GRIPPER)
    with pytest.raises(CommandRefusedError, match="no controller listens on /g/joint_trajectory"):
        gripper.command(0.0425, 0.0)
    gripper.command(0.0425, 0.5)
    listening = node.create_subscription(JointTrajectory, "/g/joint_trajectory", heard.append, 10)
    wait(gripper.reachable)
    gripper.command(0.0425, 1.1)
    wait(lambda: len(heard) == 1)
    gripper.command(0.0425, 2.0)
    gripper.forget()
    gripper.command(0.0425, 2.1)
    wait(lambda: len(heard) == 2)
    assert heard[0] == heard[1]
    node.destroy_subscription(listening)
    gripper.close()


@pytest.mark.parametrize("kind", ["gripper_command", "parallel_gripper_command"])
def test_action_gripper_sends_real_goals(node: Any, kind: str) -> None:
    actions = pytest.importorskip("control_msgs.action", reason="control_msgs comes with a ROS install only")
    from rclpy.action import ActionServer

    heard: list[Any] = []
    kind_of = actions.GripperCommand if kind == "gripper_command" else actions.ParallelGripperCommand

    def on_goal(handle: Any) -> Any:
        heard.append(handle.request.command)
        handle.succeed()
        return kind_of.Result()

    server = ActionServer(node, kind_of, "/g/gripper_cmd", on_goal)
    gripper = make_gripper(node, kind, "/g/gripper_cmd", **GRIPPER)
    wait(gripper.reachable)
    for number in range(5):
        gripper.command(0.0425, number * 0.02)
    gripper.command(0.0, 1.0)
    wait(lambda: len(heard) == 2)
    first, last = (
        (c.position, c.max_effort) if kind == "gripper_command" else (c.position[0], c.effort[0]) for c in heard
    )
    assert first == pytest.approx((0.7929 / 2, 40.0))
    assert last == pytest.approx((0.7929, 40.0))
    gripper.close()
    server.destroy()


def test_driver_plays_poses_smoothly_and_survives_no_driver(ros_domain: int, node: Any) -> None:
    from chatvla_control.cartesian import cartesian_rows

    with (
        ControllerPeer(ros_domain, ARM_TOPIC, HARDWARE, list(HOME[:7])) as arm,
        ControllerPeer(ros_domain, GRIPPER_TOPIC, [KNUCKLE], [0.0]),
    ):
        # The peer shares this process with the test: on a loaded machine its states come late.
        patient = ["connect_timeout_s:=60.0", "state_timeout_s:=2.0"]
        parameters = ["port:=ros2_control", "gripper:=trajectory", f"gripper_at:={GRIPPER_TOPIC}", *patient]
        arguments = [word for parameter in parameters for word in ("-p", parameter)]
        driver = subprocess.Popen([sys.executable, "-c", RUN, "--ros-args", "-r", "__ns:=/cell", *arguments])
        try:
            chunks = node.create_publisher(ActionChunkMsg, "/cell/action_chunk", 1)
            wait(lambda: len(arm.received) > 20, 60.0)
            wait(lambda: chunks.get_subscription_count() > 0)
            rows = cartesian_rows(SPEC, np.repeat(HOME[None], 31, 0))
            rows[:, 2] -= 0.05 * (1 - np.cos(2 * np.pi * np.arange(31) / 30))
            arm.history.clear()
            chunks.publish(action_chunk_to_msg(pose_chunk(rows, node.get_clock().now().nanoseconds * 1e-9)))
            wait(lambda: np.abs(arm.positions - HOME[:7]).max() > 0.05, 60.0)
            driver.kill()
            driver.wait()
            time.sleep(1.0)
            resting = arm.positions.copy()
            time.sleep(0.3)
            assert np.array_equal(arm.positions, resting)
            last = arm.received[-1].points[-1]
            assert resting == pytest.approx(np.array(last.positions), abs=1e-6)
        finally:
            driver.kill()
            driver.wait()
    assert_smooth(arm.history)


def assert_smooth(history: list[tuple[float, np.ndarray]]) -> None:
    """The arm's own speed, at the controller's rate, stays within the limits and never jumps."""
    times = np.array([time_s for time_s, _ in history])
    way = np.array([positions for _, positions in history])
    keep = np.concatenate([[True], np.diff(times) > 5e-4])
    speeds = np.diff(way[keep], axis=0) / np.diff(times[keep])[:, None]
    assert (np.abs(speeds).max(axis=0) <= 1.5 * SPEC.velocity[:7]).all()
    assert np.abs(speeds).max() > 0.05


def pose_chunk(rows: np.ndarray, now_s: float) -> ActionChunk:
    return ActionChunk(
        id="poses",
        actions=rows,
        joint_names=SPEC.joint_names,
        robot=SPEC.name,
        mode=ActionMode.CARTESIAN_POSE,
        stamp_s=now_s,
        start_s=now_s,
        step_period_s=1 / 15,
        valid_until_s=now_s + 4.0,
        policy="test",
    )


def _readable(port: TrajectoryArm) -> bool:
    return not _missing(port)


def _missing(port: TrajectoryArm) -> str:
    """Return what the port says of a joint that has not come, empty when all have."""
    try:
        port.read()
    except ArmStateMissingError as error:
        return str(error)
    return ""


def _refuses(port: TrajectoryArm, target: np.ndarray) -> bool:
    try:
        port.write(target)
    except ArmPortError as error:
        return "the controller left" in str(error)
    return False
