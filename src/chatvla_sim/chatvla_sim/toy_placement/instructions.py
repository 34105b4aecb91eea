# SPDX-License-Identifier: Apache-2.0
"""Word the instruction: which phrasings exist, and which data may use them.

`robot` phrasings are in robot data; `open_world` ones are in no robot data; `held_out` ones are in no data at all.
The relation's own words are in all parts: "to the left of", "in front of", "on top of", "below".
"""

from __future__ import annotations

__all__ = ["PHRASINGS", "RELATION_PHRASES", "instruction"]

RELATION_PHRASES = {
    "left": "to the left of",
    "right": "to the right of",
    "front": "in front of",
    "behind": "behind",
    "on top": "on top of",
    "below": "below",
}
"""How each relation stands between toy and reference."""
OTHER_PHRASES = {
    "left": "on the left side of",
    "right": "on the right side of",
    "front": "before",
    "behind": "at the back of",
    "on top": "onto",
    "below": "under",
}
PHRASINGS = {
    "robot": (
        ("Put the {t} {r} the {o}.", RELATION_PHRASES),
        ("Place the {t} {r} the {o}.", RELATION_PHRASES),
        ("Move the {t} {r} the {o}.", RELATION_PHRASES),
        ("Pick up the {t} and put it {r} the {o}.", RELATION_PHRASES),
    ),
    "open_world": (
        ("Put the {t} {r} the {o}.", OTHER_PHRASES),
        ("Take the {t} and place it {r} the {o}.", OTHER_PHRASES),
        ("Find the {o} and put the {t} {r} it.", RELATION_PHRASES),
        ("The {t} belongs {r} the {o}.", RELATION_PHRASES),
    ),
    "held_out": (
        ("I want the {t} {r} the {o}.", OTHER_PHRASES),
        ("Look for the {o}, then move the {t} {r} it.", OTHER_PHRASES),
        ("Could the {t} stand {r} the {o}, please?", RELATION_PHRASES),
    ),
}
"""Sentences by part: {t} toy, {r} relation, {o} reference."""


def instruction(part: str, number: int, *, toy: str, relation: str, reference: str) -> str:
    """Return phrasing `number` (counted modulo their count) of `part`."""
    sentence, words = PHRASINGS[part][number % len(PHRASINGS[part])]
    return sentence.format(t=toy, r=words[relation], o=reference)
