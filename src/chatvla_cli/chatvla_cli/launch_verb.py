# SPDX-License-Identifier: Apache-2.0
"""`./chatvla launch TASK name:=value ...`: start a graph's nodes, watch them, and say where the results are."""

from __future__ import annotations

import contextlib
import os
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from chatvla_cli.errors import UsageError
from chatvla_cli.launch_arguments import describe, given_values
from chatvla_cli.launch_graph import LaunchGraph, read_graph
from chatvla_cli.node_command import node_command
from chatvla_cli.process_group import Child, ProcessGroup
from chatvla_cli.substitutions import package_share
from chatvla_cli.verbs import nearest

__all__ = ["find_graph", "graph_names", "main", "run_graph"]

COLOURS = (36, 32, 33, 35, 34, 31)
SUFFIX = ".launch.yaml"
_CLOCK_GRAIN_S = 1.0
"""File systems round the times of files."""


def graph_names(folder: Path) -> list[str]:
    """Return the tasks that have a launch file of their own beside the graphs' folder."""
    return sorted(path.name.removesuffix(".launch.py") for path in folder.glob("*.launch.py"))


def find_graph(task: str, environment: Mapping[str, str]) -> LaunchGraph:
    """Return the graph of `task`; raise UsageError with what exists."""
    share = package_share("chatvla", environment)
    names = graph_names(share / "launch")
    if task not in names:
        raise UsageError(f"there is no launch graph '{task}'{nearest(task, names)}")
    return read_graph(share / "launch" / "graphs" / f"{task}{SUFFIX}")


def main(words: Sequence[str]) -> int:
    """Run the verb; return the exit code of the launch."""
    environment = dict(os.environ)
    if not words or words[0] in {"-h", "--help"}:
        names = graph_names(package_share("chatvla", environment) / "launch")
        print("Usage: ./chatvla launch TASK [name:=value ...]\n\nTasks: " + ", ".join(names))
        print("'./chatvla launch TASK --help' lists a task's arguments.")
        return 0
    graph = find_graph(words[0], environment)
    if {"-h", "--help", "-s", "--show-args"} & set(words[1:]):
        print(f"Usage: ./chatvla launch {words[0]} [name:=value ...]\n\n{describe(graph.arguments)}")
        return 0
    values = given_values(words[1:], graph.arguments)
    declared = {argument.name for argument in graph.arguments}
    if "out" in declared:
        values["out"] = os.path.abspath(values.get("out") or f"runs/{words[0]}-{time.strftime('%Y%m%d-%H%M%S')}")
    begun_s = time.time()
    code = run_graph(graph, values, environment)
    if "out" in declared:
        report(Path(values["out"]), since_s=begun_s)
    return code


def run_graph(graph: LaunchGraph, values: Mapping[str, str], environment: Mapping[str, str]) -> int:
    """Start every node of `graph` and return its exit code when all have ended."""
    resolved = graph.resolve(values, environment)
    with tempfile.TemporaryDirectory(prefix="chatvla_") as scratch:
        children = [
            Child(
                name=node.name,
                command=node_command(node, environment, Path(scratch)),
                environment={**environment, **node.environment, "PYTHONUNBUFFERED": "1"},
                respawn=node.respawn,
                respawn_delay_s=node.respawn_delay_s,
                respawn_max_retries=node.respawn_max_retries,
                ends_launch=node.ends_launch,
            )
            for node in resolved.nodes
        ]
        show = _Printer([child.name for child in children])
        for message in resolved.messages:
            show("", message)
        return ProcessGroup(children, show=show).run()


class _Printer:
    """Prints lines with the node's name in front, in a colour of its own on a terminal."""

    def __init__(self, names: Sequence[str]) -> None:
        self._width = max(map(len, names), default=0)
        self._colours = {name: COLOURS[index % len(COLOURS)] for index, name in enumerate(names)}
        self._live = sys.stdout.isatty()

    def __call__(self, name: str, line: str) -> None:
        head = f"[{name or 'launch'}]".ljust(self._width + 2)
        if self._live and name:
            head = f"\033[{self._colours[name]}m{head}\033[0m"
        # A closed terminal must not keep the nodes from being stopped.
        with contextlib.suppress(OSError, ValueError):
            print(f"{head} {line}", flush=True)


def report(out: Path, *, since_s: float) -> None:
    """Print where the results are, if any were written since the time `since_s`: the folder may hold older ones."""
    path = out / "results.json"
    if path.is_file() and path.stat().st_mtime >= since_s - _CLOCK_GRAIN_S:
        print(f"Results: {path}")
