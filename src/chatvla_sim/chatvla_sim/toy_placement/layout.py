# SPDX-License-Identifier: Apache-2.0
"""Draw where things stand, so that the robot can do the task without touching what it must not. Units m, rad.

Everything stands in reach and in view; toys have room for the gripper around them, so has the goal; no toy is at the
goal, or in the relation, from the start. Drawn by rejection.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from chatvla_control.kinematics import pose_matrix, rotation_xyz
from chatvla_sim.toy_placement.kinds import KINDS
from chatvla_sim.toy_placement.objects import kind_of
from chatvla_sim.toy_placement.rack import DECK_M, DECK_TOP_M, TRAY_FRONT_M
from chatvla_sim.toy_placement.relations import goal_position, is_fulfilled
from chatvla_sim.toy_placement.shapes import Kind

__all__ = ["Layout", "Place", "draw_layout", "standing_pose"]

Array = NDArray[np.float64]
TOY_X, TOY_Y, TOY_YAW = (0.37, 0.56), (-0.26, 0.25), (-0.5, 0.5)
REFERENCE_X, REFERENCE_Y, REFERENCE_YAW = (0.41, 0.57), (-0.19, 0.19), (-0.4, 0.4)
GOAL_X, GOAL_Y = (0.34, 0.66), (-0.27, 0.30)
RACK_X, RACK_Y = (0.655, 0.685), (0.05, 0.13)
HAND_M = 0.08
"""Room around a toy for the gripper."""
TOY_RADIUS_M, BESIDE_RACK_M = 0.045, 0.06
BETWEEN_M = 0.02
THIRD_Y = (-0.26, 0.26)
TRIES, MANY = 20, 60


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where an upright object stands."""

    x_m: float
    y_m: float
    yaw_rad: float
    on_rack: bool = False

    @property
    def floor_m(self) -> float:
        """Height of what it stands on."""
        return DECK_TOP_M if self.on_rack else 0.0


@dataclass(frozen=True, kw_only=True)
class Layout:
    """Places of two toys, the reference, and another reference object where there is one."""

    toys: tuple[Place, ...]
    reference: Place
    third: Place | None
    rack: tuple[float, float] | None
    """Middle of the rack's deck, x and y."""


@dataclass(frozen=True)
class Spot:
    """A disc on the table that others keep away from."""

    x: float
    y: float
    radius: float

    def far_from(self, other: Spot, gap: float) -> bool:
        return bool(np.hypot(self.x - other.x, self.y - other.y) >= self.radius + other.radius + gap)


def standing_pose(kind: Kind, place: Place) -> Array:
    """Return base_from_object (4, 4) of an object of `kind` that stands at `place`."""
    height = place.floor_m + kind.size[2] / 2
    return pose_matrix(rotation_xyz(0, 0, place.yaw_rad), np.array([place.x_m, place.y_m, height]))


def radius_of(kind: Kind) -> float:
    return float(np.hypot(kind.size[0], kind.size[1]) / 2) if kind.size[0] != kind.size[1] else kind.size[0] / 2


Range = tuple[float, float]


def drawn(rng: np.random.Generator, xs: Range, ys: Range, yaws: Range) -> Place:
    return Place(x_m=float(rng.uniform(*xs)), y_m=float(rng.uniform(*ys)), yaw_rad=float(rng.uniform(*yaws)))


def off_rack(spot: Spot, rack: tuple[float, float] | None) -> bool:
    """Return whether a disc is clear of deck and tray."""
    if rack is None:
        return True
    beside = abs(spot.y - rack[1]) > DECK_M[1] / 2 + spot.radius + 0.01
    return beside or rack[0] - spot.x > DECK_M[0] / 2 + TRAY_FRONT_M + spot.radius + 0.01


class Draw:
    """One attempt after another to lay out one trial."""

    def __init__(
        self, rng: np.random.Generator, relation: str, toys: tuple[str, ...], reference: str, third: str
    ) -> None:
        self._rng, self._relation = rng, relation
        self._toys = [KINDS[kind_of(toy)] for toy in toys]
        self._reference = KINDS[kind_of(reference)]
        self._third = KINDS[kind_of(third)] if third else None

    def attempt(self, with_rack: bool) -> Layout | None:
        """Return a layout, or None where this attempt did not fit."""
        rng, below = self._rng, self._relation == "below"
        rack = (float(rng.uniform(*RACK_X)), float(rng.uniform(*RACK_Y))) if with_rack else None
        reference = drawn(rng, REFERENCE_X, REFERENCE_Y, REFERENCE_YAW)
        taken: list[Spot] = []
        if below and rack is not None:
            reference = replace(reference, x_m=rack[0], y_m=rack[1], on_rack=True)
        else:
            spot = Spot(reference.x_m, reference.y_m, radius_of(self._reference))
            if not off_rack(spot, rack):
                return None
            taken.append(spot)
        pose = standing_pose(self._reference, reference)
        goal = self._goal(pose, rack)
        toys = None if goal is None else self._draw_toys(taken, goal, pose, rack)
        if goal is None or toys is None:
            return None
        if self._third is None:
            return Layout(toys=toys, reference=reference, third=None, rack=rack)
        third = self._draw_third(self._third, taken, goal, rack)
        return None if third is None else Layout(toys=toys, reference=reference, third=third, rack=rack)

    def _goal(self, pose: Array, rack: tuple[float, float] | None) -> Spot | None:
        """Return the goal where the gripper can reach it."""
        x, y, _ = goal_position(self._relation, pose, self._reference.size, self._toys[0].size)
        goal = Spot(float(x), float(y), 0.03)
        if self._relation == "below":
            return goal
        inside = GOAL_X[0] <= x <= GOAL_X[1] and GOAL_Y[0] <= y <= GOAL_Y[1]
        return goal if inside and off_rack(replace(goal, radius=HAND_M), rack) else None

    def _draw_toys(
        self, taken: list[Spot], goal: Spot, pose: Array, rack: tuple[float, float] | None
    ) -> tuple[Place, ...] | None:
        """Return places for the toys, each of which suits either, and note them in `taken`."""
        toys: list[Place] = []
        for _ in self._toys:
            for _ in range(TRIES):
                place = drawn(self._rng, TOY_X, TOY_Y, TOY_YAW)
                spot = Spot(place.x_m, place.y_m, HAND_M)
                free = all(spot.far_from(other, 0.0) for other in taken) and spot.far_from(goal, 0.0)
                if (
                    free
                    and off_rack(replace(spot, radius=BESIDE_RACK_M), rack)
                    and not self._is_there(place, pose, rack)
                ):
                    # Of the next toy the hand's room reaches no farther than this toy's edge.
                    taken.append(replace(spot, radius=TOY_RADIUS_M))
                    toys.append(place)
                    break
            else:
                return None
        return tuple(toys)

    def _is_there(self, place: Place, pose: Array, rack: tuple[float, float] | None) -> bool:
        """Return whether one of the toys, if it stood at `place`, were in the relation already."""
        size = self._reference.size
        stands = [(standing_pose(kind, place), kind.size) for kind in self._toys]
        return any(is_fulfilled(self._relation, toy, edges, pose, size, rack) for toy, edges in stands)

    def _draw_third(self, kind: Kind, taken: list[Spot], goal: Spot, rack: tuple[float, float] | None) -> Place | None:
        """Return a place for the other reference object: on the rack where that is free, else on the table."""
        for _ in range(TRIES):
            place = drawn(self._rng, REFERENCE_X, THIRD_Y, REFERENCE_YAW)
            if rack is not None and self._relation != "below":
                return replace(place, x_m=rack[0], y_m=rack[1], on_rack=True)
            spot = Spot(place.x_m, place.y_m, radius_of(kind))
            toys = all(spot.far_from(replace(other, radius=HAND_M), 0.0) for other in taken[-2:])
            free = toys and all(spot.far_from(other, BETWEEN_M) for other in taken)
            if free and spot.far_from(goal, BETWEEN_M) and off_rack(spot, rack):
                return place
        return None


def draw_layout(
    rng: np.random.Generator, *, relation: str, toys: tuple[str, str], reference: str, third: str, rack: bool
) -> Layout:
    """Return places for two toys, the reference and, where `third` names one, another reference object.

    Where the table is too full, the rack goes first (unless the relation needs it), then the third object.
    """
    for with_rack, with_third in ((rack, third), (relation == "below", third), (relation == "below", "")):
        draw = Draw(rng, relation, toys, reference, with_third)
        for _ in range(MANY):
            layout = draw.attempt(with_rack)
            if layout is not None:
                return layout
    raise RuntimeError(f"no layout found for {relation} {reference}; the table's limits are too tight")
