# SPDX-License-Identifier: Apache-2.0
"""Tell the truth of a math scene: where cards are, which rests in the slot, whether the trial is solved.

A card rests in the slot when its centre lies within SLOT_ACROSS_M of the slot's middle along the lip, within
SLOT_SLOPE_M of its
resting height up the slope and within SLOT_NORMAL_M of the board's face, its printed face within FACE_DEG of the
board's normal, it moves slower than STILL_M_S, and no gripper pad touches it. Units m, s.
"""

from __future__ import annotations

from dataclasses import dataclass

import mujoco
import numpy as np
from numpy.typing import NDArray

from chatvla_control.contracts import BoundingBox
from chatvla_control.kinematics import pose_matrix
from chatvla_control.scene import Pose, SceneObject, SceneTruth
from chatvla_sim.camera import PinholeCamera, box_corners
from chatvla_sim.math_match.geometry import CARD_SIZE_M, board_pose, goal_pose
from chatvla_sim.math_match.trial import Trial

__all__ = ["CardState", "in_slot", "scene_truth"]

SLOT_ACROSS_M = 0.025
SLOT_SLOPE_M = 0.012
SLOT_NORMAL_M = 0.008
FACE_DEG = 12.0
STILL_M_S = 0.01
BOARD_FROM_BASE = np.linalg.inv(board_pose())
GOAL_IN_BOARD = BOARD_FROM_BASE @ goal_pose()


@dataclass(frozen=True, kw_only=True)
class CardState:
    """One card as the simulator has it: position [m], rotation (3, 3), speed, and what touches it."""

    position: NDArray[np.float64]
    rotation: NDArray[np.float64]
    speed_m_s: float
    held: bool
    """Both pads of one gripper touch it."""
    touched: bool
    """Any pad touches it."""


def in_slot(card: CardState) -> bool:
    """Return whether the card rests in the slot, by the tolerances above."""
    pose = BOARD_FROM_BASE @ pose_matrix(card.rotation, card.position)
    offset = np.abs(pose[:3, 3] - GOAL_IN_BOARD[:3, 3])
    return bool(
        (offset <= (SLOT_ACROSS_M, SLOT_SLOPE_M, SLOT_NORMAL_M)).all()
        and pose[2, 2] >= np.cos(np.radians(FACE_DEG))
        and card.speed_m_s < STILL_M_S
        and not card.touched
    )


def to_pose(matrix: NDArray[np.float64]) -> Pose:
    quaternion = np.zeros(4)
    mujoco.mju_mat2Quat(quaternion, matrix[:3, :3].flatten())
    w, x, y, z = quaternion.tolist()
    px, py, pz = matrix[:3, 3].tolist()
    return Pose(position=(px, py, pz), quaternion=(x, y, z, w))


def scene_truth(
    trial: Trial, states: list[CardState], *, camera: PinholeCamera, stamp_s: float, count: int, view: str
) -> SceneTruth:
    """Return the truth of `trial` with its cards in `states`, in the trial's order."""
    objects = []
    placed_name = ""
    for index, (card, state) in enumerate(zip(trial.cards, states, strict=True)):
        pose = pose_matrix(state.rotation, state.position)
        placed = in_slot(state)
        rectangle = camera.box(box_corners(pose, CARD_SIZE_M))
        box = None
        if rectangle is not None:
            x_min, y_min, x_max, y_max = rectangle
            box = BoundingBox(label=str(card.value), view=view, x_min=x_min, y_min=y_min, x_max=x_max, y_max=y_max)
        if placed:
            placed_name = f"card_{index}"
        objects.append(
            SceneObject(
                name=f"card_{index}",
                label=str(card.value),
                role="card",
                place=card.place,
                pose=to_pose(pose),
                size=CARD_SIZE_M,
                held=state.held,
                placed=placed,
                box=box,
            )
        )
    target = next(f"card_{index}" for index, card in enumerate(trial.cards) if card.value == trial.equation.result)
    return SceneTruth(
        stamp_s=stamp_s,
        task="math_match",
        split=trial.split,
        seed=trial.seed,
        swap=trial.swap,
        trial=count,
        ready=True,
        instruction=trial.instruction,
        equation=trial.equation.text,
        answer=str(trial.equation.result),
        target=target,
        goal=to_pose(goal_pose()),
        objects=tuple(objects),
        placed=placed_name,
        success=placed_name == target,
        subsets=trial.subsets,
    )
