# SPDX-License-Identifier: Apache-2.0
"""Say what dialogues about a toy scene are made of, from where its things stand. No simulator, no torch.

Units m, rad; pixels of the 320x240 image.
"""

from __future__ import annotations

import random

import numpy as np
from numpy.typing import NDArray

from chatvla_control.contracts import BoundingBox
from chatvla_control.kinematics import pose_matrix, rotation_xyz
from chatvla_sim.camera import PinholeCamera, box_corners
from chatvla_sim.toy_placement.judge import GOAL, outline
from chatvla_sim.toy_placement.kinds import KINDS
from chatvla_sim.toy_placement.layout import standing_pose
from chatvla_sim.toy_placement.objects import kind_of
from chatvla_sim.toy_placement.rack import DECK_TOP_M, tray_place
from chatvla_sim.toy_placement.reasoning import IMAGE_SIZE, marked, standing_at
from chatvla_sim.toy_placement.relations import goal_position, is_fulfilled, is_over_rack
from chatvla_sim.toy_placement.scene import trial_camera
from chatvla_sim.toy_placement.trial import Trial
from chatvla_training.synthetic.toy_pool import ToyScene
from chatvla_training.synthetic.toy_trials import image_text_labels
from chatvla_training.text.toy_questions import SceneFacts, ThingFacts

__all__ = ["imagined_scene", "scattered_things", "scene_boxes", "scene_facts"]

Array = NDArray[np.float64]
LEAST_CELLS = 4
"""A thing of which less is seen (cells of visibility.STEP_PX) is not spoken of."""
CLEARLY = 1.8
"""A thing is beside another in a direction when it lies this much farther along it than across."""
NEAREST_M = 0.06
SCATTERED = (3, 6)
"""Fewest and most things of `scattered_things`."""
VIEW = "right"


def imagined_scene(trial: Trial) -> ToyScene:
    """Return the scene of `trial` as it begins, all of it in view, without a picture: for what only its texts need."""
    poses = []
    for thing in trial.things:
        x, y, z = standing_pose(KINDS[kind_of(thing.label)], thing.place)[:3, 3]
        poses.append((x, y, z, thing.place.yaw_rad))
    seen = np.repeat(1 + np.arange(len(poses), dtype=np.uint8), LEAST_CELLS)[:, None]
    return ToyScene(id="imagined", image=np.zeros((1, 1, 3), np.uint8), trial=trial, poses=np.array(poses), seen=seen)


def scattered_things(rng: random.Random) -> tuple[ThingFacts, ...]:
    """Return things anywhere in a picture, of any size: for texts about nothing but which rectangle is whose."""
    toys = [(label, is_toy) for is_toy in (True, False) for label in image_text_labels(toys=is_toy)]
    things = []
    for label, is_toy in rng.sample(toys, rng.randint(*SCATTERED)):
        width, height = (rng.uniform(0.04, 0.2) for _ in range(2))
        left, top = rng.uniform(0.0, 1.0 - width), rng.uniform(0.0, 1.0 - height)
        shares = np.array([left, top, left + width, top + height])
        text = text_of(label, tuple((shares * [*IMAGE_SIZE, *IMAGE_SIZE]).tolist()))
        things.append(ThingFacts(label=label, toy=is_toy, box=text, at=standing_at(text)))
    return tuple(things)


def matrices(scene: ToyScene) -> list[Array]:
    """Return base_from_thing (4, 4) of each thing."""
    return [pose_matrix(rotation_xyz(0, 0, float(yaw)), np.array([x, y, z])) for x, y, z, yaw in scene.poses]


def rectangle(camera: PinholeCamera, points: Array, shift_px: tuple[int, int]) -> tuple[float, ...] | None:
    """Return x_min, y_min, x_max, y_max of points in the shifted picture, None where they are out of view."""
    found = camera.box(points)
    if found is None:
        return None
    moved = np.array(found) + np.array([*shift_px, *shift_px])
    return tuple(np.clip(moved, 0, [*IMAGE_SIZE, *IMAGE_SIZE]).tolist())


def scene_boxes(scene: ToyScene) -> list[tuple[float, ...] | None]:
    """Return the rectangle of each thing, hidden parts too, None where it is out of view."""
    camera = trial_camera(scene.trial.look)
    kinds = (kind_of(thing.label) for thing in scene.trial.things)
    return [
        rectangle(camera, outline(kind) @ pose[:3, :3].T + pose[:3, 3], scene.shift_px)
        for kind, pose in zip(kinds, matrices(scene), strict=True)
    ]


def text_of(label: str, box: tuple[float, ...]) -> str:
    x_min, y_min, x_max, y_max = box
    return marked(BoundingBox(label=label, view=VIEW, x_min=x_min, y_min=y_min, x_max=x_max, y_max=y_max))


def scene_facts(scene: ToyScene) -> SceneFacts:
    """Return the facts of `scene`; what is hidden is left out."""
    labels = [thing.label for thing in scene.trial.things]
    poses, boxes = matrices(scene), scene_boxes(scene)
    cells = np.bincount(scene.seen.ravel(), minlength=1 + len(labels))[1:]
    shown = [
        (label, pose, box)
        for label, pose, box, count in zip(labels, poses, boxes, cells, strict=False)
        if box is not None and count >= LEAST_CELLS
    ]
    shown.sort(key=lambda item: item[2][0] + item[2][2])
    things = tuple(
        ThingFacts(
            label=label,
            toy=KINDS[kind_of(label)].grip_m > 0,
            box=text_of(label, box),
            at=standing_at(text_of(label, box)),
        )
        for label, _, box in shown
    )
    by_label = {label: pose for label, pose, _ in shown}
    relations = {
        (first, second): relation
        for first in by_label
        for second in by_label
        if first != second and (relation := relation_between(first, second, by_label, scene.trial.rack))
    }

    def goal(toy: str, reference: str, relation: str) -> str:
        return goal_text(scene, toy, reference, by_label[reference], relation)

    asked = (scene.trial.target.label, scene.trial.reference.label, scene.trial.relation)
    return SceneFacts(things=things, relations=relations, goal=goal, asked=asked)


def relation_between(first: str, second: str, poses: dict[str, Array], rack: tuple[float, float] | None) -> str:
    """Return how `first` stands to `second`, empty where that is not clear."""
    pose, other = poses[first], poses[second]
    sizes = KINDS[kind_of(first)].size, KINDS[kind_of(second)].size
    on_deck = rack is not None and other[2, 3] > DECK_TOP_M and float(np.hypot(*(other[:2, 3] - rack))) < NEAREST_M
    for relation in ("on top", "below"):
        if (relation == "on top" or on_deck) and is_fulfilled(relation, pose, sizes[0], other, sizes[1], rack):
            return relation
    if rack is not None and is_over_rack(pose, rack):
        # On the tray or on the deck: beside nothing that stands on the table.
        return ""
    x, y, z = pose[:3, 3] - other[:3, 3]
    bottoms = abs(z - (sizes[0][2] - sizes[1][2]) / 2)
    along, across = max(abs(x), abs(y)), min(abs(x), abs(y))
    if bottoms > NEAREST_M / 2 or along < NEAREST_M or along < CLEARLY * across:
        return ""
    if abs(y) > abs(x):
        return "left" if y > 0 else "right"
    return "behind" if x > 0 else "front"


def goal_text(scene: ToyScene, toy: str, reference: str, pose: Array, relation: str) -> str:
    """Return the marked rectangle of where `toy` belongs, empty where no such place exists or is in view."""
    size, reference_kind = KINDS[kind_of(toy)].size, KINDS[kind_of(reference)]
    rack = scene.trial.rack
    if toy == reference or (relation == "on top" and not reference_kind.flat_top):
        return ""
    on_deck = rack is not None and pose[2, 3] > DECK_TOP_M
    if (relation == "below") != on_deck and relation != "on top":
        return ""
    position = goal_position(relation, pose, reference_kind.size, size)
    if relation == "below" and rack is not None:
        position[:2] = tray_place(rack)
    corners = box_corners(pose_matrix(np.eye(3), position), size)
    box = rectangle(trial_camera(scene.trial.look), corners, scene.shift_px)
    return "" if box is None else text_of(GOAL, box)
