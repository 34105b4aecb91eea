# SPDX-License-Identifier: Apache-2.0
"""`./chatvla launch math_match`: arguments, a scored trial, Ctrl-C, and a node that dies. Needs the built packages."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml

from chatvla_cli.errors import ChatvlaError
from chatvla_cli.launch_graph import on_this_host, read_graph
from chatvla_cli.shared_memory import SHM, files_in_use, mapped_files
from chatvla_cli.substitutions import package_share

ROOT = Path(__file__).resolve().parents[1]
GRAPH = ROOT / "launch" / "graphs" / "math_match.launch.yaml"
LOCAL = on_this_host(ROOT / "launch")


def is_installed() -> bool:
    try:
        return package_share("chatvla", os.environ).is_dir()
    except ChatvlaError:
        return False


needs_install = pytest.mark.skipif(not is_installed(), reason="the packages are not sourced: run ./chatvla test")


class Launch:
    """A running `launch` verb whose output is kept."""

    def __init__(self, *words: str) -> None:
        command = [sys.executable, "-m", "chatvla_cli.main", "launch", "math_match", *words]
        # As a user has it: what keeps this test on this host must not be taken for the user's choice.
        environment = {name: value for name, value in os.environ.items() if name not in LOCAL}
        self.process = subprocess.Popen(
            command,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        self.lines: list[str] = []
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.lines.append(line)

    def text(self) -> str:
        return "".join(self.lines)

    def wait_for(self, pattern: str, timeout_s: float = 40.0) -> None:
        wait_until(lambda: re.search(pattern, self.text()) or self.process.poll() is not None, timeout_s)
        assert re.search(pattern, self.text()), self.text()

    def children(self) -> list[int]:
        """Return the pids of the nodes, in order of their names in the graph."""
        tasks = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text()
        return [pid for pid in map(int, tasks.split()) if b"__node:=" in Path(f"/proc/{pid}/cmdline").read_bytes()]


def left_behind(used: set[str]) -> set[str]:
    """Return the files of `used` that exist for nobody: nodes map those of every participant in their domain too."""
    return {name for name in used if (SHM / name).exists()} - files_in_use()


def wait_until(condition: Callable[[], object], timeout_s: float) -> None:
    end_s = time.monotonic() + timeout_s
    while not condition() and time.monotonic() < end_s:
        time.sleep(0.05)


@pytest.fixture
def launch(ros_domain: int) -> Iterator[Callable[..., Launch]]:
    """Start the verb; whatever still runs at the end is killed."""
    started: list[Launch] = []

    def start(*words: str) -> Launch:
        started.append(Launch(*words))
        return started[-1]

    yield start
    for one in started:
        if one.process.poll() is None:
            one.process.kill()
            one.process.wait()


def test_graph_resolves_in_simulation() -> None:
    graph = read_graph(GRAPH)
    nodes = {node.name: node for node in graph.resolve({}, {"AMENT_PREFIX_PATH": ""}).nodes}
    assert list(nodes) == ["sim", "driver", "policy", "rollout"]
    assert {node.namespace for node in nodes.values()} == {"/chatvla"}
    assert nodes["driver"].parameters["port"] == "sim"
    assert nodes["policy"].executable == "policy_node"
    assert nodes["policy"].respawn
    assert not nodes["driver"].respawn


def test_a_driver_is_never_restarted_and_every_other_death_ends_the_launch() -> None:
    for entity in yaml.safe_load(GRAPH.read_text())["launch"]:
        for child in entity.get("group", ()):
            node = child.get("node")
            if node and node["exec"] != "realsense2_camera_node":
                assert (node.get("respawn") == "true") == (node["name"] == "policy")
                assert (node.get("on_exit") == "shutdown") != (node["name"] == "policy")


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """Return an environment in which the graphs find their packages, built or not."""
    share = tmp_path / "share"
    packages = share / "ament_index" / "resource_index" / "packages"
    packages.mkdir(parents=True)
    for name, folder in (("chatvla", ROOT), ("chatvla_franka_bringup", ROOT / "src" / "franka_bringup")):
        (packages / name).touch()
        (share / name).symlink_to(folder, target_is_directory=True)
    return {"AMENT_PREFIX_PATH": str(tmp_path)}


def test_a_real_robot_starts_no_simulator(environment: dict[str, str]) -> None:
    values = {"robot": "arx_r5", "policy": "checkpoints/math", "camera_serial": "123"}
    resolved = read_graph(GRAPH).resolve(values, environment)
    nodes = {node.name: node for node in resolved.nodes}
    assert list(nodes) == ["top", "driver", "policy"]
    assert nodes["driver"].parameters["port"] == "can"
    assert nodes["top"].namespace == "/chatvla/camera"
    assert nodes["top"].parameters["serial_no"] == "123"
    assert nodes["top"].respawn
    assert nodes["policy"].executable == "policy_node"
    assert not LOCAL.keys() & nodes["driver"].environment.keys()


@pytest.mark.parametrize(
    ("name", "values"),
    [
        (name, {**values, **policy})
        for name, values in (
            ("math_match", {"robot": "arx_r5"}),
            ("math_match", {"robot": "arx_r5", "camera": "sim"}),
            ("toy_placement", {"robot": "franka", "camera": "sim"}),
            ("toy_placement", {"robot": "franka", "camera": "sim", "port": "moveit", "task": "toy_sorting"}),
        )
        for policy in ({}, {"policy": "expert"}, {"policy": "a/checkpoint"})
    ],
)
def test_a_real_robot_is_moved_by_nothing_but_a_checkpoint_that_a_person_has_named(
    environment: dict[str, str], name: str, values: dict[str, str]
) -> None:
    resolved = read_graph(GRAPH.with_name(f"{name}.launch.yaml")).resolve(values, environment)
    executables = [node.executable for node in resolved.nodes]
    assert "driver_node" in executables
    assert "expert_node" not in executables
    named, simulated = values.get("policy") == "a/checkpoint", values.get("camera") == "sim"
    assert ("policy_node" in executables) == (named and not simulated)
    assert any("Name a checkpoint with policy:=FOLDER" in message for message in resolved.messages) != named
    assert any("by the simulator's pictures" in message for message in resolved.messages) == (named and simulated)


def test_beside_a_real_camera_the_simulators_pictures_go_elsewhere(environment: dict[str, str]) -> None:
    for camera, topic in (("sim", "camera/top/image_raw"), ("realsense", "sim/camera/top/image_raw")):
        nodes = {node.name: node for node in read_graph(GRAPH).resolve({"camera": camera}, environment).nodes}
        assert ("top" in nodes) == (camera == "realsense")
        assert dict(nodes["sim"].remappings)["camera/top/image_raw"] == topic


@pytest.mark.parametrize("policy", ["expert", "tiny"])
def test_forced_text_and_swap_are_in_force_without_trials_too(environment: dict[str, str], policy: str) -> None:
    values = {"policy": policy, "trials": "0", "force": "I should pick it: now", "swap": "true"}
    nodes = {node.name: node for node in read_graph(GRAPH).resolve(values, environment).nodes}
    assert nodes["policy"].parameters["force"] == "I should pick it: now"
    assert nodes["sim"].parameters["swap"] is True


@needs_install
@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["splt:=open_world"], "did you mean 'split'"),
        (["split:=moon"], "there are held_out, in_domain, open_world"),
        (["trials:=many"], "'many' is no number of trials: it is a whole number"),
        (["policy:=somewhere"], "policy_node"),
    ],
)
def test_bad_arguments_are_refused(launch: Callable[..., Launch], words: list[str], message: str) -> None:
    if words[0].startswith("policy") and list((ROOT / "src/chatvla_policy").rglob("policy_node.py")):
        pytest.skip("there is a policy node in this version")
    run = launch(*words)
    assert run.process.wait(timeout=20) != 0
    run.wait_for(message, 2.0)


@needs_install
@pytest.mark.slow
def test_a_trial_is_scored_and_nothing_is_left(launch: Callable[..., Launch], tmp_path: Path) -> None:
    run = launch("policy:=expert", "trials:=1", "seed:=3", f"out:={tmp_path / 'out'}")
    run.wait_for("math_match runs")
    used = set().union(*(mapped_files(pid) for pid in run.children()))
    assert run.process.wait(timeout=120) == 0, run.text()
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    assert len(results["trials"]) == 1
    assert results["policy"] == "expert"
    assert results["privileged"] is True
    run.wait_for("Results: ", 2.0)
    # What a killed process still maps when the launch ends is removed by the launch's reaper, within seconds.
    wait_until(lambda: not left_behind(used), 10.0)
    assert not left_behind(used)


@needs_install
@pytest.mark.slow
def test_ctrl_c_stops_everything_within_three_seconds(launch: Callable[..., Launch], tmp_path: Path) -> None:
    run = launch("policy:=expert", "trials:=0", f"out:={tmp_path}")
    run.wait_for("math_match runs")
    run.wait_for("is ready")
    pids = run.children()
    assert len(pids) == 3
    used = set().union(*(mapped_files(pid) for pid in pids))
    assert used
    started_s = time.monotonic()
    os.killpg(run.process.pid, signal.SIGINT)
    assert run.process.wait(timeout=6) == 130
    assert time.monotonic() - started_s < 3.0
    assert not [pid for pid in pids if Path(f"/proc/{pid}").exists()]
    wait_until(lambda: not left_behind(used), 10.0)
    assert not left_behind(used)


@needs_install
@pytest.mark.slow
def test_a_dead_driver_ends_the_launch_and_a_dead_policy_comes_back(
    launch: Callable[..., Launch], tmp_path: Path
) -> None:
    run = launch("policy:=expert", "trials:=0", f"out:={tmp_path}")
    run.wait_for("is ready")
    _, driver, policy = run.children()
    os.kill(policy, signal.SIGKILL)
    run.wait_for(r"policy died \(signal SIGKILL\): restarting it \(1\)")
    os.kill(driver, signal.SIGKILL)
    run.wait_for(r"driver died \(signal SIGKILL\): stopping everything")
    assert run.process.wait(timeout=6) == 1
