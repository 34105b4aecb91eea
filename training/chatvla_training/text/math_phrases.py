# SPDX-License-Identifier: Apache-2.0
"""Say the same thought about the math bench in many ways. No ROS, no torch.

A fixed template would let the action expert latch on to one wording; the paper paraphrases its templates with a
language model (ChatVLA-2, supplement C.2). Here a small grammar does it: every call draws one wording per part.
Every wording is understood by the evaluation's parser (a test holds the two together).
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

from chatvla_sim.math_match.equations import apply_operator
from chatvla_sim.math_match.trial import INSTRUCTIONS

__all__ = ["Card", "MathFacts", "answer_of", "conclusion", "instruction", "joined", "listing", "reasoning"]

_READ = (
    "On the whiteboard is {eq}.",
    "The whiteboard shows {eq}.",
    "The board says {eq}.",
    "I read {eq} on the whiteboard.",
    "The equation is {eq}.",
    "The question on the board is {eq}.",
)
_SOLVE = (
    "{eq}={c}.",
    "So {eq}={c}.",
    "{eq} equals {c}.",
    "So {eq} equals {c}.",
    "{eq} is {c}.",
    "The result of {eq} is {c}.",
)
"""The result right behind the equation: "the answer is ..." a sentence later is computed wrong far more often."""
_LIST = (
    ("There are: ", "{v} ({p})", "."),
    ("The cards are ", "{v} ({p})", "."),
    ("I see the cards ", "{v} ({p})", "."),
    ("There is ", "{v} on the {p}", "."),
    ("The cards show ", "{v} on the {p}", "."),
)
_LIST_PLACE_FIRST = (
    ("There are: ", "{p}: {v}", "."),
    ("The cards are ", "{p}: {v}", "."),
    ("I see the cards ", "{p}: {v}", "."),
    ("On the cards: ", "{p}: {v}", "."),
    ("From left to right: ", "{p}: {v}", "."),
)
"""Each number already knows its place when it is read back: a small model finds it again in one step."""
NUMBER_FIRST_SHARE = 0.15
_CHOOSE_NUMBER = (
    "I should pick {v} ({p}).",
    "So I should pick {v} ({p}).",
    "I will pick {v} ({p}).",
    "I should pick {v} on the {p}.",
    "I need to pick {v} on the {p}.",
)
"""The number before its place: the number that was computed finds its place in the list or in the picture."""
PLACE_ONLY_SHARE = 0.15
_CHOOSE = (
    "I should pick {p} card.",
    "I should pick the {p} card.",
    "I will pick the {p} card.",
    "So I should pick the {p} card.",
    "The right card is the {p} card.",
    "I need to pick the {p} card.",
)


@dataclass(frozen=True, kw_only=True)
class Card:
    """One number card and the place word the reasoning uses for it."""

    value: int
    place: str


@dataclass(frozen=True, kw_only=True)
class MathFacts:
    """What a reasoning about one math scene states."""

    left: int
    operator: str
    """"+", "-" or "x"."""
    right: int
    cards: tuple[Card, ...]
    """Cards from left to right in the robot's frame."""

    @property
    def equation(self) -> str:
        """The equation without spaces, such as "3+4"."""
        return f"{self.left}{self.operator}{self.right}"

    @property
    def result(self) -> int:
        """The right answer."""
        return apply_operator(self.left, self.operator, self.right)


def answer_of(facts: MathFacts) -> Card | None:
    """Return the card that shows the right answer, or None when no card does."""
    return next((card for card in facts.cards if card.value == facts.result), None)


def joined(parts: Sequence[str], rng: random.Random | None) -> str:
    """Return "a, b, and c"; with `rng` sometimes "a, b and c"."""
    if len(parts) == 1:
        return parts[0]
    last = ", and " if rng is None or rng.random() < 0.7 else " and "
    return ", ".join(parts[:-1]) + last + parts[-1]


def listing(facts: MathFacts, rng: random.Random | None = None) -> str:
    """Return the sentence that lists the cards from left to right; the paper's own wording without `rng`."""
    if rng is None:
        head, each, tail = _LIST[0]
    else:
        head, each, tail = rng.choice(_LIST if rng.random() < NUMBER_FIRST_SHARE else _LIST_PLACE_FIRST)
    return head + joined([each.format(v=card.value, p=card.place) for card in facts.cards], rng) + tail


def reasoning(facts: MathFacts, rng: random.Random | None = None) -> str:
    """Return the reasoning that leads to the right card; the paper's own wording without `rng`.

    Raises ValueError when no card shows the answer: such a scene has no right reasoning.
    """
    card = answer_of(facts)
    if card is None:
        raise ValueError(f"no card shows the answer of {facts.equation}; cards: {[c.value for c in facts.cards]}")

    def draw(options: Sequence[str]) -> str:
        return options[0] if rng is None else rng.choice(options)

    choose = _CHOOSE if rng is None or rng.random() < PLACE_ONLY_SHARE else _CHOOSE_NUMBER
    return " ".join(
        (
            draw(_READ).format(eq=facts.equation),
            draw(_SOLVE).format(eq=facts.equation, c=facts.result),
            listing(facts, rng),
            draw(choose).format(v=card.value, p=card.place),
        )
    )


def conclusion(facts: MathFacts, rng: random.Random) -> str:
    """Return the last sentence of a reasoning alone, by number, by place or by both, each wording as often.

    Raises ValueError when no card shows the answer.
    """
    card = answer_of(facts)
    if card is None:
        raise ValueError(f"no card shows the answer of {facts.equation}; cards: {[c.value for c in facts.cards]}")
    return rng.choice(_CHOOSE + _CHOOSE_NUMBER).format(v=card.value, p=card.place)


def instruction(rng: random.Random | None = None) -> str:
    """Return one wording of the task; the paper's own without `rng`."""
    return INSTRUCTIONS[0] if rng is None else rng.choice(INSTRUCTIONS)
