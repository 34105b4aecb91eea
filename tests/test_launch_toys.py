# SPDX-License-Identifier: Apache-2.0
"""`./chatvla launch toy_placement`: the graph, and a scored trial. Needs the built packages."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from chatvla_cli.errors import ChatvlaError
from chatvla_cli.launch_graph import read_graph
from chatvla_cli.substitutions import package_share
from chatvla_policy.runtime.view_window import Lens, central_window
from chatvla_sim.camera import PinholeCamera
from chatvla_sim.math_match.geometry import TOP_CAMERA
from chatvla_sim.toy_placement.scene import RIGHT_CAMERA

ROOT = Path(__file__).resolve().parents[1]
GRAPH = ROOT / "launch" / "graphs" / "toy_placement.launch.yaml"


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


@pytest.mark.parametrize(
    ("bench", "view", "camera", "model_size"),
    [("math_match", "top", TOP_CAMERA, (224, 308)), ("toy_placement", "right", RIGHT_CAMERA, (252, 336))],
)
def test_the_policy_sees_the_simulators_angle_which_cuts_nothing_of_the_simulators_own_images(
    bench: str, view: str, camera: PinholeCamera, model_size: tuple[int, int]
) -> None:
    nodes = read_graph(GRAPH.with_name(f"{bench}.launch.yaml")).resolve({}, {"AMENT_PREFIX_PATH": ""}).nodes
    (policy,) = [node for node in nodes if node.name == "policy"]
    height_deg = policy.parameters[f"view_height_deg.{view}"]
    assert height_deg == camera.fovy_deg
    lens = Lens((camera.height, camera.width), float(camera.intrinsics[1, 1]))
    window = central_window(lens.size, model_size=model_size, height_deg=camera.fovy_deg, lens=lens)
    assert window.whole


def test_the_zeds_profile_leaves_the_policy_what_the_simulators_camera_has() -> None:
    zed = yaml.safe_load((ROOT / "src" / "franka_bringup" / "config" / "zed.yaml").read_text())
    general = zed["/**"]["ros__parameters"]["general"]
    factor = general["pub_downscale_factor"]
    assert (general["grab_resolution"], general["pub_resolution"]) == ("HD720", "CUSTOM")
    # A ZED 2's focal length in this mode, rectified, is about 530 pixels; each camera has its own.
    lens = Lens((round(720 / factor), round(1280 / factor)), 530 / factor)
    window = central_window(lens.size, model_size=(252, 336), height_deg=RIGHT_CAMERA.fovy_deg, lens=lens)
    assert abs(window.size[0] - RIGHT_CAMERA.height) <= 5
    assert abs(window.size[1] - RIGHT_CAMERA.width) <= 5


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
