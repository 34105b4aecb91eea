# SPDX-License-Identifier: Apache-2.0
"""Say the same thought about the toy bench in many ways. No ROS, no torch.

A thought names the toy, the reference and the goal with their rectangles (ChatVLA-2, section 4.2: "the model needs to
output the bounding boxes for the objects that are targeted"), then the placement, and ends with where the toy stands
and where it goes: what the action expert reads, the text's last tokens, then says both at fixed places. Rectangles are
the bench's own (toy_placement/reasoning.py). Without a generator the wording is the bench's, too.
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from chatvla_control.scene import SceneTruth
from chatvla_sim.toy_placement.instructions import PHRASINGS, RELATION_PHRASES, instruction
from chatvla_sim.toy_placement.objects import DATA_PARTS, labels
from chatvla_sim.toy_placement.reasoning import (
    SIDE_DIGITS,
    SIDE_STEPS,
    marked,
    side_text,
    standing_at,
    written_boxes,
)
from chatvla_sim.toy_placement.relations import RELATIONS

__all__ = ["ToyFacts", "facts_in_text", "facts_of", "reasoning", "side_words", "texts", "without_way", "words"]

_MARKED = re.compile(
    r"<\|object_ref_start\|>([^<>|]{1,120})<\|object_ref_end\|><\|box_start\|>(\([0-9,() ]{1,40}\))<\|box_end\|>"
)
_TOY = ("The toy is {t}.", "I see {t}.", "The toy to move is {t}.", "There is {t}.", "Here is {t}.")
_REFERENCE = ("The reference is {o}.", "I see {o}.", "It goes {r} {o}.", "There is {o}.", "Here is {o}.")
_PLACE = ("The place is the {g}.", "There is room at the {g}.", "It fits at the {g}.", "The free place is the {g}.")
_PUT = (
    "I should put the {T} {r} the {O}{way}.",
    "I should place the {T} {r} the {O}{way}.",
    "So I should put the {T} {r} the {O}{way}.",
    "I will put the {T} {r} the {O}{way}.",
    "I need to place the {T} {r} the {O}{way}.",
    "I should pick the {T} and put it {r} the {O}{way}.",
)
_WAY = re.compile(r", from \d{3} \d{3} to \d{3} \d{3}")


@dataclass(frozen=True, kw_only=True)
class ToyFacts:
    """What a reasoning about one toy scene states at one time."""

    target: str
    """Label of the toy."""
    reference: str
    relation: str
    boxes: Mapping[str, str]
    """Marked text by label, "goal" among them; what is out of view is missing."""

    def named(self, label: str) -> str:
        """Return the label with its rectangle where that is known."""
        return self.boxes.get(label, label)


def facts_of(truth: SceneTruth) -> ToyFacts:
    """Return what is to be said about a toy scene now."""
    by_role = {item.role: item.label for item in truth.objects if item.role in ("target", "reference")}
    boxes = {box.label: marked(box) for box in written_boxes(truth)}
    return ToyFacts(target=by_role["target"], reference=by_role["reference"], relation=truth.answer, boxes=boxes)


def facts_in_text(facts: Mapping[str, Any], text: str) -> ToyFacts:
    """Return the facts of a stored text: labels and relation by the episode, rectangles as the text has them."""
    boxes = {found[1]: found[0] for found in _MARKED.finditer(text)}
    return ToyFacts(target=facts["target"], reference=facts["reference"], relation=facts["relation"], boxes=boxes)


def reasoning(facts: ToyFacts, rng: random.Random | None = None) -> str:
    """Return the reasoning that leads to the placement; the bench's own wording without `rng`."""
    parts = (_TOY, _REFERENCE, _PLACE, _PUT)
    sentences = [options[0] if rng is None else rng.choice(options) for options in parts]
    toy, place = (standing_at(facts.named(label)) for label in (facts.target, "goal"))
    return " ".join(sentences).format(
        t=facts.named(facts.target),
        o=facts.named(facts.reference),
        g=facts.named("goal"),
        T=facts.target,
        O=facts.reference,
        r=RELATION_PHRASES[facts.relation],
        way=f", from {toy} to {place}" if toy and place else "",
    )


def without_way(text: str) -> str:
    """Return the text without the corners in its last sentence, as a person who forces a thought writes it."""
    return _WAY.sub("", text)


def side_words() -> tuple[str, ...]:
    """Return all numbers that stand for sides of rectangles, side by side: left, top, right, bottom."""
    return tuple(f"{10 * step + digit:03d}" for digit in SIDE_DIGITS for step in range(SIDE_STEPS))


def texts(count: int, rng: random.Random) -> Iterator[str]:
    """Yield instructions and reasonings with objects and rectangles drawn at random, for making a vocabulary.

    Of the held-out part nothing occurs: neither its kinds nor its phrasings.
    """
    toys, references = (
        [label for part in DATA_PARTS["image_text"] for label in labels(toys=is_toy, part=part)]
        for is_toy in (True, False)
    )
    for _ in range(count):
        target, reference, relation = rng.choice(toys), rng.choice(references), rng.choice(RELATIONS)
        part = rng.choice(DATA_PARTS["image_text"])
        yield instruction(part, rng.randrange(len(PHRASINGS[part])), toy=target, relation=relation, reference=reference)
        boxes = {label: _any_box(label, rng) for label in (target, reference, "goal")}
        yield reasoning(ToyFacts(target=target, reference=reference, relation=relation, boxes=boxes), rng)


def _any_box(label: str, rng: random.Random) -> str:
    left, top = rng.uniform(0.0, 0.9), rng.uniform(0.0, 0.9)
    shares = (left, top, left + rng.uniform(0.02, 0.1), top + rng.uniform(0.02, 0.1))
    x1, y1, x2, y2 = (side_text(share, side) for side, share in enumerate(shares))
    return f"<|object_ref_start|>{label}<|object_ref_end|><|box_start|>({x1},{y1}),({x2},{y2})<|box_end|>"


def words() -> tuple[str, ...]:
    """Return every word that instructions and reasonings of training data hold, sorted."""
    found: set[str] = set()
    rng = random.Random(0)
    for text in texts(3000, rng):
        plain = re.sub(r"<\|[a-z_]+\|>|\([0-9,() ]+\)", " ", text)
        found |= set(re.findall(r"[A-Za-z]+", plain))
    return tuple(sorted(found))
