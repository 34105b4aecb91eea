# SPDX-License-Identifier: Apache-2.0
"""Write the reasoning of the math task in the paper's form (ChatVLA-2), and read a card's place out of a text."""

from __future__ import annotations

import re
from collections.abc import Sequence

from chatvla_control.scene import SceneObject, SceneTruth

__all__ = ["find_place", "reasoning_text"]

PICK_WORDS = re.compile(
    r"\b(?:pick|choose|choosing|picking|take|taking|grab|grasp|move|put|place|select|want|get)\b", re.IGNORECASE
)


def join_words(words: Sequence[str]) -> str:
    return f"{', '.join(words[:-1])}, and {words[-1]}" if len(words) > 1 else words[0]


def reasoning_text(truth: SceneTruth, card: SceneObject) -> str:
    """Return what a policy should think before it picks `card`."""
    cards = [item for item in truth.objects if item.role == "card"]
    listed = join_words([f"{item.label} ({item.place})" for item in cards])
    return (
        f"On the whiteboard is {truth.equation}. {truth.equation}={truth.answer}. "
        f"There are: {listed}. I should pick {card.place} card."
    )


def find_place(text: str, places: Sequence[str]) -> str | None:
    """Return the place that the last sentence about picking names, such as "far left"; None when none does."""
    pattern = re.compile(
        r"\b("
        + "|".join(re.escape(place).replace(r"\ ", r"[\s-]+") for place in sorted(places, key=len, reverse=True))
        + r")\b",
        re.IGNORECASE,
    )
    for sentence in reversed(re.split(r"[.!?;\n]+", text)):
        if PICK_WORDS.search(sentence):
            found = pattern.findall(sentence)
            if found:
                return re.sub(r"[\s-]+", " ", found[-1].lower())
    return None
