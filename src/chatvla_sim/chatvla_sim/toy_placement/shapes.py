# SPDX-License-Identifier: Apache-2.0
"""What the shape of a toy or reference object is made of: a few primitives. No simulator, no ROS.

Units m; the makers of parts (`box`, `egg`, `can`, `core`) take millimetres. An object's own frame: x its length, y
across which a gripper takes it, z up, origin in the middle of its bounding box. `cores` are what collides (boxes,
unseen); `parts` are seen.
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Core", "Kind", "Part", "Triple", "box", "can", "core", "egg", "scaled"]

Triple = tuple[float, float, float]


@dataclass(frozen=True, kw_only=True)
class Part:
    """One visible primitive: half sizes and middle [m] from the bottom's middle, turn [rad], colour's role."""

    shape: str
    """"box", "ellipsoid" or "cylinder"; a cylinder's size is radius, half length."""
    size: Triple
    at: Triple
    colour: str
    """"main" is the object's own colour; else a name of scene.COLOURS."""
    turn: Triple = (0.0, 0.0, 0.0)


@dataclass(frozen=True, kw_only=True)
class Core:
    """One colliding box: half sizes and middle [m] from the bottom's middle."""

    size: Triple
    at: Triple


@dataclass(frozen=True, kw_only=True)
class Kind:
    """What all objects of one name share."""

    name: str
    size: Triple
    """Bounding box [m]."""
    parts: tuple[Part, ...]
    cores: tuple[Core, ...]
    mass_kg: float
    grip_m: float = 0.0
    """Width between the pads; 0 for what no gripper takes."""
    grip_z_m: float = 0.0
    """Height of the grip above the bottom."""
    flat_top: bool = False
    """A toy can stand on it."""


def scaled(values: tuple[float, ...]) -> Triple:
    """Return up to three lengths in m, zeros behind them."""
    x, y, z = (*values, 0.0, 0.0)[:3]
    return (x / 1000, y / 1000, z / 1000)


def box(size: Triple, at: Triple, colour: str = "main", turn: Triple = (0, 0, 0)) -> Part:
    """Return a box by its half sizes and middle [mm]."""
    return Part(shape="box", size=scaled(size), at=scaled(at), colour=colour, turn=turn)


def egg(size: Triple, at: Triple, colour: str = "main") -> Part:
    """Return an ellipsoid by its half axes and middle [mm]."""
    return Part(shape="ellipsoid", size=scaled(size), at=scaled(at), colour=colour)


def can(radius: float, half: float, at: Triple, colour: str = "main", turn: Triple = (0, 0, 0)) -> Part:
    """Return a cylinder by radius, half length and middle [mm]; its axis is z before it is turned."""
    return Part(shape="cylinder", size=scaled((radius, half)), at=scaled(at), colour=colour, turn=turn)


def core(size: Triple, at: Triple) -> Core:
    """Return a colliding box by its half sizes and middle [mm]."""
    return Core(size=scaled(size), at=scaled(at))
