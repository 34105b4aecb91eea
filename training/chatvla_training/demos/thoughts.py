# SPDX-License-Identifier: Apache-2.0
"""Say what a demonstrator thinks, from the scene's truth, in a new wording at every frame.

A task with a grammar is one entry in GRAMMARS.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from chatvla_control.scene import SceneTruth
from chatvla_sim.math_match.equations import DATA_SPLITS, equation_split, parse_equation
from chatvla_sim.toy_placement.objects import DATA_PARTS, object_part
from chatvla_sim.toy_placement.sorting_expert import sorting_text
from chatvla_training.text import toy_phrases
from chatvla_training.text.math_phrases import Card, MathFacts, conclusion, reasoning

__all__ = ["episode_facts", "facts_from", "not_for_robot_data", "reworded", "thought"]


TruthNow = Callable[[], SceneTruth]
"""Gives the truth of the moment."""


@dataclass(frozen=True, kw_only=True)
class Grammar:
    """How to speak about the scenes of one task."""

    facts: Callable[[SceneTruth], dict[str, Any]]
    """What is known of a scene, beyond task, split and seed, as plain data."""
    thought: Callable[[Mapping[str, Any], random.Random, TruthNow | None], str]
    """One wording, by the episode's facts and, where the task points at things, the truth of the moment."""
    reworded: Callable[[Mapping[str, Any], str, random.Random], str]
    """A new wording of a stored text."""
    refusal: Callable[[SceneTruth], str]
    """Why robot data may not show the scene; empty when it may."""


def episode_facts(truth: SceneTruth) -> dict[str, Any]:
    """Return what is known of a scene as plain data: task, split, seed, and what the task's grammar needs."""
    facts: dict[str, Any] = {"task": truth.task, "split": truth.split, "seed": truth.seed}
    grammar = GRAMMARS.get(truth.task)
    return facts | (grammar.facts(truth) if grammar else {}) | {"subsets": list(truth.subsets)}


def not_for_robot_data(truth: SceneTruth) -> str:
    """Return why robot data may not show the scene, however it was recorded; empty when it may."""
    grammar = GRAMMARS.get(truth.task)
    return grammar.refusal(truth) if grammar else ""


def thought(facts: Mapping[str, Any], rng: random.Random, truth: TruthNow | None = None) -> str:
    """Return one wording of the reasoning for `facts`; `truth` is asked where the task points at things.

    Raises ValueError for a task without a grammar.
    """
    grammar = GRAMMARS.get(facts.get("task", ""))
    if grammar is None:
        known = ", ".join(GRAMMARS)
        raise ValueError(f"no grammar for the reasoning of task {facts.get('task')!r}; there are: {known}")
    return grammar.thought(facts, rng, truth)


def reworded(facts: Mapping[str, Any], text: str, draw: int, *, brief: float = 0.0) -> str:
    """Return a new wording of a stored text by the episode's facts; the text itself where they don't suffice.

    A share `brief` of the draws, 0 to 1, gives the conclusion alone.
    """
    grammar = GRAMMARS.get(facts.get("task", ""))
    if grammar is None:
        return text
    rng = random.Random(draw)
    cut = brief > 0 and rng.random() < brief
    said = grammar.reworded(facts, text, rng)
    return _conclusion(facts, said, rng) if cut else said


def _conclusion(facts: Mapping[str, Any], text: str, rng: random.Random) -> str:
    math = facts_from(facts)
    if math is not None:
        return conclusion(math, rng)
    last = text.rsplit(". ", 1)[-1]
    return toy_phrases.without_way(last) if rng.random() < 0.5 else last


def facts_from(facts: Mapping[str, Any]) -> MathFacts | None:
    """Return the facts that the math wording needs, or None for an episode of another task."""
    if facts.get("task") != "math_match" or not facts.get("equation"):
        return None
    equation = parse_equation(facts["equation"])
    cards = tuple(Card(value=int(value), place=place) for value, place in facts["cards"])
    return MathFacts(left=equation.left, operator=equation.operator, right=equation.right, cards=cards)


def _math_facts(truth: SceneTruth) -> dict[str, Any]:
    cards = [[item.label, item.place] for item in truth.objects if item.role == "card"]
    return {"equation": truth.equation, "answer": truth.answer, "cards": cards}


def _math_thought(facts: Mapping[str, Any], rng: random.Random, truth: TruthNow | None) -> str:
    math = facts_from(facts)
    if math is None:
        raise ValueError("no equation in the facts of an episode of math_match")
    return reasoning(math, rng)


def _math_reworded(facts: Mapping[str, Any], text: str, rng: random.Random) -> str:
    return text if facts_from(facts) is None else _math_thought(facts, rng, None)


def _math_refusal(truth: SceneTruth) -> str:
    if truth.equation and equation_split(parse_equation(truth.equation)) not in DATA_SPLITS["robot"]:
        return f"{truth.equation} is no equation for robot data"
    return ""


def _toy_facts(truth: SceneTruth) -> dict[str, Any]:
    named = toy_phrases.facts_of(truth)
    others = [item.label for item in truth.objects if item.role == "distractor"]
    return {
        "target": named.target,
        "reference": named.reference,
        "relation": named.relation,
        "distractors": others,
        "instruction": truth.instruction,
    }


def _toy_thought(facts: Mapping[str, Any], rng: random.Random, truth: TruthNow | None) -> str:
    if truth is None:
        raise ValueError("a thought about toys points at them: it needs the truth of the moment")
    return toy_phrases.reasoning(toy_phrases.facts_of(truth()), rng)


def _toy_reworded(facts: Mapping[str, Any], text: str, rng: random.Random) -> str:
    return toy_phrases.reasoning(toy_phrases.facts_in_text(facts, text), rng)


def _toy_refusal(truth: SceneTruth) -> str:
    shown = [item.label for item in truth.objects if item.role != "fixture"]
    strange = [label for label in shown if object_part(label) not in DATA_PARTS["robot"]]
    return f"{', '.join(strange)}: not for robot data" if strange else ""


def _sorting_facts(truth: SceneTruth) -> dict[str, Any]:
    toys = [item.label for item in truth.objects if item.role != "fixture"]
    return {"toys": toys, "instruction": truth.instruction}


def _sorting_thought(facts: Mapping[str, Any], rng: random.Random, truth: TruthNow | None) -> str:
    if truth is None:
        raise ValueError("a thought about toys points at them: it needs the truth of the moment")
    return sorting_text(truth())


def _same_text(facts: Mapping[str, Any], text: str, rng: random.Random) -> str:
    """Return the stored text: the sorting task has one wording."""
    return text


GRAMMARS: Mapping[str, Grammar] = {
    "math_match": Grammar(facts=_math_facts, thought=_math_thought, reworded=_math_reworded, refusal=_math_refusal),
    "toy_placement": Grammar(facts=_toy_facts, thought=_toy_thought, reworded=_toy_reworded, refusal=_toy_refusal),
    "toy_sorting": Grammar(facts=_sorting_facts, thought=_sorting_thought, reworded=_same_text, refusal=_toy_refusal),
}
