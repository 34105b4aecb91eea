# SPDX-License-Identifier: Apache-2.0
"""The robots that exist, by name. A new robot is one file here and one entry in ROBOTS."""

from __future__ import annotations

from chatvla_control.cartesian_spec import CartesianSpec
from chatvla_control.robot_spec import RobotSpec
from chatvla_control.robots.arx_r5 import ARX_R5, ARX_R5_CARTESIAN
from chatvla_control.robots.franka import FRANKA, FRANKA_CARTESIAN
from chatvla_control.robots.ur5e import UR5E, UR5E_CARTESIAN

__all__ = ["CARTESIAN", "ROBOTS"]

ROBOTS: dict[str, RobotSpec] = {spec.name: spec for spec in (ARX_R5, FRANKA, UR5E)}
CARTESIAN: dict[str, CartesianSpec] = {
    ARX_R5.name: ARX_R5_CARTESIAN,
    FRANKA.name: FRANKA_CARTESIAN,
    UR5E.name: UR5E_CARTESIAN,
}
"""Chains and limits of the tools; a robot that is missing here plays joint positions only."""
