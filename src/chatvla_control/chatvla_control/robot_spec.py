# SPDX-License-Identifier: Apache-2.0
"""Describe a robot once: joint order, units, limits, rate, home pose. No ROS, no torch.

Everything that depends on the robot reads it from here; a checkpoint stores the spec it was trained for.
Adding a robot is one file under robots/ (see docs/robots.md).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["ArmSpec", "JointSpec", "RobotSpec", "UnknownRobotError", "robot_names", "robot_spec"]


class UnknownRobotError(ValueError):
    """No robot of that name; the message lists those that exist."""


@dataclass(frozen=True, kw_only=True)
class JointSpec:
    """One joint or gripper: limits in rad or m and seconds."""

    name: str
    unit: str
    """"rad" for rotary joints, "m" for a gripper's opening."""
    lower: float
    upper: float
    velocity: float
    """Largest speed, unit/s."""
    acceleration: float
    """Largest acceleration, unit/s^2."""
    source: str
    """Where the limits come from."""


@dataclass(frozen=True, kw_only=True)
class ArmSpec:
    """One arm of a robot: which of the robot's joints it is made of."""

    name: str
    joints: tuple[str, ...]
    gripper: str


@dataclass(frozen=True, kw_only=True)
class RobotSpec:
    """One robot: joints in the order of every state and action vector."""

    name: str
    joints: tuple[JointSpec, ...]
    arms: tuple[ArmSpec, ...]
    rate_hz: float
    """Control rate; chunks step at this rate unless they say otherwise."""
    home: tuple[float, ...]
    """Rest pose in joint order, rad and m."""
    base_frame: str = "base"

    @property
    def joint_names(self) -> tuple[str, ...]:
        """Joint names in state and action order."""
        return tuple(joint.name for joint in self.joints)

    @property
    def width(self) -> int:
        """Number of joints D."""
        return len(self.joints)

    @cached_property
    def lower(self) -> NDArray[np.float64]:
        """Lower position limits [rad, m], shape (D,)."""
        return _constant([joint.lower for joint in self.joints])

    @cached_property
    def upper(self) -> NDArray[np.float64]:
        """Upper position limits [rad, m], shape (D,)."""
        return _constant([joint.upper for joint in self.joints])

    @cached_property
    def velocity(self) -> NDArray[np.float64]:
        """Speed limits [rad/s, m/s], shape (D,)."""
        return _constant([joint.velocity for joint in self.joints])

    @cached_property
    def acceleration(self) -> NDArray[np.float64]:
        """Acceleration limits [rad/s^2, m/s^2], shape (D,)."""
        return _constant([joint.acceleration for joint in self.joints])

    @cached_property
    def rotary(self) -> NDArray[np.bool_]:
        """Which joints turn (rad) rather than slide (m), shape (D,)."""
        rotary = np.array([joint.unit == "rad" for joint in self.joints])
        rotary.setflags(write=False)
        return rotary

    def to_dict(self) -> dict[str, Any]:
        """Plain data for a checkpoint's JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> RobotSpec:
        """Return the spec stored by `to_dict`. Raises ValueError when a field is missing or unknown."""
        try:
            fields = dict(data)
            fields["joints"] = tuple(JointSpec(**joint) for joint in data["joints"])
            arms: list[dict[str, Any]] = [{**arm, "joints": tuple(arm["joints"])} for arm in data["arms"]]
            fields["arms"] = tuple(ArmSpec(**arm) for arm in arms)
            fields["home"] = tuple(data["home"])
            return cls(**fields)
        except (KeyError, TypeError) as error:
            raise ValueError(f"robot spec does not fit this version: {error}") from error

    def sha256(self) -> str:
        """Fingerprint of the spec, lower-case hex."""
        return hashlib.sha256(json.dumps(self.to_dict(), sort_keys=True).encode()).hexdigest()


def _constant(values: list[float]) -> NDArray[np.float64]:
    """Return an array that nobody can change: every caller gets the same one."""
    array = np.array(values)
    array.setflags(write=False)
    return array


def robot_names() -> tuple[str, ...]:
    """Names of the robots that exist, sorted."""
    from chatvla_control.robots import ROBOTS

    return tuple(sorted(ROBOTS))


def robot_spec(name: str) -> RobotSpec:
    """Return the spec of robot `name`. Raises UnknownRobotError, listing the names that exist."""
    from chatvla_control.robots import ROBOTS

    if name not in ROBOTS:
        raise UnknownRobotError(f"no robot {name!r}; there are: {', '.join(robot_names())}")
    return ROBOTS[name]
