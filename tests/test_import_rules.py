# SPDX-License-Identifier: Apache-2.0
"""Who may import whom. The rules are stated in docs/architecture.md; this file is what enforces them."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
OURS = {
    "arx_r5_driver",
    "chatvla_cli",
    "chatvla_control",
    "chatvla_eval",
    "chatvla_franka_bringup",
    "chatvla_msgs",
    "chatvla_policy",
    "chatvla_sim",
    "chatvla_tables",
    "chatvla_torture",
    "chatvla_training",
    "ur5e_driver",
}
ALLOWED = {
    "chatvla_control": {"chatvla_msgs"},
    "arx_r5_driver": {"chatvla_control", "chatvla_msgs"},
    "chatvla_franka_bringup": {"chatvla_control", "chatvla_msgs"},
    "ur5e_driver": {"chatvla_control", "chatvla_msgs"},
    "chatvla_sim": {"chatvla_control", "chatvla_msgs"},
    "chatvla_policy": {"chatvla_control", "chatvla_msgs"},
    "chatvla_eval": {"chatvla_control", "chatvla_msgs", "chatvla_policy", "chatvla_sim"},
    "chatvla_cli": set(),
    "chatvla_training": {"chatvla_control", "chatvla_policy", "chatvla_sim"},
    "chatvla_tables": {"chatvla_control", "chatvla_eval", "chatvla_policy", "chatvla_sim", "chatvla_training"},
    "chatvla_torture": {
        "arx_r5_driver",
        "chatvla_cli",
        "chatvla_control",
        "chatvla_eval",
        "chatvla_msgs",
        "chatvla_policy",
        "chatvla_sim",
        "chatvla_training",
    },
    "launch": set(),
}
ROS_LIBRARIES = {
    "builtin_interfaces",
    "chatvla_msgs",
    "diagnostic_msgs",
    "diagnostic_updater",
    "geometry_msgs",
    "message_filters",
    "rcl_interfaces",
    "rclpy",
    "sensor_msgs",
    "std_msgs",
    "std_srvs",
}
ROS_FREE = (
    "chatvla_control",
    "chatvla_policy",
    "chatvla_eval",
    "chatvla_sim",
    "chatvla_training",
    "chatvla_tables",
    "chatvla_cli",
    "chatvla_torture",
)
"""Packages whose modules outside a `ros` folder must run without ROS."""
ROS_COMMANDS = {"record_cli.py", "replay_cli.py"}
"""Command lines that exist only to talk to ROS."""
TORCH_FREE = ("chatvla_control", "chatvla_sim", "arx_r5_driver", "chatvla_cli", "chatvla_franka_bringup", "ur5e_driver")


def sources(package: str) -> list[Path]:
    """Return the modules of `package`, tests left out."""
    folders = [
        ROOT / "src" / package / package,
        ROOT / "src" / "franka_bringup" / package,
        ROOT / package,
        ROOT / "training" / package,
    ]
    files = [path for folder in folders if folder.is_dir() for path in folder.rglob("*.py")]
    return [path for path in files if "test" not in path.relative_to(ROOT).parts[:-1]]


def imported(path: Path) -> Iterator[tuple[str, int]]:
    """Yield the dotted name and the line of every import in a file, those inside functions too."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"), filename=str(path))):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            yield node.module, node.lineno
            yield from ((f"{node.module}.{alias.name}", node.lineno) for alias in node.names)


def offences(files: list[Path], is_bad) -> list[str]:
    return [
        f"{path.relative_to(ROOT)}:{line} imports {name}"
        for path in files
        for name, line in imported(path)
        if is_bad(name)
    ]


def in_ros_folder(path: Path) -> bool:
    return "ros" in path.relative_to(ROOT).parts[:-1] or path.name in ROS_COMMANDS


@pytest.mark.parametrize("package", sorted(ALLOWED))
def test_imports_only_the_packages_below(package: str) -> None:
    forbidden = OURS - ALLOWED[package] - {package}
    assert not offences(sources(package), lambda name: name.split(".")[0] in forbidden)


@pytest.mark.parametrize("package", ROS_FREE)
def test_core_runs_without_ros(package: str) -> None:
    files = [path for path in sources(package) if not in_ros_folder(path)]
    assert not offences(
        files, lambda name: name.split(".")[0] in ROS_LIBRARIES or name.startswith("chatvla_control.ros")
    )


@pytest.mark.parametrize("package", TORCH_FREE)
def test_control_and_simulation_need_no_torch(package: str) -> None:
    assert not offences(sources(package), lambda name: name.split(".")[0] in {"torch", "transformers", "diffusers"})


@pytest.mark.parametrize("package", ["chatvla_training", "chatvla_eval", "chatvla_tables"])
def test_offline_code_leaves_the_policy_node_alone(package: str) -> None:
    assert not offences(sources(package), lambda name: name.startswith("chatvla_policy.ros"))


def test_inference_never_imports_training() -> None:
    inference = OURS - {"chatvla_training", "chatvla_tables", "chatvla_torture"}
    files = [path for package in inference for path in sources(package)]
    assert not offences(files, lambda name: name.split(".")[0] == "chatvla_training")


def test_imports_are_absolute() -> None:
    relative = [
        f"{path.relative_to(ROOT)}:{node.lineno}"
        for package in OURS
        for path in sources(package)
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.ImportFrom) and node.level
    ]
    assert not relative


def test_packages_hold_no_import_cycles() -> None:
    graph = {
        package: {name.split(".")[0] for path in sources(package) for name, _ in imported(path)} & OURS - {package}
        for package in OURS
    }
    while leaves := [package for package, below in graph.items() if not below & graph.keys()]:
        for package in leaves:
            del graph[package]
    assert not graph


def test_launch_folder_does_not_shadow_the_launch_of_ros() -> None:
    assert not (ROOT / "launch" / "__init__.py").exists()
