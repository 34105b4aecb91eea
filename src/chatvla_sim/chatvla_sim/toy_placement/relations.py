# SPDX-License-Identifier: Apache-2.0
"""The six relations, in the robot's frame: where a toy belongs, and whether it is there. No simulator, no ROS.

Seen from the robot's base, looking along +x: left is +y, right is -y, front is nearer to the robot (-x), behind is
farther away (+x). On top: the toy stands on the reference. Below: the reference stands on a rack's deck, and the toy
stands on the tray beneath it.

A toy is left, right, in front or behind when its bounding box rests on the table (within REST_M; its middle is not over
the rack, whose tray is no higher than that), the gap between both bounding boxes along the relation's axis is GAP_M,
and its middle is at most ACROSS_M off that axis through the reference's middle. On top: its middle is over the
reference's bounding box, its bottom within REST_M of the reference's top. Below: its middle is over the tray, its
bottom within REST_M of the tray's top.
Units m; positions in the robot's base frame.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from chatvla_sim.camera import box_corners
from chatvla_sim.toy_placement.rack import RACK_SIZE_M, TRAY_TOP_M, rack_middle, tray_place

__all__ = ["ACROSS_M", "GAP_M", "RELATIONS", "REST_M", "goal_position", "is_fulfilled", "is_over_rack"]

Array = NDArray[np.float64]
RELATIONS = ("left", "right", "front", "behind", "on top", "below")
DIRECTIONS = {"left": (0.0, 1.0), "right": (0.0, -1.0), "front": (-1.0, 0.0), "behind": (1.0, 0.0)}
GAP_M = (-0.005, 0.12)
"""Smallest and largest gap between toy and reference."""
WANTED_GAP_M = 0.045
ACROSS_M = 0.05
REST_M = 0.012


def extent(pose: Array, size: tuple[float, float, float], direction: Array) -> float:
    """Return half the length [m] of a box of `size` at `pose` (4, 4) along a unit vector (3,)."""
    return float(np.abs(direction @ pose[:3, :3]) @ np.array(size) / 2)


def goal_position(
    relation: str, reference: Array, reference_size: tuple[float, float, float], toy_size: tuple[float, float, float]
) -> Array:
    """Return where the middle of an upright toy shall come to rest, shape (3,), for a reference at pose (4, 4).

    On the rack's tray when the relation is "below": the reference stands in the deck's middle.
    """
    x, y, z = reference[:3, 3]
    half = toy_size[2] / 2
    if relation == "on top":
        return np.array([x, y, z + reference_size[2] / 2 + half])
    if relation == "below":
        return np.array([*tray_place((float(x), float(y))), TRAY_TOP_M + half])
    direction = np.array([*DIRECTIONS[relation], 0.0])
    # The toy stands with its length along x.
    reach = extent(reference, reference_size, direction) + extent(np.eye(4), toy_size, direction) + WANTED_GAP_M
    return np.array([x + direction[0] * reach, y + direction[1] * reach, half])


def is_over_rack(toy: Array, deck: tuple[float, float]) -> bool:
    """Return whether the middle of a toy at pose (4, 4) is over the rack's deck or tray."""
    return bool((np.abs(toy[:2, 3] - np.array(rack_middle(deck))) <= np.array(RACK_SIZE_M[:2]) / 2).all())


def is_fulfilled(
    relation: str,
    toy: Array,
    toy_size: tuple[float, float, float],
    reference: Array,
    reference_size: tuple[float, float, float],
    deck: tuple[float, float] | None,
) -> bool:
    """Return whether a toy at pose (4, 4) stands in `relation` to the reference; `deck`: the rack's middle, x and y."""
    bottom = float(box_corners(toy, toy_size)[:, 2].min())
    offset = toy[:3, 3] - reference[:3, 3]
    if relation == "on top":
        top = float(box_corners(reference, reference_size)[:, 2].max())
        local = reference[:3, :3].T @ offset
        inside = (np.abs(local[:2]) <= np.array(reference_size[:2]) / 2).all()
        return bool(inside and abs(bottom - top) <= REST_M)
    if relation == "below":
        if deck is None:
            return False
        return is_over_rack(toy, deck) and abs(bottom - TRAY_TOP_M) <= REST_M
    if abs(bottom) > REST_M or (deck is not None and is_over_rack(toy, deck)):
        return False
    direction = np.array([*DIRECTIONS[relation], 0.0])
    gap = float(offset @ direction) - extent(reference, reference_size, direction) - extent(toy, toy_size, direction)
    across = float(np.linalg.norm(offset[:2] - (offset @ direction) * direction[:2]))
    return bool(GAP_M[0] <= gap <= GAP_M[1] and across <= ACROSS_M)
