# SPDX-License-Identifier: Apache-2.0
"""Say which objects exist and which data may show them. Labels are a colour and a kind, such as "red car".

Fixed by tables of kinds and a hash of the label with a stated key, never by a trial's seed:
- `robot`: robot data shows them (and all other data may);
- `open_world`: kinds that no robot data shows; image-text data may show them;
- `held_out`: no data of any kind shows them: one label in five of every kind ("never_seen_object"), and all labels of
  the kinds in HELD_OUT_KINDS ("never_seen_kind").
"""

from __future__ import annotations

import hashlib
from functools import cache

from chatvla_sim.toy_placement.kinds import REFERENCE_KINDS, TOY_KINDS

__all__ = ["COLOURS", "DATA_PARTS", "HELD_OUT_KINDS", "OPEN_WORLD_KINDS", "kind_of", "labels", "object_part"]

COLOURS = {
    "red": (0.80, 0.07, 0.07),
    "orange": (0.95, 0.42, 0.04),
    "yellow": (0.95, 0.80, 0.08),
    "green": (0.08, 0.52, 0.14),
    "blue": (0.07, 0.20, 0.72),
    "purple": (0.42, 0.12, 0.58),
    "pink": (0.95, 0.45, 0.62),
    "white": (0.93, 0.93, 0.92),
}
"""RGB 0..1 of the colours that labels name."""
OPEN_WORLD_KINDS = frozenset({"boat", "house", "rocket", "tree", "bowl", "stool", "can"})
HELD_OUT_KINDS = frozenset({"train", "mushroom", "pot", "case"})
DATA_PARTS = {"robot": ("robot",), "image_text": ("robot", "open_world")}
"""Parts that each sort of training data may show."""
KEY = "toy_placement objects 1"
HELD_OUT_OF = 5
"""One label in this many is held out."""


def kind_of(label: str) -> str:
    """Return the kind that a label names: its last word."""
    return label.rpartition(" ")[2]


def is_held_out(label: str) -> bool:
    return int.from_bytes(hashlib.sha256(f"{KEY}: {label}".encode()).digest()[:4], "big") % HELD_OUT_OF == 0


def object_part(label: str) -> str:
    """Return "robot", "open_world" or "held_out"."""
    kind = kind_of(label)
    if kind in HELD_OUT_KINDS or is_held_out(label):
        return "held_out"
    return "open_world" if kind in OPEN_WORLD_KINDS else "robot"


@cache
def labels(*, toys: bool, part: str, kinds: str = "all") -> tuple[str, ...]:
    """Return the labels of all toys, or of all reference objects, of one part.

    `kinds` "held_out" keeps the kinds of HELD_OUT_KINDS, "open_world" those of OPEN_WORLD_KINDS.
    """
    chosen = TOY_KINDS if toys else REFERENCE_KINDS
    kept = {"held_out": HELD_OUT_KINDS, "open_world": OPEN_WORLD_KINDS}.get(kinds)
    names = [f"{colour} {kind.name}" for kind in chosen if kept is None or kind.name in kept for colour in COLOURS]
    return tuple(name for name in names if object_part(name) == part)
