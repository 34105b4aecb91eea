# SPDX-License-Identifier: Apache-2.0
"""Ask and answer about math scenes: reading, arithmetic, pointing, listing, composed reasoning. No ROS, no torch.

The wordings are understanding prompts; the robot's own instructions never appear here, so that pretraining does not
rehearse the robot's task.
"""

from __future__ import annotations

import random
from collections.abc import Sequence

from chatvla_sim.math_match.equations import Equation
from chatvla_training.text.math_phrases import Card, MathFacts, answer_of, joined, listing, reasoning

__all__ = [
    "arithmetic_dialogue",
    "finding_dialogue",
    "pointing_dialogue",
    "scene_dialogue",
    "told_dialogue",
]

TURNS = 5
"""Most questions of a dialogue."""
Pair = tuple[str, str]
READ = ("What is written on the whiteboard?", "Read the equation.", "Which equation do you see?")
SOLVE = ("What is the answer?", "Solve the equation on the board.", "What does the equation on the board come to?")
LIST = ("List the cards.", "Which cards are on the table?", "Name the cards from left to right.")
WHERE = ("Where is the card {v}?", "Where is {v}?", "Which place has the card {v}?")
WHERE_ALL = ("Where are {v}?", "Find {v}.", "Which places have {v}?")
WHAT = ("Which number is on the {p} card?", "What does the {p} card show?", "Read the {p} card.")
WHICH = ("Which card is correct?", "Which card shows the answer?")
COUNT = ("How many cards are there?",)
EXPLAIN = (
    "Which card should be picked? Explain.",
    "Think step by step: which card is right?",
    "Read the board, solve it, list the cards and choose.",
)
BOARD = ("The board says {eq}.", "On the whiteboard is {eq}.", "The equation is {eq}.")
SUM = ("What is {eq}?", "{eq}=?", "Compute {eq}.")
SUMS = ("Compute {eq}.", "Solve {eq}.", "What are {eq}?")
SUMS_AT_ONCE = 9


def at_place(card: Card) -> str:
    """Return "70 (left)": the number before its place, as lists of cards have it."""
    return f"{card.value} ({card.place})"


def shown(card: Card) -> str:
    """Return "left: 70": the place before what is seen there, as most lists of cards have it."""
    return f"{card.place}: {card.value}"


def pointing_dialogue(facts: MathFacts, rng: random.Random, *, turns: int = TURNS) -> list[Pair]:
    """Return short questions about cards, both ways: where numbers are, which number is where.

    Every written word is then a number or a place: nothing else teaches a small model so fast which belongs to which.
    Most ask for all cards in any order: each place in the answer has to be found, none follows from the one before.
    """
    pairs = []
    for _ in range(turns):
        card = rng.choice(facts.cards)
        kind = rng.random()
        if kind < 0.6:
            pairs.append(_find_all(facts, rng))
        elif kind < 0.8:
            pairs.append((rng.choice(WHERE).format(v=card.value), at_place(card)))
        else:
            pairs.append((rng.choice(WHAT).format(p=card.place), shown(card)))
    return pairs


def scene_dialogue(facts: MathFacts, rng: random.Random) -> list[Pair]:
    """Return two or three questions about a whole scene, one of which mostly asks for composed reasoning."""
    answer = answer_of(facts)
    card, other = rng.choice(facts.cards), rng.choice(facts.cards)
    pairs = [
        (rng.choice(READ), facts.equation),
        (rng.choice(SOLVE), f"{facts.equation}={facts.result}."),
        (rng.choice(LIST), listing(facts, rng)),
        (rng.choice(WHERE).format(v=card.value), at_place(card)),
        (rng.choice(WHAT).format(p=other.place), shown(other)),
        (rng.choice(COUNT), str(len(facts.cards))),
    ]
    if answer is not None:
        pairs.append((rng.choice(WHICH), f"{facts.equation}={facts.result}. {at_place(answer)}."))
    chosen = rng.sample(pairs, 2)
    if answer is not None and rng.random() < 0.9:
        chosen.insert(rng.randint(0, 2), (rng.choice(EXPLAIN), reasoning(facts, rng)))
    return chosen


def _find_all(facts: MathFacts, rng: random.Random) -> Pair:
    mixed = rng.sample(facts.cards, len(facts.cards))
    numbers = joined([str(card.value) for card in mixed], rng)
    return rng.choice(WHERE_ALL).format(v=numbers), joined([at_place(card) for card in mixed], rng)


def finding_dialogue(facts: MathFacts, rng: random.Random) -> list[Pair]:
    """Return a list of cards in words and two questions for all of them in another order, and nothing else."""
    (question, answer), again = _find_all(facts, rng), _find_all(facts, rng)
    return [(f"{listing(facts, rng)} {question}", answer), again]


def told_dialogue(facts: MathFacts, rng: random.Random) -> list[Pair]:
    """Return questions about a scene that the first one tells in words, without an image.

    To find a number among others and say what stands beside it is learned here; with an image it is much harder to.
    """
    told = f"{rng.choice(BOARD).format(eq=facts.equation)} {listing(facts, rng)} "
    pairs = scene_dialogue(facts, rng) if rng.random() < 0.5 else []
    pairs += pointing_dialogue(facts, rng, turns=TURNS - len(pairs))
    first, *rest = rng.sample(pairs, len(pairs))
    return [(told + first[0], first[1]), *rest]


def arithmetic_dialogue(equations: Sequence[Equation], rng: random.Random, *, turns: int = TURNS) -> list[Pair]:
    """Return questions of plain arithmetic, without an image: one by one, or mostly many at once, which costs less."""
    pairs = []
    if rng.random() < 0.75:
        for _ in range(2):
            chosen = [rng.choice(equations) for _ in range(SUMS_AT_ONCE)]
            asked = joined([equation.text for equation in chosen], rng)
            solved = joined([f"{equation.text}={equation.result}" for equation in chosen], rng)
            pairs.append((rng.choice(SUMS).format(eq=asked), f"{solved}."))
        return pairs
    for _ in range(turns):
        equation = rng.choice(equations)
        full = f"{equation.text}={equation.result}."
        pairs.append((rng.choice(SUM).format(eq=equation.text), full if rng.random() < 0.5 else str(equation.result)))
    return pairs
