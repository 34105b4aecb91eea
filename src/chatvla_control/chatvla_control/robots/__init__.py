# SPDX-License-Identifier: Apache-2.0
"""The robots that exist, by name. A new robot is one file here and one entry in ROBOTS."""

from __future__ import annotations

from chatvla_control.robot_spec import RobotSpec
from chatvla_control.robots.arx_r5 import ARX_R5
from chatvla_control.robots.franka import FRANKA

__all__ = ["ROBOTS"]

ROBOTS: dict[str, RobotSpec] = {spec.name: spec for spec in (ARX_R5, FRANKA)}
