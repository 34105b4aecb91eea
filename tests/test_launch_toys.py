# SPDX-License-Identifier: Apache-2.0
"""`./chatvla launch toy_placement`: the graph, and a scored trial. Needs the built packages."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from chatvla_cli.errors import ChatvlaError
from chatvla_cli.launch_graph import read_graph
from chatvla_cli.substitutions import package_share

GRAPH = Path(__file__).resolve().parents[1] / "launch" / "graphs" / "toy_placement.launch.yaml"


def is_installed() -> bool:
    try:
        return package_share("chatvla_franka_bringup", os.environ).is_dir()
    except ChatvlaError:
        return False


def test_graph_resolves_in_simulation_and_the_zeds_topics_become_the_policys() -> None:
    nodes = {node.name: node for node in read_graph(GRAPH).resolve({}, {"AMENT_PREFIX_PATH": ""}).nodes}
    assert list(nodes) == ["sim", "driver", "policy", "rollout"]
    assert {nodes[name].parameters["robot"] for name in ("sim", "rollout")} == {"franka"}
    assert "tiny_toys" in nodes["policy"].parameters.values()
    for words in ({"policy": "expert"}, {"task": "toy_sorting"}):
        scripted = {node.name: node for node in read_graph(GRAPH).resolve(words, {"AMENT_PREFIX_PATH": ""}).nodes}
        assert scripted["policy"].parameters["robot"] == "franka"
    assert dict(nodes["sim"].remappings)["zed/zed_node/rgb/color/rect/image"] == "camera/right/image_raw"
    assert nodes["driver"].parameters["port"] == "sim"
    assert nodes["rollout"].parameters["view"] == "right"
    assert [node.name for node in nodes.values() if node.respawn] == ["policy"]


@pytest.mark.skipif(not is_installed(), reason="the packages are not sourced: run ./chatvla test")
def test_a_real_arm_gets_the_cells_values_and_moveit_when_asked_for() -> None:
    graph, real = read_graph(GRAPH), {"robot": "franka", "camera": "sim", "policy": "tiny"}
    plain = {node.name: node for node in graph.resolve(real, os.environ).nodes}
    assert "rollout" not in plain
    assert [Path(path).name for path in plain["driver"].parameter_files] == ["driver.yaml"]
    asked = real | {"port": "moveit", "robot_model": "/cell/model.yaml"}
    (driver,) = [node for node in graph.resolve(asked, os.environ).nodes if node.name == "driver"]
    assert [Path(path).name for path in driver.parameter_files] == ["driver.yaml", "moveit.yaml", "model.yaml"]
    assert driver.parameters["port"] == "moveit"


@pytest.mark.skipif(not is_installed(), reason="the packages are not sourced: run ./chatvla test")
@pytest.mark.slow
@pytest.mark.usefixtures("ros_domain")
def test_a_trial_is_solved_and_scored(tmp_path: Path) -> None:
    words = ["policy:=expert", "trials:=1", "seed:=3", f"out:={tmp_path}"]
    command = [sys.executable, "-m", "chatvla_cli.main", "launch", "toy_placement", *words]
    done = subprocess.run(command, capture_output=True, text=True, timeout=150, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    results = json.loads((tmp_path / "results.json").read_text())
    assert results["task"] == "toy_placement"
    assert results["privileged"] is True
    (trial,) = results["trials"]
    assert trial["success"], trial["cause"]
    assert (trial["recognition"], trial["affordance"]) == (2, 1)
    assert results["summary"]["recognition"]["of"] == 2
