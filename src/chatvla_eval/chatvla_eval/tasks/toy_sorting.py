# SPDX-License-Identifier: Apache-2.0
"""Score "sort the toys": recognition of 4, affordance of 1, and steps of 4.

Recognition: 1 point for each toy that the text gives a rectangle with its own label and an overlap of at least
RECOGNISED_IOU. Affordance: 1 point when the text's last placing sentence names the next toy and its side. Both are read
from the text. Steps: how many toys were put where they belong before the first mistake, from the poses.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from chatvla_control.scene import SceneObject, SceneTruth
from chatvla_eval.tasks.base import ScoredReasoning
from chatvla_eval.tasks.toy_placement import RECOGNISED_IOU, overlap, stated_boxes, stated_placement

__all__ = ["ToySorting"]

STEPS = 4


class ToySorting:
    """The sorting task's measures and scores."""

    name = "toy_sorting"
    measures: Mapping[str, int] = MappingProxyType({"recognition": STEPS, "affordance": 1, "steps": STEPS})
    splits: tuple[str, ...] = ("in_domain", "open_world", "held_out")
    timeout_s = 70.0
    in_steps = True

    def score(self, text: str, truth: SceneTruth) -> ScoredReasoning:
        """Return the points of the reasoning `text` in the scene `truth`; `steps` is 0, see `outcome`."""
        toys, boxes = toys_of(truth), stated_boxes(text)
        target = next((item for item in toys if item.name == truth.target), None)
        said = stated_placement(text, [item.label for item in toys])
        stated = {box.label: box for box in reversed(boxes)}
        found = sum(toy.label in stated and overlap(stated[toy.label], toy.box) >= RECOGNISED_IOU for toy in toys)
        parts = {
            "found": found,
            "toy": int(target is not None and said.toy == target.label),
            "side": int(said.relation == truth.answer),
        }
        right = parts["toy"] + parts["side"] == 2
        return ScoredReasoning(
            measures={"recognition": found, "affordance": int(right), "steps": 0},
            parts=parts,
            answer=said.relation,
            perceived=found == STEPS,
            computed=bool(parts["side"]),
            chosen=bool(parts["toy"]),
            choice=next((item.name for item in toys if item.label == said.toy), "") if said.toy else "",
        )

    def outcome(self, truth: SceneTruth) -> Mapping[str, int]:
        """Return the steps done, 0 to 4, by the scene's last truth."""
        return {"steps": sum(item.placed for item in toys_of(truth))}

    def describe(self, truth: SceneTruth) -> dict[str, Any]:
        """Return the toys in the order of the steps."""
        return {"toys": [item.label for item in toys_of(truth)]}


def toys_of(truth: SceneTruth) -> list[SceneObject]:
    """Return the toys of the scene."""
    return [item for item in truth.objects if item.role != "fixture"]
