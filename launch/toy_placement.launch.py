# SPDX-License-Identifier: Apache-2.0
"""Start the toy-placement bench: the graph is graphs/toy_placement.launch.yaml, read by `./chatvla launch` too."""

from pathlib import Path

from launch.actions import IncludeLaunchDescription, OpaqueFunction
from launch.launch_description_sources import AnyLaunchDescriptionSource

from launch import LaunchContext, LaunchDescription

GRAPH = Path(__file__).parent / "graphs" / "toy_placement.launch.yaml"


def refuse_unknown(context: LaunchContext, include: IncludeLaunchDescription) -> None:
    """Raise when an argument was given that the graph does not declare; ROS 2's launch would ignore it."""
    graph = include.launch_description_source.get_launch_description(context)
    known = {argument.name for argument in graph.get_launch_arguments()}
    given = {word.split(":=")[0] for word in context.argv if ":=" in word}
    if unknown := given - known:
        raise RuntimeError(f"no argument {', '.join(sorted(unknown))}; there are {', '.join(sorted(known))}")


def generate_launch_description() -> LaunchDescription:
    """Return the graph as ROS 2's launch takes it."""
    include = IncludeLaunchDescription(AnyLaunchDescriptionSource(str(GRAPH)))
    return LaunchDescription([OpaqueFunction(function=refuse_unknown, args=[include]), include])
