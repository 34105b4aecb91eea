# SPDX-License-Identifier: Apache-2.0
"""Find a way through joint space on which the tools stay in their workspace. No ROS, no clock.

A straight way between two allowed poses may lead a tool through the table or out of its box. Then a road map is drawn:
allowed poses at random, each joined to its neighbours by straight segments; the shortest way is tried, segments that
turn out to leave the limits are struck out, until a way holds (a lazy PRM: Bohlin and Kavraki, 2000).
It knows what the guard knows: workspace, table, approach. It knows no obstacles and not the arm's own body.
Units rad, m. N poses, D joints in RobotSpec order.
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from chatvla_control.cartesian import ArmModel, arm_models
from chatvla_control.cartesian_guard import margins
from chatvla_control.cartesian_spec import cartesian_spec
from chatvla_control.robot_spec import RobotSpec

__all__ = ["clear_way", "tool_arms"]

Array = NDArray[np.float64]
ROOM_M = 0.006
"""Distance [m], and cosine, that the way keeps from a limit: more than the guard's own."""
STEP_RAD = 0.04
"""A segment is looked at this often."""
POSES = 300
DRAWN = 4000
MOST_DRAWS = 40
NEIGHBOURS = 12
MOST_SEGMENTS = 1500


def tool_arms(spec: RobotSpec) -> tuple[ArmModel, ...]:
    """Return the arms whose tools are guarded whatever the chunk's mode; none for a robot without such limits."""
    cartesian = cartesian_spec(spec.name)
    return arm_models(spec, cartesian) if cartesian is not None and cartesian.guards_joint_chunks else ()


def clear_way(spec: RobotSpec, start: Array, goal: Array) -> Array | None:
    """Return poses, shape (N, D), from `start` to `goal` [rad, m], to be joined by straight segments; None if none.

    Only `goal` must lie within the limits: from outside, the first segment leads no farther out. The same arguments
    give the same way.
    """
    arms = tool_arms(spec)
    if _holds(arms, start, goal):
        return np.stack([start, goal])
    poses = np.concatenate([np.stack([start, goal]), _allowed_poses(spec, arms, goal)])
    turning = poses[:, spec.rotary]
    # A move takes as long as its slowest joint.
    seconds = np.abs(turning[:, None] - turning[None]) / spec.velocity[spec.rotary]
    length_NN = seconds.max(axis=2)
    joined = [set(np.argsort(row)[1 : NEIGHBOURS + 1].tolist()) for row in length_NN]
    for end in (0, 1):
        joined[end] = set(range(len(poses))) - {end}
    for first, others in enumerate(joined):
        for second in others:
            joined[second].add(first)
    joined[0].discard(1)
    joined[1].discard(0)
    known: set[tuple[int, int]] = set()
    while len(known) < MOST_SEGMENTS:
        way = _shortest(length_NN, joined)
        if way is None:
            return None
        for first, second in pairwise(way):
            if (first, second) in known:
                continue
            if not _holds(arms, poses[first], poses[second]):
                joined[first].discard(second)
                joined[second].discard(first)
                known.add((second, first))
                break
            known.add((first, second))
        else:
            return poses[way]
    return None


def _holds(arms: Sequence[ArmModel], start: Array, goal: Array) -> bool:
    """Return whether the straight segment keeps the limits, or leads no farther out than its start."""
    count = 2 + int(np.abs(goal - start).max() / STEP_RAD)
    rows = start + np.linspace(0.0, 1.0, count)[:, None] * (goal - start)
    for arm in arms:
        room, _ = margins(arm, rows[:, arm.places])
        # Once a limit is kept, it is kept to the end.
        best = np.minimum(np.maximum.accumulate(room, axis=0), ROOM_M)
        if (room < best - 1e-9).any():
            return False
    return True


def _allowed_poses(spec: RobotSpec, arms: Sequence[ArmModel], goal: Array) -> Array:
    """Return poses with the goal's grippers in which all tools keep their limits, shape (up to POSES, D)."""
    rng = np.random.default_rng(0)
    found: list[Array] = []
    for _ in range(MOST_DRAWS):
        # Around the goal and anywhere: ways home are mostly near home.
        spread = (spec.upper - spec.lower) * rng.uniform(0.1, 1.0, (DRAWN, 1))
        drawn = goal + rng.uniform(-0.5, 0.5, (DRAWN, spec.width)) * spread
        drawn = np.clip(np.where(spec.rotary, drawn, goal), spec.lower, spec.upper)
        inside = np.ones(DRAWN, bool)
        for arm in arms:
            room, _ = margins(arm, drawn[:, arm.places])
            inside &= (room > 2 * ROOM_M).all(axis=1)
        found += list(drawn[inside])
        if len(found) >= POSES:
            break
    return np.array(found[:POSES]).reshape(-1, spec.width)


def _shortest(length_NN: Array, joined: Sequence[set[int]]) -> list[int] | None:
    """Return the nodes of the shortest way from node 0 to node 1, None where they are not joined (Dijkstra)."""
    best, before = {0: 0.0}, {0: 0}
    waiting = [(0.0, 0)]
    while waiting:
        so_far, node = heapq.heappop(waiting)
        if node == 1:
            way = [1]
            while way[-1] != 0:
                way.append(before[way[-1]])
            return way[::-1]
        if so_far > best[node]:
            continue
        for other in joined[node]:
            total = so_far + float(length_NN[node, other]) + 1e-3
            if total < best.get(other, np.inf):
                best[other], before[other] = total, node
                heapq.heappush(waiting, (total, other))
    return None
