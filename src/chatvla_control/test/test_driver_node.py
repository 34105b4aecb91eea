# SPDX-License-Identifier: Apache-2.0
"""The driver node over real DDS, as a process of its own, against a small kinematic arm."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator

import numpy as np
import pytest
from builtin_interfaces.msg import Time
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import JointState

from chatvla_msgs.msg import ActionChunk as ActionChunkMsg

from .arm_peer import SPEC, Client
from .chunks import HOME, chunk, swing, wave

DRIVER = """
import sys
from chatvla_control.robot_spec import robot_spec
from chatvla_control.ros.driver_node import run_driver
from chatvla_control.ros.sim_arm import SimArm
sys.exit(run_driver(lambda node: SimArm(node, robot_spec("arx_r5"))))
"""
NAMESPACE = "/driver_test"


def start_driver(*arguments: str, namespace: str = NAMESPACE) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", DRIVER, "--ros-args", "-r", f"__ns:={namespace}", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


@pytest.fixture(scope="module")
def rig(ros_domain: int) -> Iterator[tuple[Client, subprocess.Popen[str]]]:
    driver = start_driver()
    try:
        with Client(ros_domain, NAMESPACE) as client:
            client.wait(lambda: client.value("phase") == "holding" and client.commands, 20.0)
            client.wait(lambda: client.chunks.get_subscription_count() > 0)
            yield client, driver
    finally:
        driver.kill()
        driver.wait()


@pytest.fixture
def client(rig: tuple[Client, subprocess.Popen[str]]) -> Client:
    """The client, with the arm at home, no fault and a holding driver."""
    client = rig[0]
    client.alive = False
    client.wait(lambda: client.value("phase") in ("no_state", "fault"))
    client.positions = HOME.copy()
    client.alive = True
    client.call("clear_fault")
    client.wait(lambda: client.value("phase") == "holding")
    return client


def send_wave(client: Client, **changes: object) -> None:
    now_s = client.now_s()
    times = {"stamp_s": now_s, "start_s": now_s, "valid_until_s": now_s + 1.5}
    client.send(chunk(**{**times, **changes}))


def refused(client: Client, code: str) -> int:
    return int(client.value(f"refused.{code}") or 0)


def test_joint_states_come_at_the_control_rate_in_spec_order(client: Client) -> None:
    client.states.clear()
    time.sleep(1.0)
    times = np.array([arrival for arrival, _ in client.states])
    assert 45 <= len(times) <= 55
    assert tuple(client.states[-1][1].name) == SPEC.joint_names
    assert np.median(np.diff(times)) == pytest.approx(0.02, abs=0.004)


def test_plays_a_chunk_within_the_limits_and_holds(client: Client) -> None:
    client.commands.clear()
    accepted = int(client.value("accepted") or 0)
    send_wave(client)
    client.wait(lambda: int(client.value("accepted") or 0) > accepted)
    client.wait(lambda: client.value("phase") == "holding")
    commands = np.array([msg.position for msg in client.commands])
    assert commands[:, 0].max() == pytest.approx(wave()[:, 0].max(), abs=0.01)
    assert np.abs(commands[-1] - wave()[-1]).max() < 0.01
    assert (np.abs([msg.velocity for msg in client.commands]) <= SPEC.velocity).all()
    assert (commands >= SPEC.lower).all()
    assert (commands <= SPEC.upper).all()


def test_garbage_is_refused_by_name_and_the_driver_lives(client: Client) -> None:
    before = {code: refused(client, code) for code in ("wrong_size", "unknown_mode", "stale_stamp", "malformed")}
    client.chunks.publish(ActionChunkMsg())
    time.sleep(0.1)
    send_wave(client, actions=np.full((3, 14), np.nan))
    time.sleep(0.1)
    send_wave(client, stamp_s=1.0)
    time.sleep(0.1)
    bad = ActionChunkMsg(steps=2**31, width=2**31, actions=[float("nan")] * 1000, mode=255)
    client.chunks.publish(bad)
    client.wait(lambda: refused(client, "wrong_size") >= before["wrong_size"] + 2)
    assert refused(client, "not_finite") >= 1
    assert refused(client, "stale_stamp") == before["stale_stamp"] + 1
    assert client.value("phase") == "holding"


def test_text_that_is_not_utf8_does_not_end_the_driver(
    client: Client, rig: tuple[Client, subprocess.Popen[str]]
) -> None:
    msg = ActionChunkMsg(robot="?" * 8)
    from rclpy.serialization import serialize_message

    raw = serialize_message(msg).replace(b"?" * 8, b"\xff\xfe\xc3\x28\xa0\xa1\xed\xa0")
    for _ in range(5):
        client.chunks.publish(raw)
    time.sleep(0.5)
    assert rig[1].poll() is None
    send_wave(client)
    client.wait(lambda: client.value("phase") in ("playing", "settling") or client.positions[0] != HOME[0])


def test_stop_holds_until_the_fault_is_cleared(client: Client) -> None:
    send_wave(client)
    time.sleep(0.4)
    assert client.call("stop").success
    client.wait(lambda: client.value("phase") == "fault")
    time.sleep(0.3)
    held = client.positions.copy()
    send_wave(client)
    client.wait(lambda: refused(client, "driver_fault") >= 1)
    assert np.array_equal(client.positions, held)
    assert "driver/stop" in client.call("clear_fault").message
    client.wait(lambda: client.value("phase") == "holding")
    assert client.call("clear_fault").message == "there was no fault"


def test_holds_when_chunks_stop_coming(client: Client) -> None:
    send_wave(client, valid_until_s=client.now_s() + 0.3)
    time.sleep(0.8)
    held = client.positions.copy()
    time.sleep(0.3)
    assert np.abs(client.positions - held).max() < 1e-6
    assert client.value("phase") == "holding"


def test_commands_nothing_while_joint_states_are_missing(client: Client) -> None:
    client.alive = False
    client.wait(lambda: client.value("phase") == "no_state")
    time.sleep(0.1)
    client.commands.clear()
    time.sleep(0.3)
    assert not client.commands
    assert "joint states" in client.value("waiting_for")
    client.positions = HOME + 0.2 * np.eye(14)[0]
    client.alive = True
    client.wait(lambda: client.value("phase") == "holding")
    client.wait(lambda: bool(client.commands))
    assert np.abs(np.array(client.commands[0].position) - client.positions).max() < 1e-6


def test_diagnostics_report_timing(client: Client) -> None:
    client.wait(lambda: client.value("jitter_p50_ms"))
    assert float(client.value("jitter_p50_ms")) < 10.0
    assert int(client.value("ticks")) > 50


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signal_brakes_and_ends_the_driver(ros_domain: int, number: signal.Signals) -> None:
    driver = start_driver(namespace="/other")
    try:
        with Client(ros_domain, "/other") as client:
            client.wait(lambda: bool(client.commands), 20.0)
            client.wait(lambda: client.chunks.get_subscription_count() > 0)
            send_wave(client)
            time.sleep(0.3)
            os.kill(driver.pid, number)
            assert driver.wait(3.0) == 0
            last = client.commands[-1]
            assert np.abs(last.velocity).max() < 1e-6
    finally:
        driver.kill()
        driver.wait()


@pytest.mark.parametrize("event", ["states fall silent", "SIGINT"])
def test_arm_in_motion_brakes_and_never_turns_back(ros_domain: int, event: str) -> None:
    """Neither the pose from before the silence nor that from before the signal is commanded again."""
    driver = start_driver(namespace="/fast")
    way: list[float] = []
    try:
        with Client(ros_domain, "/fast") as client:
            client.node.create_subscription(
                JointState, "sim/joint_command", lambda msg: way.append(msg.position[0]), 100
            )
            client.wait(lambda: bool(client.commands), 20.0)
            client.wait(lambda: client.chunks.get_subscription_count() > 0)
            send_wave(client, actions=swing(), valid_until_s=client.now_s() + 3.0)
            client.wait(lambda: client.positions[0] > HOME[0] + 0.7)
            if event == "SIGINT":
                os.kill(driver.pid, signal.SIGINT)
                assert driver.wait(5.0) == 0
            else:
                client.alive = False
                client.wait(lambda: client.value("phase") == "no_state")
                time.sleep(0.5)
            steps = np.diff(way)
            assert steps.min() > -1e-9
            assert np.abs(client.commands[-1].velocity).max() < 1e-6
    finally:
        driver.kill()
        driver.wait()


def commands_after_clearing(client: Client) -> bool:
    client.call("clear_fault")
    client.commands.clear()
    time.sleep(0.2)
    return bool(client.commands)


def test_time_that_no_message_holds_silences_the_driver_only_while_it_lasts(ros_domain: int) -> None:
    driver = start_driver("-p", "use_sim_time:=true", namespace="/clock")
    seconds = [1_700_000_000]
    try:
        with Client(ros_domain, "/clock") as client:
            clock = client.node.create_publisher(Clock, "/clock", 10)
            client.node.create_timer(
                0.01,
                lambda: clock.publish(Clock(clock=Time(sec=seconds[0], nanosec=time.monotonic_ns() % 1_000_000_000))),
            )
            client.wait(lambda: bool(client.commands), 20.0)
            seconds[0] = 2**31 - 1
            time.sleep(0.5)
            seconds[0] = 1_700_000_100
            client.wait(lambda: int(client.value("ticks_unpublished") or 0) > 0)
            assert "time is 21474836" in client.value("fault")
            # The driver may not have heard of the new time yet.
            client.wait(lambda: commands_after_clearing(client))
            assert driver.poll() is None
    finally:
        driver.kill()
        driver.wait()


def test_parameter_out_of_range_is_refused_in_one_sentence(ros_domain: int) -> None:
    driver = start_driver("-p", "state_timeout_s:=100.0")
    output, _ = driver.communicate(timeout=20)
    assert driver.returncode == 1
    assert "state_timeout_s" in output
    assert "Traceback" not in output


def test_parameter_of_the_wrong_type_is_refused_in_one_sentence(ros_domain: int) -> None:
    driver = start_driver("-p", "realtime_priority:=high")
    output, _ = driver.communicate(timeout=20)
    assert driver.returncode == 1
    assert "realtime_priority must be of type int from 0 to 90" in output
    assert "Traceback" not in output
