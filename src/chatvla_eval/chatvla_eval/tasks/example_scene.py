# SPDX-License-Identifier: Apache-2.0
"""A math scene made by hand, with the reasoning that solves it: for tests and examples of scores."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from chatvla_control.scene import Pose, SceneObject, SceneTruth

__all__ = ["GOOD_TEXT", "card", "scene"]

ORIGIN = Pose(position=(0.0, 0.0, 0.0), quaternion=(0.0, 0.0, 0.0, 1.0))
GOOD_TEXT = (
    "On the whiteboard is 3+4. 3+4=7. There are: 12 (left), 7 (middle), and 1 (right). I should pick middle card."
)


def card(index: int, label: str, place: str, **changes: Any) -> SceneObject:
    """Return a card that shows `label` and lies at `place`."""
    made = SceneObject(
        name=f"card_{index}",
        label=label,
        role="card",
        place=place,
        pose=ORIGIN,
        size=(0.07, 0.056, 0.022),
        held=False,
        placed=False,
        box=None,
    )
    return replace(made, **changes)


def scene(**changes: Any) -> SceneTruth:
    """Return a scene with 3 + 4 on the board and 12, 7, 1 from left to right; the 7 is right."""
    made = SceneTruth(
        stamp_s=0.0,
        task="math_match",
        split="open_world",
        seed=1,
        swap=False,
        trial=1,
        ready=True,
        instruction="Pick the card with the correct answer.",
        equation="3 + 4",
        answer="7",
        target="card_1",
        goal=ORIGIN,
        objects=(card(0, "12", "left"), card(1, "7", "middle"), card(2, "1", "right")),
        placed="",
        success=False,
    )
    return replace(made, **changes)
