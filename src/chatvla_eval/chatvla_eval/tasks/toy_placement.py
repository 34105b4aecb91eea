# SPDX-License-Identifier: Apache-2.0
"""Score the toy-placement bench: object recognition of 2, spatial affordance of 1 (ChatVLA-2, section 4.2, table 2).

Recognition: 1 point each for target and reference, when the text gives a rectangle with the object's own label that
overlaps the true one with an intersection over union of at least RECOGNISED_IOU. The paper's score is the mean over
both: half of ours.
Affordance: 1 point when the text's last placing sentence names the right toy, the right relation and the right
reference, and the rectangle labelled "goal", where the text gives one, overlaps the true goal with at least
REGION_IOU. Read from the text alone; what the arm did is scored by the poses (SceneTruth.success).
The parser is this module's own: it shares no code with what writes the texts.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from chatvla_control.contracts import BoundingBox
from chatvla_control.scene import SceneObject, SceneTruth
from chatvla_eval.tasks.base import ScoredReasoning

__all__ = [
    "RECOGNISED_IOU",
    "REGION_IOU",
    "RELATIONS",
    "ToyPlacement",
    "box_from_thousandths",
    "overlap",
    "stated_boxes",
    "stated_placement",
]

RECOGNISED_IOU = 0.5
REGION_IOU = 0.3
_IMAGE = (320.0, 240.0)
"""Width and height of the scored camera's image; texts give thousandths of it."""
_MOST_BOXES = 64
_MARKED = re.compile(
    r"<\|object_ref_start\|>([^<>|]{1,120})<\|object_ref_end\|>"
    r"<\|box_start\|>\(([0-9]{1,4}),([0-9]{1,4})\),\(([0-9]{1,4}),([0-9]{1,4})\)<\|box_end\|>"
)
_MARKS = re.compile(r"<\|box_start\|>[^<]{0,64}<\|box_end\|>|<\|[a-z_]{1,24}\|>")
_RELATIONS = (
    ("left", r"(?:to|on|at) (?:the|its) left(?: side)?(?: of)?|left of"),
    ("right", r"(?:to|on|at) (?:the|its) right(?: side)?(?: of)?|right of"),
    ("behind", r"behind|at the back of|at the rear of"),
    ("front", r"in front of|before"),
    ("below", r"below|underneath|under|beneath"),
    ("on top", r"on top of|onto|on"),
)
"""Words of each relation; of two that begin at one place the first counts: "on the left of" is no "on"."""
RELATIONS = tuple(relation for relation, _ in _RELATIONS)
_RELATION = re.compile("|".join(rf"\b(?P<r{number}>{words})\b" for number, (_, words) in enumerate(_RELATIONS)))
_PLACING = re.compile(r"\b(?:put|place|placing|putting|move|moving|set|stand|bring|take|belongs?|pick)\b")
_NEGATED = re.compile(r"(?:\b(?:not|never|cannot)|n['’]t)(?:\s+\w+){0,3}\s*$")
"""Before a verb: what is not to be done."""
_IT = re.compile(r" it\b")


@dataclass(frozen=True, kw_only=True)
class Placement:
    """What a text wants to be placed where; empty where it does not say."""

    toy: str = ""
    relation: str = ""
    reference: str = ""


class ToyPlacement:
    """The toy-placement bench's measures and scores."""

    name = "toy_placement"
    measures: Mapping[str, int] = MappingProxyType({"recognition": 2, "affordance": 1})
    splits: tuple[str, ...] = ("in_domain", "open_world", "held_out")
    timeout_s = 40.0
    in_steps = False

    def score(self, text: str, truth: SceneTruth) -> ScoredReasoning:
        """Return the points of the reasoning `text` in the scene `truth`."""
        boxes = stated_boxes(text)
        target, reference = (_with_role(truth, role) for role in ("target", "reference"))
        goal = next((item for item in truth.objects if item.role == "fixture" and item.label == "goal"), None)
        labels = [item.label for item in truth.objects if item.role != "fixture"]
        said = stated_placement(text, labels)
        regions = [box for box in boxes if box.label == "goal"]
        parts = {
            "target": int(_is_found(boxes, target)),
            "reference": int(_is_found(boxes, reference)),
            "toy": int(target is not None and said.toy == target.label),
            "relation": int(said.relation == truth.answer),
            "anchor": int(reference is not None and said.reference == reference.label),
            "region": int(not regions or (goal is not None and overlap(regions[-1], goal.box) >= REGION_IOU)),
        }
        recognition = parts["target"] + parts["reference"]
        affordance = int(all(parts[name] for name in ("toy", "relation", "anchor", "region")))
        return ScoredReasoning(
            measures={"recognition": recognition, "affordance": affordance},
            parts=parts,
            answer=said.relation,
            perceived=recognition == self.measures["recognition"],
            # Nothing is computed in this task: what is seen and asked decides.
            computed=True,
            chosen=bool(affordance),
            choice=next((item.name for item in truth.objects if item.label == said.toy), "") if said.toy else "",
        )

    def outcome(self, truth: SceneTruth) -> Mapping[str, int]:
        """Return nothing: what was done is the trial's success."""
        return {}

    def describe(self, truth: SceneTruth) -> dict[str, Any]:
        """Return the relation, what is to be placed beside what, and what else stands there."""
        target, reference = (_with_role(truth, role) for role in ("target", "reference"))
        return {
            "relation": truth.answer,
            "target": target.label if target else "",
            "reference": reference.label if reference else "",
            "others": [item.label for item in truth.objects if item.role == "distractor"],
        }


def stated_boxes(text: str) -> list[BoundingBox]:
    """Return the well-formed rectangles of `text` in pixels of the scored camera's image, at most 64, in order."""
    boxes: list[BoundingBox] = []
    for found in _MARKED.finditer(text):
        box = box_from_thousandths(_plain(found[1]), [int(group) for group in found.groups()[1:]])
        if box is not None and len(boxes) < _MOST_BOXES:
            boxes.append(box)
    return boxes


def box_from_thousandths(label: str, corners: Sequence[float]) -> BoundingBox | None:
    """Return the rectangle x1, y1, x2, y2 in pixels of the scored camera's image; None when it is none.

    Corners are thousandths of the image's width and height, 0 to 1000.
    """
    if len(corners) != 4:
        return None
    (x1, y1, x2, y2), (width, height) = corners, _IMAGE
    if not (0 <= x1 < x2 <= 1000 and 0 <= y1 < y2 <= 1000):
        return None
    return BoundingBox(
        label=label,
        view="",
        x_min=x1 * width / 1000,
        y_min=y1 * height / 1000,
        x_max=x2 * width / 1000,
        y_max=y2 * height / 1000,
    )


def stated_placement(text: str, labels: Sequence[str]) -> Placement:
    """Return toy, relation and reference of the last sentence that says where something goes, not where it does not.

    The toy is the first of `labels` between the verb of placing and the relation's words, else the first before them.
    The reference is the first after them, with no other relation between: "on the table to the left of the blue box" is
    left of it. "It" after them is what else was named last before them; where nothing else was, it names none.
    """
    for sentence in reversed(re.split(r"[.!?;\n]+", _plain(_MARKS.sub(" ", text))[:4000])):
        relations, verb = list(_RELATION.finditer(sentence)), _PLACING.search(sentence)
        if not relations or verb is None or _NEGATED.search(sentence[: verb.start()]):
            continue
        meant = [found for found in relations if found.start() >= verb.end()] or relations
        for found, end in zip(meant, [*(later.start() for later in meant[1:]), len(sentence)], strict=True):
            before = _named(sentence[: found.start()], labels)
            moved = _named(sentence[verb.end() : found.start()], labels)
            if _IT.match(sentence, found.end()):
                toy = next(iter(moved or before[::-1]), "")
                after = [label for label in reversed(before) if label != toy]
            else:
                toy = next(iter(moved or before), "")
                after = _named(sentence[found.end() : end], labels)
            if toy and after:
                return Placement(toy=toy, relation=_relation_of(found), reference=after[0])
        whole = _named(sentence, labels)
        return Placement(toy=whole[0] if whole else "", relation=_relation_of(relations[-1]))
    return Placement()


def overlap(stated: BoundingBox, true: BoundingBox | None) -> float:
    """Return the intersection over union of two rectangles, 0 to 1; 0 where the true one is out of view."""
    if true is None:
        return 0.0
    width = min(stated.x_max, true.x_max) - max(stated.x_min, true.x_min)
    height = min(stated.y_max, true.y_max) - max(stated.y_min, true.y_min)
    common = max(0.0, width) * max(0.0, height)
    areas = sum((box.x_max - box.x_min) * (box.y_max - box.y_min) for box in (stated, true))
    return common / (areas - common) if areas > common else 0.0


def _plain(text: str) -> str:
    return re.sub(r"\s+", " ", text).strip().lower()


def _relation_of(found: re.Match[str]) -> str:
    return _RELATIONS[int((found.lastgroup or "r0")[1:])][0]


def _named(text: str, labels: Sequence[str]) -> list[str]:
    """Return which labels a text names, in the order in which it names them."""
    places = [(match.start(), label) for label in labels for match in re.finditer(rf"\b{re.escape(label)}\b", text)]
    return [label for _, label in sorted(places)]


def _with_role(truth: SceneTruth, role: str) -> SceneObject | None:
    return next((item for item in truth.objects if item.role == role), None)


def _is_found(boxes: Sequence[BoundingBox], item: SceneObject | None) -> bool:
    """Return whether the text points at the object: the first rectangle with its label counts."""
    stated = None if item is None else next((box for box in boxes if box.label == item.label), None)
    return stated is not None and item is not None and overlap(stated, item.box) >= RECOGNISED_IOU
