# SPDX-License-Identifier: Apache-2.0
"""Say the same thought about the toy bench in many ways. No ROS, no torch.

A thought names the toy and the reference with their rectangles, then the placement, with the rectangle of the goal
(ChatVLA-2, section 4.2: "the model needs to output the bounding boxes for the objects that are targeted"). Rectangles
are in Qwen2-VL's notation, thousandths of the camera image; an image of another shape than 320x240 would need another
notation. Without a generator the wording is the bench's own.
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
from chatvla_sim.toy_placement.reasoning import marked, written_boxes
from chatvla_sim.toy_placement.relations import RELATIONS

__all__ = ["ToyFacts", "facts_in_text", "facts_of", "reasoning", "texts", "words"]

_MARKED = re.compile(
    r"<\|object_ref_start\|>([^<>|]{1,120})<\|object_ref_end\|><\|box_start\|>(\([0-9,() ]{1,40}\))<\|box_end\|>"
)
_TOY = ("The toy is {t}.", "I see {t}.", "The toy to move is {t}.", "There is {t}.", "Here is {t}.")
_REFERENCE = ("The reference is {o}.", "I see {o}.", "It goes {r} {o}.", "There is {o}.", "Here is {o}.")
_PUT = (
    "I should put the {T} {r} the {O}, at the {g}.",
    "I should place the {T} {r} the {O}, at the {g}.",
    "So I should put the {T} {r} the {O}, at the {g}.",
    "I will put the {T} {r} the {O}, at the {g}.",
    "I need to place the {T} {r} the {O}, at the {g}.",
    "I should pick the {T} and put it {r} the {O}, at the {g}.",
)


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
    sentences = [options[0] if rng is None else rng.choice(options) for options in (_TOY, _REFERENCE, _PUT)]
    return " ".join(sentences).format(
        t=facts.named(facts.target),
        o=facts.named(facts.reference),
        g=facts.named("goal"),
        T=facts.target,
        O=facts.reference,
        r=RELATION_PHRASES[facts.relation],
    )


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
    x1, y1 = rng.randrange(900), rng.randrange(900)
    x2, y2 = x1 + rng.randrange(20, 100), y1 + rng.randrange(20, 100)
    return f"<|object_ref_start|>{label}<|object_ref_end|><|box_start|>({x1},{y1}),({x2},{y2})<|box_end|>"


def words() -> tuple[str, ...]:
    """Return every word that instructions and reasonings of training data hold, sorted."""
    found: set[str] = set()
    rng = random.Random(0)
    for text in texts(3000, rng):
        plain = re.sub(r"<\|[a-z_]+\|>|\([0-9,() ]+\)", " ", text)
        found |= set(re.findall(r"[A-Za-z]+", plain))
    return tuple(sorted(found))
