# SPDX-License-Identifier: Apache-2.0
"""Say what is true of a simulated scene, for scorers and privileged policies only. No ROS, no torch.

Units: m; orientation as unit quaternion x y z w; everything in the robot's base frame (+x forward, +y left, +z up).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from chatvla_control.contracts import BoundingBox

__all__ = ["SEEDS_PER_RUN", "ObjectRole", "Pose", "SceneObject", "SceneTruth"]

SEEDS_PER_RUN = 100_000
"""Trial i of the run of seed K shows the scene of seed SEEDS_PER_RUN * K + i."""

ObjectRole = Literal["card", "target", "reference", "distractor", "fixture"]


@dataclass(frozen=True, kw_only=True)
class Pose:
    """Position [m] and orientation (unit quaternion x y z w)."""

    position: tuple[float, float, float]
    quaternion: tuple[float, float, float, float]


@dataclass(frozen=True, kw_only=True)
class SceneObject:
    """One object of a bench; fields as in BenchObject.msg."""

    name: str
    label: str
    role: ObjectRole
    place: str
    pose: Pose
    size: tuple[float, float, float]
    held: bool
    placed: bool
    box: BoundingBox | None
    """Rectangle in the scored camera's image; None when out of view."""


@dataclass(frozen=True, kw_only=True)
class SceneTruth:
    """The truth of one scene at one time; fields as in BenchState.msg."""

    stamp_s: float
    task: str
    split: str
    seed: int
    swap: bool
    trial: int
    ready: bool
    instruction: str
    equation: str
    answer: str
    target: str
    goal: Pose
    objects: tuple[SceneObject, ...]
    placed: str
    """Name of the object that rests at the goal; empty when none does."""
    success: bool
    subsets: tuple[str, ...] = ()
    """Marks the trial carries for scoring, such as "never_seen_pair", "never_seen_font"."""
