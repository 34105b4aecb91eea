# SPDX-License-Identifier: Apache-2.0
"""Ask and answer about toy scenes, shown or told: point, name, list, relate, find a place, explain. No ROS, no torch.

The wordings are understanding prompts; no instruction of any part of the bench appears here, so that pretraining does
not rehearse the robot's task. Relations are named in all words but those of held-out phrasings, and the toy or the
reference comes first: which is which is to be known by grammar, not by order.

The texts follow the wires of a new model (first_weights.py). A scene told in words puts as many tokens between a label
and its rectangle's first side as a marked rectangle does ("red car at (432,"), and what stands somewhere is said right
behind where ("496 668: red car").
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from chatvla_sim.toy_placement.instructions import OTHER_PHRASES, RELATION_PHRASES
from chatvla_training.text.toy_phrases import ToyFacts, reasoning

__all__ = [
    "SceneFacts",
    "ThingFacts",
    "finding_dialogue",
    "pointing_dialogue",
    "short_dialogue",
    "told_dialogue",
    "toy_dialogue",
]

Pair = tuple[str, str]
FOUND_AT_ONCE = 3
WHERE = ("Where is the {l}?", "Point at the {l}.", "Show the {l}.", "Find the {l}.")
WHERE_ALL = ("Where are {l}?", "Point at {l}.", "Find {l}.")
WHAT = ("What is at {at}?", "Which thing is at {at}?", "Name what stands at {at}.")
LIST = ("Which things are on the table?", "List the things from left to right in the picture.", "What do you see?")
TOYS = ("Which toys are there?", "List the toys.")
COUNT = ("How many things are there?", "Count the things.")
COLOUR = ("What colour is the {k}?", "Which colour has the {k}?")
KIND = ("What is the {c} thing?", "Which thing is {c}?")
RELATED = ("How does the {a} stand to the {b}?", "Seen from the robot, where is the {a} by the {b}?")
IS_IT = ("Is the {a} {r} the {b}?", "Does the {a} stand {r} the {b}?")
PLACE = (
    "Which place is {r} the {b} for the {a}?",
    "Show the place {r} the {b} where the {a} fits.",
    "Which place belongs to the {a} {r} the {b}?",
    "Take the {a}: where is room for it {r} the {b}?",
)
EXPLAIN = (
    "How does the {a} get {r} the {b}? Explain.",
    "Think step by step: the {a} goes {r} the {b}.",
    "The {a} shall stand {r} the {b}. What is to be done?",
    "Name the toy, the reference and the place: the {a} {r} the {b}.",
    "Take the {a}. It belongs {r} the {b}. Explain.",
)
EXPLAIN_REFERENCE_FIRST = (
    "Find the {b}. What belongs {r} it is the {a}. Explain.",
    "There is the {b}, and {r} it belongs the {a}. What is to be done?",
    "Think step by step: {r} the {b} goes the {a}.",
    "Name the reference, the toy and the place: by the {b}, {r} it, the {a}.",
)
REFERENCE_FIRST_SHARE = 0.4


@dataclass(frozen=True, kw_only=True)
class ThingFacts:
    """One thing that is in view."""

    label: str
    toy: bool
    box: str
    """Its marked rectangle as text, label first."""
    at: str
    """The rectangle's lower right corner, as texts have it."""


@dataclass(frozen=True, kw_only=True)
class SceneFacts:
    """What dialogues about one scene are made of."""

    things: tuple[ThingFacts, ...]
    """From left to right in the picture; no two have one label."""
    relations: Mapping[tuple[str, str], str]
    """How the first label's thing stands to the second's, where that is clear."""
    goal: Callable[[str, str, str], str]
    """(toy, reference, relation) to the marked rectangle of the place, empty where there is none."""
    asked: tuple[str, str, str]
    """The trial's own toy, reference and relation."""


def pointing_dialogue(facts: SceneFacts, rng: random.Random) -> list[Pair]:
    """Return questions about where things are and what is where, and nothing else.

    Every number that is written has to be found: nothing else teaches so fast which words in a picture go together.
    """
    pairs = [_find_all(facts.things, rng), _find_all(facts.things, rng), _naming(rng.choice(facts.things), rng)]
    rng.shuffle(pairs)
    return pairs


def short_dialogue(facts: SceneFacts, rng: random.Random) -> list[Pair]:
    """Return three short questions, mostly pointing and naming: one skill each."""
    pairs = [
        _find_all(facts.things, rng),
        _naming(rng.choice(facts.things), rng),
        rng.choice([*_listing(facts, rng), *_relating(facts, rng), *_placing(facts, rng)]),
    ]
    rng.shuffle(pairs)
    return pairs


def toy_dialogue(facts: SceneFacts, rng: random.Random) -> list[Pair]:
    """Return up to four questions about a whole scene: short ones and, mostly, one that asks for composed reasoning."""
    thing, other = rng.choice(facts.things), rng.choice(facts.things)
    pairs = [
        (rng.choice(WHERE).format(l=thing.label), thing.box),
        _naming(other, rng),
        *_listing(facts, rng),
        *_relating(facts, rng),
        *_placing(facts, rng),
    ]
    chosen = rng.sample(pairs, 2)
    explained = _explaining(facts, rng)
    if explained and rng.random() < 0.85:
        chosen.insert(rng.randint(0, 2), explained)
    return chosen


def finding_dialogue(things: Sequence[ThingFacts], rng: random.Random) -> list[Pair]:
    """Return a table told in words and two questions for some of its things in other orders, and nothing else."""
    (question, answer), again = _find_all(things, rng), _find_all(things, rng)
    return [(f"{told(rng.sample(things, len(things)))} {question}", answer), again]


def told_dialogue(facts: SceneFacts, rng: random.Random) -> list[Pair]:
    """Return questions about a scene that the first one tells in words, without an image.

    To find a thing among others, copy its rectangle and say where a place beside it is, is learned here before anything
    must be seen.
    """
    things = rng.sample(facts.things, len(facts.things))
    pairs = [(rng.choice(WHERE).format(l=thing.label), thing.box) for thing in rng.sample(things, min(2, len(things)))]
    pairs.append(rng.choice([*_listing(facts, rng), *_placing(facts, rng)]))
    explained = _explaining(facts, rng)
    pairs += [explained] if explained else []
    (question, answer), *rest = rng.sample(pairs, len(pairs))
    return [(f"{told(things)} {question}", answer), *rest]


def told(things: Sequence[ThingFacts]) -> str:
    """Return where the things are in words, without marks: a question's text holds no control tokens."""
    return " ".join(f"{thing.label} at {_corners(thing)}." for thing in things)


def _find_all(things: Sequence[ThingFacts], rng: random.Random) -> Pair:
    asked = rng.sample(things, min(len(things), FOUND_AT_ONCE))
    return rng.choice(WHERE_ALL).format(l=_joined([f"the {thing.label}" for thing in asked])), " ".join(
        thing.box for thing in asked
    )


def _corners(thing: ThingFacts) -> str:
    return thing.box.partition("<|box_start|>")[2].partition("<|box_end|>")[0]


def _naming(thing: ThingFacts, rng: random.Random) -> Pair:
    return rng.choice(WHAT).format(at=thing.at), f"{thing.at}: {thing.label}"


def _joined(labels: Sequence[str]) -> str:
    return labels[0] if len(labels) == 1 else ", ".join(labels[:-1]) + " and " + labels[-1]


def _listing(facts: SceneFacts, rng: random.Random) -> list[Pair]:
    """Return questions about all things, and about the colour or kind of one that it tells apart."""
    things = facts.things
    pairs = [
        (rng.choice(LIST), f"There are: {_joined([thing.label for thing in things])}."),
        (rng.choice(COUNT), str(len(things))),
    ]
    toys = [thing.label for thing in things if thing.toy]
    if toys:
        pairs.append((rng.choice(TOYS), f"There are: {_joined(toys)}."))
    split = [thing.label.split(" ", 1) for thing in things]
    for ask, mine, answer in ((COLOUR, 1, 0), (KIND, 0, 1)):
        single = [words for words in split if sum(other[mine] == words[mine] for other in split) == 1]
        if single:
            words = rng.choice(single)
            pairs.append((rng.choice(ask).format(c=words[0], k=words[1]), words[answer]))
    return pairs


def _words(relation: str, rng: random.Random) -> str:
    return rng.choice((RELATION_PHRASES, OTHER_PHRASES))[relation]


def _relating(facts: SceneFacts, rng: random.Random) -> list[Pair]:
    """Return questions about how one thing stands to another; none where that is clear of no two."""
    if not facts.relations:
        return []
    (first, second), relation = rng.choice(list(facts.relations.items()))
    said = rng.choice([relation, rng.choice(list(RELATION_PHRASES))])
    answer = f"{RELATION_PHRASES[relation]} the {second}"
    asked = rng.choice(IS_IT).format(a=first, r=_words(said, rng), b=second)
    return [
        (rng.choice(RELATED).format(a=first, b=second), f"It is {answer}."),
        (asked, "yes" if said == relation else f"no, {answer}"),
    ]


def _wish(facts: SceneFacts, rng: random.Random) -> tuple[str, str, str, str] | None:
    """Return toy, reference, relation and the marked place of a wish that can be met: the trial's own or another."""
    wishes = [facts.asked]
    toys = [thing.label for thing in facts.things if thing.toy]
    others = [thing.label for thing in facts.things if not thing.toy]
    if toys and others:
        wishes += [(rng.choice(toys), rng.choice(others), rng.choice(list(RELATION_PHRASES))) for _ in range(4)]
    shown = {thing.label for thing in facts.things}
    if rng.random() < 0.5:
        wishes.reverse()
    for toy, reference, relation in wishes:
        place = facts.goal(toy, reference, relation) if {toy, reference} <= shown else ""
        if place:
            return toy, reference, relation, place
    return None


def _placing(facts: SceneFacts, rng: random.Random) -> list[Pair]:
    wish = _wish(facts, rng)
    if wish is None:
        return []
    toy, reference, relation, place = wish
    return [(rng.choice(PLACE).format(a=toy, r=_words(relation, rng), b=reference), place)]


def _explaining(facts: SceneFacts, rng: random.Random) -> Pair | None:
    wish = _wish(facts, rng)
    if wish is None:
        return None
    toy, reference, relation, place = wish
    boxes = {thing.label: thing.box for thing in facts.things} | {"goal": place}
    said = ToyFacts(target=toy, reference=reference, relation=relation, boxes=boxes)
    asks = EXPLAIN_REFERENCE_FIRST if rng.random() < REFERENCE_FIRST_SHARE else EXPLAIN
    return rng.choice(asks).format(a=toy, r=_words(relation, rng), b=reference), reasoning(said, rng)
