# SPDX-License-Identifier: Apache-2.0
"""Draw one trial of the toy bench from split, seed and swap: objects, relation, places, wording, colours, light.

The same arguments give the same trial on every machine. Nothing here depends on the simulator.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from chatvla_control.scene import ObjectRole
from chatvla_sim.toy_placement.instructions import instruction
from chatvla_sim.toy_placement.kinds import KINDS
from chatvla_sim.toy_placement.layout import Place, draw_layout
from chatvla_sim.toy_placement.objects import HELD_OUT_KINDS, kind_of, labels, object_part
from chatvla_sim.toy_placement.relations import RELATIONS

__all__ = ["TRIAL_SPLITS", "Look", "Parts", "Thing", "Trial", "build_trial", "draw_trial"]

TRIAL_SPLITS = ("in_domain", "open_world", "held_out")
NEVER_SEEN_SHARES = {"object": 0.2, "kind": 0.1, "phrasing": 0.2}
"""Shares of open-world trials with a target or reference, a kind, or a phrasing that no data shows."""
REFERENCE_DISTRACTOR_SHARE = 0.5
RACK_SHARE = 0.25
"""Share of the other relations' trials in which the rack stands there too."""


@dataclass(frozen=True, kw_only=True)
class Thing:
    """One object of the scene: what it is and where it stands."""

    label: str
    role: ObjectRole
    """"target", "reference" or "distractor"."""
    place: Place


@dataclass(frozen=True, kw_only=True)
class Look:
    """Colours and light of one trial; colours are RGB 0..1."""

    table: tuple[float, float, float]
    shade: float
    """Brightness of all objects, 1 is nominal."""
    light: float
    light_direction: tuple[float, float, float]
    camera_shift_m: tuple[float, float, float]
    camera_turn_m: tuple[float, float, float]
    """Shift of the point that the camera looks at."""


@dataclass(frozen=True, kw_only=True)
class Trial:
    """All that the bench needs to build one scene."""

    split: str
    seed: int
    swap: bool
    relation: str
    instruction: str
    things: tuple[Thing, ...]
    """Target first, then the reference, then the others."""
    rack: tuple[float, float] | None
    """Middle of the rack's deck, x and y; None where none stands."""
    look: Look
    subsets: tuple[str, ...]

    @property
    def target(self) -> Thing:
        """What is to be placed."""
        return self.things[0]

    @property
    def reference(self) -> Thing:
        """What it is placed beside, on or below."""
        return self.things[1]


@dataclass(frozen=True, kw_only=True)
class Parts:
    """Where a trial's objects and words come from: (part of objects.py, kinds) and part of instructions.py."""

    target: tuple[str, str] = ("open_world", "all")
    reference: tuple[str, str] = ("open_world", "all")
    words: str = "open_world"


def draw_look(rng: np.random.Generator) -> Look:
    grey, warm = rng.uniform(0.40, 0.56), rng.uniform(-0.02, 0.05)
    return Look(
        table=(float(grey + warm), float(grey), float(grey - warm)),
        shade=float(rng.uniform(0.92, 1.05)),
        light=float(rng.uniform(0.85, 1.1)),
        light_direction=(float(rng.uniform(-0.5, 0.1)), float(rng.uniform(0.0, 0.5)), -1.0),
        camera_shift_m=tuple(rng.uniform(-0.008, 0.008, 3).tolist()),
        camera_turn_m=tuple(rng.uniform(-0.006, 0.006, 3).tolist()),
    )


def draw_parts(split: str, rng: np.random.Generator) -> Parts:
    """Return which parts target, reference and wording of one trial come from."""
    unseen, side, phrasing = rng.random(3)
    if split == "in_domain":
        return Parts(target=("robot", "all"), reference=("robot", "all"), words="robot")
    if split == "held_out":
        return Parts(target=("held_out", "all"), reference=("held_out", "all"), words="held_out")
    parts = Parts(words="held_out" if phrasing < NEVER_SEEN_SHARES["phrasing"] else "open_world")
    if unseen >= NEVER_SEEN_SHARES["object"] + NEVER_SEEN_SHARES["kind"]:
        return parts
    odd = ("held_out", "open_world" if unseen < NEVER_SEEN_SHARES["object"] else "held_out")
    return replace(parts, target=odd) if side < 0.5 else replace(parts, reference=odd)


def draw_label(
    rng: np.random.Generator, *, toys: bool, part: tuple[str, str], without: str = "", flat: bool = False
) -> str:
    """Return a label of one part; `flat` wants a reference on which a toy can stand."""
    options = [
        name
        for name in labels(toys=toys, part=part[0], kinds=part[1])
        if name != without and (KINDS[kind_of(name)].flat_top or not flat)
    ]
    return options[int(rng.integers(len(options)))]


def marks(split: str, toy: str, reference: str, words: str) -> tuple[str, ...]:
    """Return which never-seen subsets a trial belongs to; none in domain."""
    held_out = [name for name in (toy, reference) if object_part(name) == "held_out"]
    new = [name for name in held_out if kind_of(name) in HELD_OUT_KINDS]
    found = {
        "never_seen_object": len(held_out) > len(new),
        "never_seen_kind": bool(new),
        "never_seen_phrasing": words == "held_out",
    }
    return tuple(name for name, holds in found.items() if holds and split != "in_domain")


def build_trial(
    *, split: str, seed: int, swap: bool, relation: str, parts: Parts, rngs: Sequence[np.random.Generator]
) -> Trial:
    """Return a trial of `relation` whose objects and words come from `parts`.

    `rngs` draw objects, places and looks: drawing more of one thing leaves the others as they were.
    """
    objects, places, looks = rngs
    toy = draw_label(objects, toys=True, part=parts.target)
    reference = draw_label(objects, toys=False, part=parts.reference, flat=relation == "on top")
    second = draw_label(objects, toys=True, part=parts.target, without=toy)
    third = draw_label(objects, toys=False, part=parts.reference, without=reference)
    has_third = bool(objects.random() < REFERENCE_DISTRACTOR_SHARE)
    has_rack = relation == "below" or bool(objects.random() < RACK_SHARE)
    number = int(objects.integers(1000))
    layout = draw_layout(
        places,
        relation=relation,
        toys=(toy, second),
        reference=reference,
        third=third if has_third else "",
        rack=has_rack,
    )
    first, last = (1, 0) if swap else (0, 1)
    things = [
        Thing(label=toy, role="target", place=layout.toys[first]),
        Thing(label=reference, role="reference", place=layout.reference),
        Thing(label=second, role="distractor", place=layout.toys[last]),
    ]
    if layout.third is not None:
        things.append(Thing(label=third, role="distractor", place=layout.third))
    return Trial(
        split=split,
        seed=seed,
        swap=swap,
        relation=relation,
        instruction=instruction(parts.words, number, toy=toy, relation=relation, reference=reference),
        things=tuple(things),
        rack=layout.rack,
        look=draw_look(looks),
        subsets=marks(split, toy, reference, parts.words),
    )


def draw_trial(*, split: str, seed: int, swap: bool = False) -> Trial:
    """Return the trial of `split` and `seed`; `swap` exchanges the places of the target and of the other toy.

    Relations come in turn: six trials in a row hold each of them once.
    Raises ValueError with the list of splits for an unknown one.
    """
    if split not in TRIAL_SPLITS:
        raise ValueError(f"no split {split!r}; toy_placement has: {', '.join(TRIAL_SPLITS)}")
    if seed < 0:
        raise ValueError(f"seed {seed} is negative; use 0 or more")
    parts, *rngs = (np.random.default_rng([seed, TRIAL_SPLITS.index(split), k]) for k in range(4))
    return build_trial(
        split=split,
        seed=seed,
        swap=swap,
        relation=RELATIONS[seed % len(RELATIONS)],
        parts=draw_parts(split, parts),
        rngs=rngs,
    )
