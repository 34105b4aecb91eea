# SPDX-License-Identifier: Apache-2.0
"""Sort the toys by script: step by step, each as the toy bench's expert places one toy."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from chatvla_control.contracts import ReasoningSource
from chatvla_control.kinematics import pose_matrix
from chatvla_control.scene import SceneObject, SceneTruth
from chatvla_sim.toy_placement.expert import ToyPlacementExpert
from chatvla_sim.toy_placement.judge import GOAL
from chatvla_sim.toy_placement.objects import kind_of
from chatvla_sim.toy_placement.reasoning import marked
from chatvla_sim.toy_placement.sorting_trial import ANIMALS

__all__ = ["ToySortingExpert", "sorting_text"]


class ToySortingExpert(ToyPlacementExpert):
    """Policy `expert` of the task toy_sorting. A given reasoning is not followed: the order of steps is the scene's."""

    def _think(self, truth: SceneTruth, forced: str | None) -> tuple[SceneObject, str, str, ReasoningSource]:
        """Return the toy of the next step, its side, the text that says so, and the text's source."""
        own = next(item for item in truth.objects if item.name == truth.target)
        note = "" if forced is None else " The given text is not followed in a task of several steps."
        return own, truth.answer, sorting_text(truth) + note, ReasoningSource.SCRIPTED

    def _goal(self, truth: SceneTruth, toy: SceneObject, relation: str) -> NDArray[np.float64]:
        """Return base_from_toy (4, 4) of the step's goal."""
        return pose_matrix(np.eye(3), np.array(truth.goal.position))

    def _is_there(self, truth: SceneTruth, toy: SceneObject, relation: str) -> bool:
        """Return whether all is sorted: a step that is done makes another one the next."""
        return truth.success


def sorting_text(truth: SceneTruth) -> str:
    """Return what a policy should think before the next step: what is there, which toy is next, where it goes."""
    toys = [item for item in truth.objects if item.role != "fixture"]
    goal = next(item for item in truth.objects if item.name == GOAL)
    toy = next(item for item in toys if item.name == truth.target)
    listed = [item.label if item.box is None else marked(item.box) for item in toys]
    what = "an animal" if kind_of(toy.label) in ANIMALS else "a block"
    place = GOAL if goal.box is None else marked(goal.box)
    return (
        f"There are {', '.join(listed[:-1])} and {listed[-1]}. The next toy is the {toy.label}, {what}. "
        f"I should put the {toy.label} to the {truth.answer}, at the {place}."
    )
