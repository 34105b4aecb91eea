# SPDX-License-Identifier: Apache-2.0
"""Write the reasoning of the toy task: rectangles of target, reference and goal, then the placement; and read one.

Rectangles are written in Qwen2-VL's own notation, in thousandths of the camera image's width and height:
  <|object_ref_start|>label<|object_ref_end|><|box_start|>(x1,y1),(x2,y2)<|box_end|>
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from chatvla_control.contracts import BoundingBox
from chatvla_control.scene import SceneObject, SceneTruth
from chatvla_sim.toy_placement.instructions import OTHER_PHRASES, RELATION_PHRASES
from chatvla_sim.toy_placement.judge import GOAL

__all__ = ["IMAGE_SIZE", "find_label", "find_relation", "marked", "reasoning_about", "reasoning_text", "written_boxes"]

IMAGE_SIZE = (320, 240)
"""Width and height of the camera image that rectangles are pixels of."""
MARKS = re.compile(r"<\|object_ref_start\|>|<\|object_ref_end\|>|<\|box_start\|>[^<]{0,64}<\|box_end\|>")


def marked(box: BoundingBox) -> str:
    """Return the rectangle as text, label first."""
    width, height = IMAGE_SIZE
    x1, x2 = (min(1000, max(0, round(x / width * 1000))) for x in (box.x_min, box.x_max))
    y1, y2 = (min(1000, max(0, round(y / height * 1000))) for y in (box.y_min, box.y_max))
    return f"<|object_ref_start|>{box.label}<|object_ref_end|><|box_start|>({x1},{y1}),({x2},{y2})<|box_end|>"


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

    return (
        f"The toy is {named(target)}. The reference is {named(reference)}. "
        f"I should put the {target.label} {RELATION_PHRASES[relation]} the {reference.label}, at the {named(goal)}."
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
