# SPDX-License-Identifier: Apache-2.0
"""Draw toy scenes that image-text data may show. No simulator, no torch.

Never shown: a label or a kind of the held-out part, as target, reference or beside them (docs/training.md). This is the
only place where image-text data chooses toys and references, so a test of this file covers all of them. Units m, rad.
"""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import numpy as np

from chatvla_sim.toy_placement.kinds import KINDS
from chatvla_sim.toy_placement.layout import GOAL_Y, HAND_M, TOY_X, Place
from chatvla_sim.toy_placement.objects import DATA_PARTS, kind_of, labels
from chatvla_sim.toy_placement.relations import RELATIONS
from chatvla_sim.toy_placement.trial import Parts, Thing, Trial, build_trial

__all__ = ["MOST_THINGS", "crowd_trial", "image_text_labels", "image_text_toy_trial"]

MOST_THINGS = 9
CROWD_X, CROWD_Y = (TOY_X[0] - 0.05, TOY_X[1] + 0.13), GOAL_Y
"""Where things of a crowd stand: all of it is in view."""
NARROWEST_M = 0.75 * HAND_M
TRIES = 40


@cache
def image_text_labels(*, toys: bool) -> tuple[str, ...]:
    """Return the labels of all toys, or of all reference objects, that image-text data may show."""
    return tuple(label for part in DATA_PARTS["image_text"] for label in labels(toys=toys, part=part))


def image_text_toy_trial(seed: int) -> Trial:
    """Return a scene like a trial's: any allowed toys and references, any relation."""
    first, *rngs = (np.random.default_rng([seed, 7401, k]) for k in range(4))
    parts = DATA_PARTS["image_text"]
    target, reference = (parts[int(first.integers(len(parts)))] for _ in range(2))
    drawn = build_trial(
        split="image_text",
        seed=seed,
        swap=False,
        relation=RELATIONS[int(first.integers(len(RELATIONS)))],
        parts=Parts(target=(target, "all"), reference=(reference, "all"), words="robot"),
        rngs=rngs,
    )
    # No dialogue is about the instruction, and the marks are for trials that are scored.
    return replace(drawn, instruction="", subsets=())


def crowd_trial(seed: int) -> Trial:
    """Return a table with up to MOST_THINGS things, wherever they fit, turned anyhow: no task, much to see."""
    rng = np.random.default_rng([seed, 7402])
    frame = image_text_toy_trial(seed)
    things: list[Thing] = []
    for _ in range(int(rng.integers(5, MOST_THINGS + 1))):
        options = image_text_labels(toys=bool(rng.random() < 0.6))
        label = options[int(rng.integers(len(options)))]
        radius = float(np.hypot(*KINDS[kind_of(label)].size[:2]) / 2)
        for _ in range(TRIES):
            x, y = (float(rng.uniform(*limits)) for limits in (CROWD_X, CROWD_Y))
            room = all(np.hypot(x - t.place.x_m, y - t.place.y_m) > max(radius, NARROWEST_M) for t in things)
            if room and not any(thing.label == label for thing in things):
                place = Place(x_m=x, y_m=y, yaw_rad=float(rng.uniform(-np.pi, np.pi)))
                things.append(Thing(label=label, role="distractor", place=place))
                break
    return replace(frame, things=tuple(things), rack=None, relation="left")
