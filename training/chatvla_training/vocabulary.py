# SPDX-License-Identifier: Apache-2.0
"""Make the vocabulary of a new tiny model from what it will read and write. The same on every machine."""

from __future__ import annotations

import random
from collections.abc import Iterator

from tokenizers import Tokenizer

from chatvla_sim.math_match.equations import apply_operator
from chatvla_sim.math_match.geometry import PLACE_WORDS
from chatvla_training.text.math_phrases import Card, MathFacts, instruction, reasoning
from chatvla_training.tokenizer import train_tokenizer

__all__ = ["tiny_tokenizer"]

SIZE = 512
TEXTS = 3000
PROMPTS = (
    "system user assistant",
    "Answer based on question",
    "Predict robot action",
    "What is written on the whiteboard? Which number is on the card? Where is the card? How many cards are there?",
    "List the cards from left to right. Read the equation. What is the answer? Point to the card.",
)


def tiny_tokenizer() -> Tokenizer:
    """Return the tokenizer of a new tiny model: SIZE tokens learned from the bench's own phrases."""
    return train_tokenizer(_texts(), size=SIZE)


def _texts() -> Iterator[str]:
    rng = random.Random(0)
    for _ in range(TEXTS):
        left, right = rng.randint(0, 20), rng.randint(0, 20)
        operator = rng.choice("+-x")
        places = PLACE_WORDS[rng.randint(3, 5)]
        values = [apply_operator(left, operator, right), *rng.sample(range(500, 600), len(places) - 1)]
        rng.shuffle(values)
        cards = tuple(Card(value=value, place=place) for value, place in zip(values, places, strict=True))
        yield reasoning(MathFacts(left=left, operator=operator, right=right, cards=cards), rng)
        yield instruction(rng)
    yield from PROMPTS * 50
