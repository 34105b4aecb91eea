# SPDX-License-Identifier: Apache-2.0
"""Draw one trial of "sort the toys": animals to the left, blocks to the right, a toy a step. No simulator, no ROS.

Two animals and two blocks start in the middle of the table, in an order that is drawn. Robot data may show labels of
part `robot`; both other splits show labels that no data of any kind shows: the open-world part has no animals or
blocks. The same arguments give the same trial on every machine. Units m, rad.
"""

from __future__ import annotations

import numpy as np

from chatvla_sim.toy_placement.layout import Place
from chatvla_sim.toy_placement.objects import kind_of, labels
from chatvla_sim.toy_placement.trial import TRIAL_SPLITS, Thing, Trial, draw_look

__all__ = ["ANIMALS", "BLOCKS", "SORTING_PHRASINGS", "STEPS", "ZONE_Y_M", "draw_sorting_trial", "side_of", "slot"]

ANIMALS, BLOCKS = ("duck", "bear"), ("cube", "brick")
STEPS = 4
"""Toys of a trial."""
ZONE_Y_M = 0.13
"""A toy is on the left where its middle's y is at least this, on the right where it is at most minus this."""
SLOT_Y_M, SLOTS_X_M = 0.215, (0.42, 0.56)
"""Where the first and second toy of each side belong."""
START_X_M, START_Y_M = (0.40, 0.535), (-0.066, 0.066)
JITTER_M, TURN_RAD = 0.006, 0.5
SORTING_PHRASINGS = {
    "robot": (
        "Sort the toys: animals left, blocks right.",
        "Put the animals to the left and the blocks to the right.",
        "Sort the animals to the left and the blocks to the right.",
    ),
    "open_world": (
        "Tidy up: every animal goes left, every block goes right.",
        "Blocks belong on the right, animals on the left. Sort them.",
    ),
    "held_out": ("Could these be sorted, animals left and blocks right, please?",),
}
"""Sentences by part; robot data has the first part's only."""
KEY = 7501


def side_of(label: str) -> str:
    """Return "left" or "right": where a toy belongs. Raises ValueError for what is neither animal nor block."""
    if kind_of(label) in ANIMALS:
        return "left"
    if kind_of(label) in BLOCKS:
        return "right"
    raise ValueError(f"{label} is neither an animal nor a block")


def slot(trial: Trial, index: int) -> tuple[float, float]:
    """Return where thing `index` belongs, x and y: the places of a side are filled in the trial's order."""
    side = side_of(trial.things[index].label)
    before = sum(side_of(thing.label) == side for thing in trial.things[:index])
    return SLOTS_X_M[before], SLOT_Y_M if side == "left" else -SLOT_Y_M


def draw_sorting_trial(*, split: str, seed: int, swap: bool = False) -> Trial:
    """Return the trial of `split` and `seed`; `swap` gives each toy the place of another.

    Raises ValueError with the list of splits for an unknown one.
    """
    if split not in TRIAL_SPLITS:
        raise ValueError(f"no split {split!r}; toy_sorting has: {', '.join(TRIAL_SPLITS)}")
    if seed < 0:
        raise ValueError(f"seed {seed} is negative; use 0 or more")
    rng = np.random.default_rng([seed, TRIAL_SPLITS.index(split), KEY])
    part = "robot" if split == "in_domain" else "held_out"
    chosen: list[str] = []
    for kinds in (ANIMALS, BLOCKS):
        options = [label for label in labels(toys=True, part=part) if kind_of(label) in kinds]
        chosen += [options[k] for k in rng.choice(len(options), 2, replace=False)]
    chosen = [chosen[k] for k in rng.permutation(STEPS)]
    places = [
        Place(
            x_m=float(x + rng.uniform(-JITTER_M, JITTER_M)),
            y_m=float(y + rng.uniform(-JITTER_M, JITTER_M)),
            yaw_rad=float(rng.uniform(-TURN_RAD, TURN_RAD)),
        )
        for x in START_X_M
        for y in START_Y_M
    ]
    places = [places[k] for k in rng.permutation(STEPS)]
    if swap:
        places = places[1:] + places[:1]
    sentences = SORTING_PHRASINGS["robot" if split == "in_domain" else split]
    return Trial(
        split=split,
        seed=seed,
        swap=swap,
        relation="left",
        instruction=sentences[int(rng.integers(len(sentences)))],
        things=tuple(
            Thing(label=label, role="target", place=place) for label, place in zip(chosen, places, strict=True)
        ),
        rack=None,
        look=draw_look(rng),
        subsets=() if split == "in_domain" else ("never_seen_object",),
    )
