# SPDX-License-Identifier: Apache-2.0
"""Write the reasoning of the toy task: rectangles of target, reference and goal, then the placement; and read one.

Rectangles are written in Qwen2-VL's own notation, in thousandths of the camera image's width and height:
  <|object_ref_start|>label<|object_ref_end|><|box_start|>(x1,y1),(x2,y2)<|box_end|>
Each side is rounded to a hundredth (1.6 px at most) in such a way that its last digit says which side it is: 2 left,
4 top, 6 right, 8 bottom. A small model then has words of its own for each side, as many as there are hundredths. The
last sentence repeats where the toy stands and where it goes, by the rectangles' lower right corners.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from chatvla_control.contracts import BoundingBox
from chatvla_control.scene import SceneObject, SceneTruth
from chatvla_sim.toy_placement.instructions import OTHER_PHRASES, RELATION_PHRASES
from chatvla_sim.toy_placement.judge import GOAL

__all__ = [
    "IMAGE_SIZE",
    "SIDE_DIGITS",
    "SIDE_STEPS",
    "find_label",
    "find_relation",
    "marked",
    "reasoning_about",
    "reasoning_text",
    "side_text",
    "standing_at",
    "written_boxes",
]

IMAGE_SIZE = (320, 240)
"""Width and height of the camera image that rectangles are pixels of."""
SIDE_DIGITS = (2, 4, 6, 8)
"""Last digits of left, top, right and bottom."""
SIDE_STEPS = 100
"""Places that a side can have."""
MARKS = re.compile(r"<\|object_ref_start\|>|<\|object_ref_end\|>|<\|box_start\|>[^<]{0,64}<\|box_end\|>")


def side_text(share: float, side: int) -> str:
    """Return one side of a rectangle, a share of the image's width or height, as three digits."""
    step = min(SIDE_STEPS - 1, max(0, round((1000 * share - SIDE_DIGITS[side]) / 10)))
    return f"{10 * step + SIDE_DIGITS[side]:03d}"


def sides(box: BoundingBox) -> list[str]:
    width, height = IMAGE_SIZE
    shares = (box.x_min / width, box.y_min / height, box.x_max / width, box.y_max / height)
    return [side_text(share, side) for side, share in enumerate(shares)]


def marked(box: BoundingBox) -> str:
    """Return the rectangle as text, label first."""
    x1, y1, x2, y2 = sides(box)
    return f"<|object_ref_start|>{box.label}<|object_ref_end|><|box_start|>({x1},{y1}),({x2},{y2})<|box_end|>"


def standing_at(mark: str) -> str:
    """Return where the thing of a marked rectangle stands, its lower right corner as in the text, empty without one."""
    found = re.search(r"\((\d{3}),(\d{3})\)<\|box_end\|>", mark)
    return "" if found is None else f"{found[1]} {found[2]}"


def written_boxes(truth: SceneTruth) -> tuple[BoundingBox, ...]:
    """Return the rectangles a reasoning states, as far as they are in view: target, reference, goal."""
    wanted = [item for role in ("target", "reference") for item in truth.objects if item.role == role]
    wanted += [item for item in truth.objects if item.name == GOAL]
    return tuple(item.box for item in wanted if item.box is not None)


def reasoning_text(truth: SceneTruth, target: SceneObject, relation: str) -> str:
    """Return what a policy should think before it places `target` in `relation` to the reference."""
    reference = next(item for item in truth.objects if item.role == "reference")
    goal = next(item for item in truth.objects if item.name == GOAL)

    def named(item: SceneObject) -> str:
        return item.label if item.box is None else marked(item.box)

    toy, place = (standing_at(named(item)) for item in (target, goal))
    way = f", from {toy} to {place}" if toy and place else ""
    return (
        f"The toy is {named(target)}. The reference is {named(reference)}. The place is the {named(goal)}. "
        f"I should put the {target.label} {RELATION_PHRASES[relation]} the {reference.label}{way}."
    )


def reasoning_about(truth: SceneTruth, target: SceneObject) -> str:
    """Return what a policy should think that places `target` as the scene's instruction wants."""
    return reasoning_text(truth, target, truth.answer)


def plain(text: str) -> str:
    """Return the text without marks and coordinates."""
    return re.sub(r"\s+", " ", MARKS.sub("", text)).lower()


def find_relation(text: str) -> str | None:
    """Return the relation that the text names last, None where it names none."""
    said = plain(text)
    places = {
        name: max(said.rfind(f" {words[name]} ") for words in (RELATION_PHRASES, OTHER_PHRASES))
        for name in RELATION_PHRASES
    }
    best = max(places, key=lambda name: places[name])
    return best if places[best] >= 0 else None


def find_label(text: str, labels: Sequence[str]) -> str | None:
    """Return which of `labels` the last sentence about placing names first, None where it names none."""
    for sentence in reversed(re.split(r"[.!?;\n]+", plain(text))):
        if re.search(r"\b(?:put|place|move|pick|bring|take|set|stand|belongs?)", sentence):
            found = [(place.start(), label) for label in labels for place in re.finditer(re.escape(label), sentence)]
            if found:
                return min(found)[1]
    return None
