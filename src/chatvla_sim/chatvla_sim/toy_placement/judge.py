# SPDX-License-Identifier: Apache-2.0
"""Tell the truth of a toy scene: where things are, where the toy belongs, whether the trial is solved.

Solved: the target is in the relation to the reference (relations.py states the tolerances), it moves slower than
STILL_M_S, no gripper pad touches it, and the reference still stands where it stood when the trial began, within
MOVED_M. Units m, s.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import mujoco
import numpy as np
from numpy.typing import NDArray

from chatvla_control.contracts import BoundingBox
from chatvla_control.kinematics import pose_matrix
from chatvla_control.scene import Pose, SceneObject, SceneTruth
from chatvla_sim.camera import PinholeCamera, box_corners
from chatvla_sim.toy_placement.kinds import KINDS
from chatvla_sim.toy_placement.objects import kind_of
from chatvla_sim.toy_placement.rack import RACK_SIZE_M, rack_middle
from chatvla_sim.toy_placement.relations import goal_position, is_fulfilled
from chatvla_sim.toy_placement.shapes import Part
from chatvla_sim.toy_placement.trial import Thing, Trial

__all__ = ["GOAL", "MOVED_M", "RACK", "STILL_M_S", "ThingState", "labelled_box", "outline", "scene_truth", "to_pose"]

Array = NDArray[np.float64]
STILL_M_S = 0.02
MOVED_M = 0.03
GOAL, RACK = "goal", "rack"
"""Names of the fixtures among the truth's objects: where the toy belongs (with the toy's size), and the rack."""


@dataclass(frozen=True, kw_only=True)
class ThingState:
    """One object as the simulator has it."""

    pose: Array
    """base_from_object, (4, 4)."""
    speed_m_s: float
    held: bool
    """Both pads of one gripper touch it."""
    touched: bool
    """Any pad touches it."""


def part_points(part: Part, half_height: float) -> Array:
    """Return points on a part's outline in its object's frame, shape (N, 3)."""
    if part.shape == "box":
        points = box_corners(np.eye(4), tuple(2 * s for s in part.size))
    else:
        angles = np.linspace(0, 2 * np.pi, 16, endpoint=False)
        ring = np.column_stack([np.cos(angles), np.sin(angles), np.zeros(16)])
        if part.shape == "cylinder":
            radius, half, _ = part.size
            points = np.vstack([ring * radius + [0, 0, z] for z in (-half, half)])
        else:
            tilts = np.linspace(-np.pi / 2, np.pi / 2, 9)
            points = np.vstack([np.cos(t) * ring + [0, 0, np.sin(t)] for t in tilts]) * np.array(part.size)
    turn = np.zeros(4)
    mujoco.mju_euler2Quat(turn, np.array(part.turn), "xyz")
    matrix = np.zeros(9)
    mujoco.mju_quat2Mat(matrix, turn)
    return points @ matrix.reshape(3, 3).T + np.array(part.at) - [0, 0, half_height]


@cache
def outline(kind: str) -> Array:
    """Return points of an object's outline in its own frame, shape (N, 3): what its rectangle must enclose."""
    return np.vstack([part_points(part, KINDS[kind].size[2] / 2) for part in KINDS[kind].parts])


def to_pose(matrix: Array) -> Pose:
    """Return a homogeneous matrix (4, 4) as the contracts' Pose."""
    quaternion = np.zeros(4)
    mujoco.mju_mat2Quat(quaternion, matrix[:3, :3].flatten())
    w, x, y, z = quaternion.tolist()
    px, py, pz = matrix[:3, 3].tolist()
    return Pose(position=(px, py, pz), quaternion=(x, y, z, w))


def labelled_box(camera: PinholeCamera, points: Array, label: str, view: str) -> BoundingBox | None:
    """Return the rectangle of `points` [m], shape (N, 3), None where they are out of view."""
    rectangle = camera.box(points)
    if rectangle is None:
        return None
    x_min, y_min, x_max, y_max = rectangle
    return BoundingBox(label=label, view=view, x_min=x_min, y_min=y_min, x_max=x_max, y_max=y_max)


def scene_truth(
    trial: Trial,
    states: list[ThingState],
    *,
    stood: Array,
    camera: PinholeCamera,
    stamp_s: float,
    count: int,
    view: str,
) -> SceneTruth:
    """Return the truth of `trial` with its things in `states`, in the trial's order.

    `stood` is where the middle of the reference was when the trial began, shape (3,). Rectangles enclose whole objects,
    hidden parts too. The answer is the relation. The goal is an object of its own.
    """
    target, reference = trial.target, trial.reference
    size, reference_size = KINDS[kind_of(target.label)].size, KINDS[kind_of(reference.label)].size
    goal = pose_matrix(np.eye(3), goal_position(trial.relation, states[1].pose, reference_size, size))
    in_place = np.linalg.norm(states[1].pose[:3, 3] - stood) <= MOVED_M

    def is_placed(thing: Thing, state: ThingState) -> bool:
        edges = KINDS[kind_of(thing.label)].size
        is_toy = KINDS[kind_of(thing.label)].grip_m > 0
        still = not state.touched and state.speed_m_s < STILL_M_S
        there = is_fulfilled(trial.relation, state.pose, edges, states[1].pose, reference_size, trial.rack)
        return bool(is_toy and still and in_place and there)

    objects = []
    for index, (thing, state) in enumerate(zip(trial.things, states, strict=True)):
        points = outline(kind_of(thing.label)) @ state.pose[:3, :3].T + state.pose[:3, 3]
        objects.append(
            SceneObject(
                name=f"thing_{index}",
                label=thing.label,
                role=thing.role,
                place="",
                pose=to_pose(state.pose),
                size=KINDS[kind_of(thing.label)].size,
                held=state.held,
                placed=is_placed(thing, state),
                box=labelled_box(camera, points, thing.label, view),
            )
        )
    # The target first: where two toys stand in the relation, it is the one that counts.
    placed = next((item.name for item in objects if item.placed), "")
    fixtures = [(GOAL, goal, size)]
    if trial.rack is not None:
        middle = np.array([*rack_middle(trial.rack), RACK_SIZE_M[2] / 2])
        fixtures.append((RACK, pose_matrix(np.eye(3), middle), RACK_SIZE_M))
    for name, pose, edges in fixtures:
        objects.append(
            SceneObject(
                name=name,
                label=name,
                role="fixture",
                place="",
                pose=to_pose(pose),
                size=edges,
                held=False,
                placed=False,
                box=labelled_box(camera, box_corners(pose, edges), name, view),
            )
        )
    return SceneTruth(
        stamp_s=stamp_s,
        task="toy_placement",
        split=trial.split,
        seed=trial.seed,
        swap=trial.swap,
        trial=count,
        ready=True,
        instruction=trial.instruction,
        equation="",
        answer=trial.relation,
        target="thing_0",
        goal=to_pose(goal),
        objects=tuple(objects),
        placed=placed,
        success=placed == "thing_0",
        subsets=trial.subsets,
    )
