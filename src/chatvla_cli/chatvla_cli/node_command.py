# SPDX-License-Identifier: Apache-2.0
"""Turn a node of a launch graph into a command line, as ROS 2's launch does."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import yaml

from chatvla_cli.launch_graph import NodeSpec
from chatvla_cli.substitutions import GraphError, package_share

__all__ = ["executable_path", "node_command"]


def executable_path(package: str, executable: str, environment: Mapping[str, str]) -> Path:
    """Return the installed executable; raise GraphError naming what the package does provide."""
    folder = package_share(package, environment).parent.parent / "lib" / package
    path = folder / executable
    if not os.access(path, os.X_OK):
        provided = sorted(item.name for item in folder.glob("*") if os.access(item, os.X_OK) and item.is_file())
        raise GraphError(
            f"package '{package}' has no executable '{executable}'; it has {', '.join(provided) or 'none'}"
        )
    return path


def node_command(node: NodeSpec, environment: Mapping[str, str], scratch: Path) -> list[str]:
    """Return the command line of `node`; its parameters are written into a file under `scratch`."""
    command = [os.fspath(executable_path(node.package, node.executable, environment)), *node.arguments, "--ros-args"]
    command += ["-r", f"__node:={node.name}", "-r", f"__ns:={node.namespace}"]
    for source, target in node.remappings:
        command += ["-r", f"{source}:={target}"]
    for path in node.parameter_files:
        command += ["--params-file", path]
    if node.parameters:
        path = scratch / f"{node.name}.yaml"
        path.write_text(yaml.safe_dump({"/**": {"ros__parameters": dict(node.parameters)}}), encoding="utf-8")
        command += ["--params-file", os.fspath(path)]
    return command
