# SPDX-License-Identifier: Apache-2.0
"""Declare the limits of one cell's tools as parameters: they may narrow the robot's own, not widen them."""

from __future__ import annotations

from dataclasses import replace

from rclpy.node import Node

from chatvla_control.cartesian_spec import CartesianSpec, cartesian_spec
from chatvla_control.robot_spec import RobotSpec
from chatvla_control.ros.parameters import ParameterError, declare

__all__ = ["declare_cell"]


def declare_cell(node: Node, spec: RobotSpec) -> CartesianSpec:
    """Return the robot's Cartesian limits, narrowed by the node's parameters for every arm.

    Raises ParameterError when nothing is left of the workspace.
    """
    robot = cartesian_spec(spec.name)
    if robot is None:
        raise ParameterError(f"robot {spec.name!r} has no Cartesian data; register a CartesianSpec (docs/robots.md)")
    first = robot.arms[0]
    sides: dict[str, float] = {}
    for end, corner in (("lower", first.lower), ("upper", first.upper)):
        for axis, value in zip("xyz", corner, strict=True):
            sides[f"{end}_{axis}"] = declare(
                node,
                f"workspace_{end}_{axis}_m",
                value,
                f"{end.capitalize()} {axis} of the tool's workspace in the base frame, m; may only narrow the robot's.",
                low=first.lower["xyz".index(axis)],
                high=first.upper["xyz".index(axis)],
            )
    table_m = declare(
        node, "table_z_m", first.table_z_m, "Height of the table's top in the base frame, m.", low=-1.0, high=0.6
    )
    speed_m_s = declare(
        node, "tool_speed_m_s", first.speed_m_s, "Largest speed of the tool, m/s.", low=0.02, high=first.speed_m_s
    )
    lower = (sides["lower_x"], sides["lower_y"], sides["lower_z"])
    upper = (sides["upper_x"], sides["upper_y"], sides["upper_z"])
    if not all(low < high for low, high in zip(lower, upper, strict=True)) or table_m >= upper[2]:
        raise ParameterError(f"the workspace {lower} .. {upper} m over a table at {table_m} m is empty; widen it")
    narrowed = tuple(
        replace(arm, lower=lower, upper=upper, table_z_m=table_m, speed_m_s=speed_m_s) for arm in robot.arms
    )
    return replace(robot, arms=narrowed)
