# SPDX-License-Identifier: Apache-2.0
"""Ask and answer about math scenes: reading, arithmetic, pointing, listing, composed reasoning. No ROS, no torch.

The wordings are understanding prompts; the robot's own instructions never appear here, so that pretraining does not
rehearse the robot's task.
"""

from __future__ import annotations

import random
from collections.abc import Sequence

from chatvla_sim.math_match.equations import Equation
from chatvla_training.text.math_phrases import MathFacts, answer_of, listing, reasoning

__all__ = ["arithmetic_dialogue", "card_dialogue", "pointing_dialogue", "scene_dialogue", "told_dialogue"]

Pair = tuple[str, str]
READ = ("What is written on the whiteboard?", "Read the equation.", "Which equation do you see?")
SOLVE = ("What is the answer?", "Solve the equation on the board.", "What does the equation on the board come to?")
LIST = ("List the cards.", "Which cards are on the table?", "Name the cards from left to right.")
WHERE = ("Where is the card {v}?", "Where is {v}?", "Which place has the card {v}?")
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


def card_dialogue(facts: MathFacts, rng: random.Random) -> list[Pair]:
    """Return two short questions about the cards with their answers, one of which lists them all."""
    card, other = rng.choice(facts.cards), rng.choice(facts.cards)
    single = [
        (rng.choice(WHERE).format(v=card.value), card.place),
        (rng.choice(WHAT).format(p=other.place), str(other.value)),
    ]
    pairs = [(rng.choice(LIST), listing(facts, rng)), rng.choice(single)]
    rng.shuffle(pairs)
    return pairs


def pointing_dialogue(facts: MathFacts, rng: random.Random, *, turns: int = 5) -> list[Pair]:
    """Return short questions about single cards, both ways: where a number is, which number is where.

    Every written word is then a number or a place: nothing else teaches a small model so fast which belongs to which.
    """
    pairs = [(rng.choice(WHERE).format(v=card.value), card.place) for card in facts.cards]
    pairs += [(rng.choice(WHAT).format(p=card.place), str(card.value)) for card in facts.cards]
    return rng.sample(pairs, min(turns, len(pairs)))


def scene_dialogue(facts: MathFacts, rng: random.Random) -> list[Pair]:
    """Return up to four questions about a whole scene: short ones and, mostly, one that asks for composed reasoning."""
    answer = answer_of(facts)
    card, other = rng.choice(facts.cards), rng.choice(facts.cards)
    pairs = [
        (rng.choice(READ), facts.equation),
        (rng.choice(SOLVE), f"{facts.equation}={facts.result}."),
        (rng.choice(LIST), listing(facts, rng)),
        (rng.choice(WHERE).format(v=card.value), card.place),
        (rng.choice(WHAT).format(p=other.place), str(other.value)),
        (rng.choice(COUNT), str(len(facts.cards))),
    ]
    if answer is not None:
        pairs.append((rng.choice(WHICH), f"{facts.equation}={facts.result}. The {answer.place} card."))
    chosen = rng.sample(pairs, 3)
    if answer is not None and rng.random() < 0.8:
        chosen.insert(rng.randint(0, 3), (rng.choice(EXPLAIN), reasoning(facts, rng)))
    return chosen


def told_dialogue(facts: MathFacts, rng: random.Random) -> list[Pair]:
    """Return questions about a scene that the first one tells in words, without an image.

    To find a number among others and say what stands beside it is learned here; with an image it is much harder to.
    """
    told = f"{rng.choice(BOARD).format(eq=facts.equation)} {listing(facts, rng)} "
    (question, answer), *rest = scene_dialogue(facts, rng)
    pairs = pointing_dialogue(facts, rng, turns=4 - len(rest))
    first, *rest = rng.sample([(question, answer), *rest, *pairs], len(rest) + len(pairs) + 1)
    return [(told + first[0], first[1]), *rest]


def arithmetic_dialogue(equations: Sequence[Equation], rng: random.Random, *, turns: int = 5) -> list[Pair]:
    """Return questions of plain arithmetic, without an image."""
    pairs = []
    for _ in range(turns):
        equation = rng.choice(equations)
        full = f"{equation.text}={equation.result}."
        pairs.append((rng.choice(SUM).format(eq=equation.text), full if rng.random() < 0.5 else str(equation.result)))
    return pairs
