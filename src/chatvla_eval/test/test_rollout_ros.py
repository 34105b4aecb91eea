# SPDX-License-Identifier: Apache-2.0
"""The rollout through ROS: the closed loop with simulator, driver and expert as processes, and what goes wrong."""

import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
from sensor_msgs.msg import JointState
from std_srvs.srv import Trigger

from chatvla_control.arm_controller import ArmController
from chatvla_control.cartesian_guard import margins
from chatvla_control.chunk_check import check_chunk
from chatvla_control.chunk_fault import FaultCode
from chatvla_control.clear_way import tool_arms
from chatvla_control.robot_spec import robot_spec
from chatvla_eval.bags.topics import EVALUATION_TOPICS, absolute_patterns, is_selected
from chatvla_eval.demonstrations import DEMONSTRATION_WARNING
from chatvla_eval.ros.go_home import home_chunk, is_home
from chatvla_eval.ros.graph_wait import GraphIncompleteError, Part, wait_for_parts

from .bench_nodes import DRIVER, EXPERT, NAMESPACE, SIMULATOR, node, operator, rollout, stop


@pytest.fixture(scope="module")
def bench(ros_domain):
    processes = [
        node(*SIMULATOR, split="open_world"),
        node(*DRIVER),
        node(*EXPERT),
    ]
    yield processes
    stop(*processes)


def test_expert_closes_the_loop_and_its_bag_holds_the_trial(bench, tmp_path):
    from rosbags.highlevel import AnyReader

    record = ["-m", "chatvla_eval.record_cli", "--out", str(tmp_path / "bag"), "--namespace", NAMESPACE]
    recorder = subprocess.Popen([sys.executable, *record], stdout=subprocess.DEVNULL)
    running = rollout(trials=1, seed=7, out=tmp_path, timeout=60.0, wait=60.0)
    output, _ = running.communicate(timeout=150)
    recorder.send_signal(signal.SIGINT)
    assert recorder.wait(timeout=20) == 0
    assert running.returncode == 0, output
    results = json.loads((tmp_path / "results.json").read_text())
    trial = results["trials"][0]
    assert (trial["success"], trial["ocr"], trial["math"], trial["cause"]) == (True, 4, 2, ""), output
    assert (results["policy"], results["privileged"], results["transport"]) == ("expert", True, "ros")
    assert (tmp_path / "trial_000.mp4").stat().st_size > 10_000
    assert "trial 1/1:" in output
    assert "expert (privileged)" in output
    with AnyReader([tmp_path / "bag"]) as reader:
        counts = {connection.topic: connection.msgcount for connection in reader.connections}
        texts = {
            reader.deserialize(data, connection.msgtype).text
            for connection, _, data in reader.messages()
            if connection.topic.endswith("/reasoning")
        }
    assert trial["text"] in texts
    for topic in (
        "camera/top/image_raw",
        "camera/top/camera_info",
        "joint_states",
        "joint_command",
        "action_chunk",
        "sim/bench_state",
    ):
        assert counts[f"/{NAMESPACE}/{topic}"] > 5, counts
        assert is_selected(f"/{NAMESPACE}/{topic}", absolute_patterns(EVALUATION_TOPICS, NAMESPACE))


def test_bag_of_a_rollout_gives_exactly_its_scores(bench, tmp_path):
    from chatvla_eval.cli import main

    bag = str(tmp_path / "bags" / "monday")
    recorder = subprocess.Popen(
        [sys.executable, "-m", "chatvla_eval.record_cli", "--out", bag, "--namespace", NAMESPACE]
    )
    time.sleep(2.0)
    with operator() as (peer, _):
        # As a policy node reports what its policy counts.
        reports = peer.create_publisher(DiagnosticArray, "/diagnostics", 10)
        counted = [KeyValue(key="policy_malformed", value="2"), KeyValue(key="policy_retries", value="many")]
        other = DiagnosticStatus(
            name="/other/policy_node: policy", values=[KeyValue(key="policy_malformed", value="9")]
        )
        own = DiagnosticStatus(name=f"/{NAMESPACE}/policy_node: policy", values=counted)
        report = DiagnosticArray(status=[own, other])
        peer.create_timer(0.2, lambda: reports.publish(report))
        running = rollout(trials=2, seed=11, out=tmp_path / "live", wait=60.0, force="I should pick the left card.")
        output, _ = running.communicate(timeout=200)
    time.sleep(1.0)
    recorder.send_signal(signal.SIGINT)
    assert recorder.wait(timeout=20) == 0
    assert running.returncode == 0, output
    words = ["--bag", str(tmp_path / "bags"), "--namespace", NAMESPACE, "--out", str(tmp_path / "scored"), "--report"]
    assert main(words) == 0
    live, scored = (json.loads((tmp_path / name / "results.json").read_text()) for name in ("live", "scored"))
    assert scored["trials"] == live["trials"]
    assert scored["summary"] == live["summary"]
    assert [trial["counts"] for trial in live["trials"]] == [{"malformed": 2}, {"malformed": 2}]
    assert live["summary"]["counts"] == {"malformed": 4}
    assert any(trial["text"] == "I should pick the left card." for trial in scored["trials"])
    asked = ("split", "seed", "swap", "forced_reasoning", "force_correct", "fonts", "demonstration_scenes")
    assert live["forced_reasoning"] == "I should pick the left card."
    for key in ("task", "policy", "privileged", "simulation", *asked):
        assert scored[key] == live[key]
    assert scored["transport"] == "bag"
    page = (tmp_path / "scored" / "report.html").read_text()
    assert page.count("data:image/jpeg") > 8
    assert page.count("Planned chunks against executed motion</summary>") >= 1


def test_forced_text_is_followed_and_an_interrupt_keeps_the_results(bench, tmp_path):
    force = "I should pick the right card."
    running = rollout(trials=50, seed=3, out=tmp_path, wait=60.0, force=force)
    deadline = time.monotonic() + 120
    while not (tmp_path / "results.json").exists() and time.monotonic() < deadline:
        time.sleep(0.1)
    interrupted = time.monotonic()
    running.send_signal(signal.SIGINT)
    output, _ = running.communicate(timeout=30)
    assert time.monotonic() - interrupted < 4.0
    assert running.returncode == 130, output
    assert "INCOMPLETE" in output
    results = json.loads((tmp_path / "results.json").read_text())
    assert not results["complete"]
    trial = results["trials"][0]
    right = next(card["value"] for card in trial["cards"] if card["place"] == "right")
    assert (trial["text"], trial["picked"], results["forced_reasoning"]) == (force, right, force)


def test_silence_of_the_simulator_ends_one_trial_by_name_and_the_next_one_runs(bench, tmp_path):
    running = rollout(trials=3, seed=5, out=tmp_path, timeout=30.0, wait=60.0)
    deadline = time.monotonic() + 120
    while not (tmp_path / "results.json").exists() and time.monotonic() < deadline:
        time.sleep(0.1)
    time.sleep(4.0)
    bench[0].send_signal(signal.SIGSTOP)
    time.sleep(4.5)
    bench[0].send_signal(signal.SIGCONT)
    output, _ = running.communicate(timeout=200)
    assert running.returncode == 0, output
    causes = [trial["cause"] for trial in json.loads((tmp_path / "results.json").read_text())["trials"]]
    assert len(causes) == 3, output
    assert causes[1].startswith("error:sim/bench_state is silent for"), causes
    assert "silent" not in causes[2]


def wait_for_fault(faults: list[str], words: str, act=lambda: None) -> None:
    deadline = time.monotonic() + 30
    while not (faults and words in faults[-1] and bool(faults[-1]) == bool(words)):
        assert time.monotonic() < deadline, faults[-3:]
        act()
        time.sleep(0.05)


def test_fault_of_a_simulated_arm_is_cleared_before_the_next_trial(bench, tmp_path):
    with operator() as (peer, faults):
        states = peer.create_publisher(JointState, "sim/joint_states", 10)
        spec = robot_spec("arx_r5")
        broken = JointState(name=list(spec.joint_names), position=[float("nan")] * spec.width)
        wait_for_fault(faults, "not a finite number", lambda: states.publish(broken))
        peer.destroy_publisher(states)
        running = rollout(trials=1, seed=7, out=tmp_path, timeout=60.0, wait=60.0)
        output, _ = running.communicate(timeout=150)
        wait_for_fault(faults, "")
    assert "cleared the driver's fault: measured position" in output
    assert json.loads((tmp_path / "results.json").read_text())["trials"][0]["success"], output


def test_arm_that_an_operator_stopped_stays_stopped(bench, tmp_path):
    with operator() as (peer, faults):
        calls = {name: peer.create_client(Trigger, f"driver/{name}") for name in ("stop", "clear_fault")}
        assert all(client.wait_for_service(30.0) for client in calls.values())
        calls["stop"].call_async(Trigger.Request())
        wait_for_fault(faults, "stopped:")
        running = rollout(trials=1, seed=7, out=tmp_path, timeout=20.0, wait=60.0)
        output, _ = running.communicate(timeout=150)
        assert "stopped:" in faults[-1]
        calls["clear_fault"].call_async(Trigger.Request())
        wait_for_fault(faults, "")
    assert "cleared" not in output
    assert json.loads((tmp_path / "results.json").read_text())["trials"][0]["cause"].startswith("error:DRIVER_FAULT")


def test_a_second_bench_among_the_same_topics_is_refused(bench, tmp_path):
    second = node(*SIMULATOR)
    try:
        assert second.stdout is not None
        next(line for line in second.stdout if "math_match runs" in line)
        running = rollout(trials=1, out=tmp_path, wait=60.0)
        output, _ = running.communicate(timeout=90)
    finally:
        stop(second)
    assert running.returncode == 1
    assert f"2 simulators publish /{NAMESPACE}/sim/bench_state, only one may" in output
    assert not (tmp_path / "results.json").exists()


def test_missing_nodes_are_named(ros_domain, tmp_path):
    environment = os.environ | {"ROS_DOMAIN_ID": str(1 + int(os.environ["ROS_DOMAIN_ID"]) % 100)}
    command = [
        sys.executable,
        "-m",
        "chatvla_eval.ros.rollout_node",
        "--ros-args",
        "-p",
        "wait:=3.0",
        "-p",
        f"out:={tmp_path}",
    ]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    for part in ("simulator", "camera", "driver", "policy"):
        assert part in done.stdout
        assert part in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "results.json").exists()


@pytest.mark.parametrize(
    ("words", "warned"),
    [
        (["policy:=tiny", "seed:=0"], True),
        (["policy:=tiny", "seed:=4"], True),
        (["policy:=expert", "seed:=0"], False),
        (["policy:=tiny"], False),
    ],
)
def test_scenes_of_the_demonstrations_are_named_before_the_first_trial(ros_domain, tmp_path, words, warned):
    """In a domain without the other tests' bench, where no trial ever begins."""
    environment = os.environ | {"ROS_DOMAIN_ID": str(1 + int(os.environ["ROS_DOMAIN_ID"]) % 100)}
    words = [*words, "split:=in_domain", f"out:={tmp_path}", "wait:=1.0"]
    command = [sys.executable, "-m", "chatvla_eval.ros.rollout_node", "--ros-args"]
    command += [part for word in words for part in ("-p", word)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1, done.stdout
    assert done.stdout.count(DEMONSTRATION_WARNING) == warned


def test_wait_names_only_what_is_missing():
    parts = [Part(what="sun", ready=lambda: True), Part(what="moon", ready=lambda: False)]
    with pytest.raises(GraphIncompleteError, match="no moon;"):
        wait_for_parts(parts, timeout_s=0.2, report=print, stopped=lambda: False)
    assert not wait_for_parts(parts, timeout_s=60.0, report=print, stopped=lambda: True)


TOOL_FAULTS = (FaultCode.WORKSPACE, FaultCode.TABLE, FaultCode.ORIENTATION)


@pytest.mark.parametrize("name", ["arx_r5", "franka"])
def test_way_home_keeps_the_joints_limits_from_anywhere(name):
    """Only the tool's workspace may forbid it, for arms that have one: a start under the table, a way through it."""
    spec = robot_spec(name)
    rng = np.random.default_rng(0)
    home = np.array(spec.home)
    # Poses are checked along the whole way, which takes a second each.
    for number in range(16 if name == "franka" else 50):
        far = rng.uniform(spec.lower, spec.upper)
        start = far if number % 2 else np.clip(home + 0.1 * (far - home), spec.lower, spec.upper)
        chunk = home_chunk(start, spec, now_s=100.0)
        fault = check_chunk(chunk, spec, now_s=100.0, measured=start)
        assert fault is None or (name == "franka" and number % 2 and fault.code in TOOL_FAULTS), fault
        np.testing.assert_allclose(chunk.actions[0], start)
        assert is_home(chunk.actions[-1], spec)


def test_way_home_goes_round_what_the_straight_way_would_hit():
    """From anywhere in the workspace; on the straight way the tool would sometimes leave it. Played, it comes home."""
    spec = robot_spec("franka")
    (arm,) = tool_arms(spec)
    rng = np.random.default_rng(0)
    drawn = rng.uniform(spec.lower, spec.upper, (60_000, spec.width))
    inside = drawn[(margins(arm, drawn[:, arm.places])[0] > 0.005).all(axis=1)][:40]
    refused, around = [], 0
    for start in inside:
        straight = np.linspace(start, spec.home, 40)
        blocked = bool((margins(arm, straight[:, arm.places])[0] < -0.005).any())
        chunk = home_chunk(start, spec, now_s=100.0)
        controller, now_s, measured = ArmController(spec), 100.0, start
        controller.step(now_s=now_s, measured=measured)
        fault = controller.accept(chunk, now_s=now_s, measured=measured)
        refused += [fault.message] if fault else []
        around += blocked
        while fault is None and blocked and now_s < chunk.valid_until_s:
            now_s += 1.0 / spec.rate_hz
            command = controller.step(now_s=now_s, measured=measured)
            measured = measured if command is None else command.positions
        assert fault is not None or not blocked or is_home(measured, spec)
    assert around >= 3
    assert len(refused) <= around // 3, refused
