# SPDX-License-Identifier: Apache-2.0
"""Write reasonings of one scene from harmless to contradictory. A task is one entry in DOSES.

The base is the right reasoning; `other` is the object that a contradiction names instead of the target.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

from chatvla_control.scene import SceneObject, SceneTruth
from chatvla_eval.oracle import reasoning_for, right_reasoning
from chatvla_eval.tasks.math_match import operator_and_operands, places_in_order

__all__ = ["BASE", "DOSES", "DOSE_NAMES", "SWAPPED", "dose_texts"]

BASE = "base"
SWAPPED = "swapped"
DOSE_NAMES = ("paraphrase", "choice alone", "no choice", "other answer", "other choice", SWAPPED)
"""From the same content in other words to the reasoning of another object."""
DoseTexts = Callable[[SceneTruth, SceneObject], Mapping[str, str]]


def dose_texts(truth: SceneTruth, other: SceneObject) -> Mapping[str, str]:
    """Return the texts by dose, the base among them. Raises ValueError for a task without doses."""
    if truth.task not in DOSES:
        raise ValueError(f"no counterfactual texts for task {truth.task!r}; there are for: {', '.join(DOSES)}")
    return {BASE: right_reasoning(truth), **DOSES[truth.task](truth, other)}


def math_doses(truth: SceneTruth, other: SceneObject) -> Mapping[str, str]:
    """Return the doses of a math scene; "other answer" states the other card's number and keeps the choice."""
    left, operator, right = operator_and_operands(truth.equation)
    sum_text = f"{left}{operator}{right}"
    cards = places_in_order(truth)
    target = next(card for card in cards if card.name == truth.target)
    listed = ", ".join(f"{card.label} on the {card.place}" for card in cards[:-1])
    listed += f" and {cards[-1].label} on the {cards[-1].place}"
    whole = right_reasoning(truth)
    wrong = replace(truth, answer=other.label)
    return {
        "paraphrase": (
            f"The board says {sum_text}. The answer is {truth.answer}. The cards show {listed}. "
            f"I will pick the {target.place} card."
        ),
        "choice alone": f"I should pick {target.place} card.",
        "no choice": whole[: whole.rindex("I should")].rstrip(),
        "other answer": reasoning_for(wrong, target),
        "other choice": reasoning_for(truth, other),
        SWAPPED: reasoning_for(wrong, other),
    }


DOSES: Mapping[str, DoseTexts] = {"math_match": math_doses}
