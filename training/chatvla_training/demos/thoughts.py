# SPDX-License-Identifier: Apache-2.0
"""Say what a demonstrator thinks, from the scene's truth, in a new wording at every frame."""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import Any

from chatvla_control.scene import SceneTruth
from chatvla_sim.math_match.equations import parse_equation
from chatvla_training.text.math_phrases import Card, MathFacts, reasoning

__all__ = ["episode_facts", "facts_from", "reworded", "thought"]


def episode_facts(truth: SceneTruth) -> dict[str, Any]:
    """Return what is known of a scene as plain data: task, split, seed, equation, cards from left to right."""
    cards = [[item.label, item.place] for item in truth.objects if item.role == "card"]
    return {
        "task": truth.task,
        "split": truth.split,
        "seed": truth.seed,
        "equation": truth.equation,
        "answer": truth.answer,
        "cards": cards,
        "subsets": list(truth.subsets),
    }


def facts_from(facts: Mapping[str, Any]) -> MathFacts | None:
    """Return the facts that the wording needs, or None for an episode of another task."""
    if facts.get("task") != "math_match" or not facts.get("equation"):
        return None
    equation = parse_equation(facts["equation"])
    cards = tuple(Card(value=int(value), place=place) for value, place in facts["cards"])
    return MathFacts(left=equation.left, operator=equation.operator, right=equation.right, cards=cards)


def thought(facts: Mapping[str, Any], rng: random.Random) -> str:
    """Return one wording of the reasoning for `facts`. Raises ValueError for a task without a grammar."""
    math = facts_from(facts)
    if math is None:
        raise ValueError(f"no grammar for the reasoning of task {facts.get('task')!r}; there is: math_match")
    return reasoning(math, rng)


def reworded(facts: Mapping[str, Any], text: str, draw: int) -> str:
    """Return a new wording of a stored text by the episode's facts; the text itself where they don't suffice."""
    return text if facts_from(facts) is None else thought(facts, random.Random(draw))
