# SPDX-License-Identifier: Apache-2.0
"""Make the vocabulary of a new tiny model from what it will read and write. The same on every machine.

A task has its texts in TEXTS_OF and the number of tokens that they need in SIZES.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Iterator, Mapping, Sequence

from tokenizers import Tokenizer

from chatvla_sim.math_match.equations import apply_operator
from chatvla_sim.math_match.geometry import PLACE_WORDS
from chatvla_training.synthetic.toy_facts import imagined_scene, scene_facts
from chatvla_training.synthetic.toy_trials import image_text_toy_trial
from chatvla_training.text import toy_phrases
from chatvla_training.text.math_phrases import Card, MathFacts, instruction, reasoning
from chatvla_training.text.toy_questions import short_dialogue, toy_dialogue
from chatvla_training.tokenizer import WHOLE_NUMBERS, train_tokenizer

__all__ = ["tasks_of", "tiny_tokenizer"]

SIZES = {"math_match": 608, "toy_placement": 1040}
"""Tokens of a vocabulary for one task; for several, what goes beyond bytes and control tokens adds up."""
BASE = 268
"""Bytes and control tokens."""
TEXTS = 3000
SCENES = 300
FRAMES = ("system user assistant", "Answer based on question", "Predict robot action")
PROMPTS = (
    *FRAMES,
    "What is written on the whiteboard? Which number is on the card? Where is the card? How many cards are there?",
    "List the cards from left to right. Read the equation. What is the answer? Point to the card.",
)


def tasks_of(image_text: str) -> tuple[str, ...]:
    """Return the tasks that a recipe's image-text data is about; the math bench where it does not say."""
    names = [part.strip() for part in image_text.split(",") if part.strip().startswith("synthetic:")]
    toys = [name for name in names if name.startswith("synthetic:toys_")]
    found = ("math_match",) if len(toys) < len(names) or not toys else ()
    return found + (("toy_placement",) if toys else ())


def tiny_tokenizer(tasks: Sequence[str] = ("math_match",)) -> Tokenizer:
    """Return the tokenizer of a new tiny model, learned from the phrases of `tasks`.

    Raises KeyError for a task without texts.
    """
    texts = (text for task in tasks for text in TEXTS_OF[task]())
    size = BASE + sum(SIZES[task] - BASE for task in tasks)
    whole_numbers = NUMBERS_OF[tasks[0]]() if len(tasks) == 1 else ()
    return train_tokenizer(texts, size=size, whole_numbers=whole_numbers)


def _math_texts() -> Iterator[str]:
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


def _toy_texts() -> Iterator[str]:
    """Yield instructions, reasonings and dialogues of image-text data, without control tokens."""
    rng = random.Random(0)
    for text in toy_phrases.texts(TEXTS, rng):
        yield _unmarked(text)
    for seed in range(SCENES):
        facts = scene_facts(imagined_scene(image_text_toy_trial(seed)))
        for question, answer in (*toy_dialogue(facts, rng), *short_dialogue(facts, rng)):
            yield _unmarked(question)
            yield _unmarked(answer)
    yield from FRAMES * 50


def _unmarked(text: str) -> str:
    return re.sub(r"<\|[a-z_]+\|>", " ", text)


NUMBERS_OF: Mapping[str, Callable[[], tuple[str, ...]]] = {
    "math_match": lambda: WHOLE_NUMBERS,
    "toy_placement": toy_phrases.side_words,
}
"""Numbers that are one token where the vocabulary serves one task."""
TEXTS_OF: Mapping[str, Callable[[], Iterator[str]]] = {"math_match": _math_texts, "toy_placement": _toy_texts}
