# SPDX-License-Identifier: Apache-2.0
"""Read a person's notes on a bag of a real robot: what stood on the table and how each trial ended.

`trials.json` beside the bag's metadata.yaml, a list; one entry of math_match:
{"from_s": 0, "to_s": 41, "task": "math_match", "split": "open_world", "instruction": "...", "equation": "3 + 4",
 "answer": "7", "cards": [["left", "12"], ["middle", "7"]], "picked": "7", "success": true}
One of toy_placement:
{"task": "toy_placement", "instruction": "...", "relation": "left", "target": "red car", "reference": "blue box",
 "others": ["green duck"], "boxes": {"target": [x1, y1, x2, y2], "reference": [...], "goal": [...]},
 "picked": "red car", "success": true}
from_s and to_s count from the bag's first message; to_s may be missing, and so may task (math_match), split, seed,
swap, subsets and others. `picked` is a card's number or a toy's name, "" for none. Relations: left, right, front,
behind, on top, below. Boxes enclose whole objects at the beginning of the trial, and where the toy is to go ("goal"),
in thousandths of the picture's width and height, as texts give them.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from chatvla_control.contracts import BoundingBox
from chatvla_control.scene import ObjectRole, Pose, SceneObject, SceneTruth
from chatvla_eval.tasks.toy_placement import RELATIONS, box_from_thousandths

__all__ = ["NOTES_NAME", "NotedTrial", "NotesError", "read_notes"]

NOTES_NAME = "trials.json"
_NOWHERE = Pose(position=(0.0, 0.0, 0.0), quaternion=(0.0, 0.0, 0.0, 1.0))
_BOXES = ("target", "reference", "goal")


class NotesError(ValueError):
    """The notes cannot be used; the message names file, entry and what is missing."""


@dataclass(frozen=True, kw_only=True)
class NotedTrial:
    """One trial as a person saw it; times in s since the bag's first message."""

    from_s: float
    to_s: float
    truth: SceneTruth
    picked: str
    """Name of the object that was taken; empty for none."""


@dataclass(frozen=True, kw_only=True)
class _Scene:
    """What a task's notes say of the scene."""

    equation: str
    answer: str
    target: str
    """Name of the object to take."""
    objects: tuple[SceneObject, ...]
    picked: str
    """Name of the object that was taken; empty for none."""


def read_notes(folder: Path) -> list[NotedTrial] | None:
    """Return the noted trials of the bag in `folder`, None when there are no notes. Raises NotesError."""
    path = folder / NOTES_NAME
    if not path.is_file():
        return None
    try:
        entries = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise NotesError(f"{path} is no JSON: {error}") from error
    if not isinstance(entries, list):
        raise NotesError(f"{path} must hold a list of trials")
    found = []
    for number, entry in enumerate(entries):
        try:
            found.append(_noted(number, entry if isinstance(entry, dict) else {}))
        except (TypeError, ValueError) as error:
            raise NotesError(f"{path}: trial {number} {error}") from error
    # A trial without an end ends where the next one begins.
    later = [*(note.from_s for note in found[1:]), float("inf")]
    noted = [replace(note, to_s=min(note.to_s, next_s)) for note, next_s in zip(found, later, strict=True)]
    for number, note in enumerate(noted):
        if not note.from_s < note.to_s:
            raise NotesError(f"{path}: trial {number} begins at {note.from_s} s and ends at {note.to_s} s; in order?")
    return noted


def _noted(number: int, entry: Mapping[str, Any]) -> NotedTrial:
    """Return one trial. Raises ValueError with what is wrong, to follow the trial's number."""
    task = str(entry.get("task", "math_match"))
    if task not in _SCENES:
        raise ValueError(f"is of task {task!r}; notes are read of: {', '.join(_SCENES)}")
    read, needed = _SCENES[task]
    missing = [name for name in ("instruction", *needed, "picked", "success") if name not in entry]
    if missing:
        raise ValueError(f"lacks {', '.join(missing)}")
    scene = read(entry)
    for name in ("success", "swap"):
        if not isinstance(entry.get(name, False), bool):
            raise ValueError(f"has {name} {entry[name]!r}; write true or false, without quotes")
    success = entry["success"]
    truth = SceneTruth(
        stamp_s=0.0,
        task=task,
        split=str(entry.get("split", "open_world")),
        seed=int(entry.get("seed", number)),
        swap=entry.get("swap", False),
        trial=number,
        ready=True,
        instruction=str(entry["instruction"]),
        equation=scene.equation,
        answer=scene.answer,
        target=scene.target,
        goal=_NOWHERE,
        objects=scene.objects,
        placed=scene.target if success else "",
        success=success,
        subsets=tuple(entry.get("subsets", ())),
    )
    return NotedTrial(
        from_s=float(entry.get("from_s", 0.0)),
        to_s=float(entry.get("to_s", float("inf"))),
        truth=truth,
        picked=scene.picked,
    )


def _cards(entry: Mapping[str, Any]) -> _Scene:
    """Return a scene of math_match."""
    cards = [(str(place), str(value)) for place, value in entry["cards"]]
    names = {value: f"card_{index}" for index, (_, value) in enumerate(cards)}
    answer, picked = str(entry["answer"]), str(entry["picked"])
    for what, value in (("answer", answer), ("picked", picked)):
        if (value or what == "answer") and value not in names:
            raise ValueError(f"is wrong: no card shows {what} {value!r}; cards: {', '.join(names)}")
    return _Scene(
        equation=str(entry["equation"]),
        answer=answer,
        target=names[answer],
        objects=tuple(
            _thing(f"card_{index}", value, "card", place=place) for index, (place, value) in enumerate(cards)
        ),
        picked=names.get(picked, ""),
    )


def _toys(entry: Mapping[str, Any]) -> _Scene:
    """Return a scene of toy_placement."""
    relation = _plain(entry["relation"])
    if relation not in RELATIONS:
        raise ValueError(f"has relation {relation!r}; there are: {', '.join(RELATIONS)}")
    labels = [_plain(label) for label in (entry["target"], entry["reference"], *entry.get("others", ()))]
    names = {label: f"thing_{index}" for index, label in enumerate(labels)}
    if len(names) < len(labels):
        raise ValueError(f"has two objects of one name: {', '.join(labels)}; texts could mean either")
    picked = _plain(entry["picked"])
    if picked and picked not in names:
        raise ValueError(f"is wrong: no object is called picked {picked!r}; objects: {', '.join(names)}")
    boxes = [_box(entry["boxes"], which, label) for which, label in zip(_BOXES, (*labels[:2], "goal"), strict=True)]
    return _Scene(
        equation="",
        answer=relation,
        target="thing_0",
        objects=(
            _thing("thing_0", labels[0], "target", box=boxes[0]),
            _thing("thing_1", labels[1], "reference", box=boxes[1]),
            *(_thing(names[label], label, "distractor") for label in labels[2:]),
            _thing("goal", "goal", "fixture", box=boxes[2]),
        ),
        picked=names.get(picked, ""),
    )


_SCENES: Mapping[str, tuple[Callable[[Mapping[str, Any]], _Scene], tuple[str, ...]]] = {
    "math_match": (_cards, ("equation", "answer", "cards")),
    "toy_placement": (_toys, ("relation", "target", "reference", "boxes")),
}
"""Reader and needed entries of each task."""


def _box(boxes: Any, which: str, label: str) -> BoundingBox:
    corners: Sequence[Any] = boxes.get(which, ()) if isinstance(boxes, dict) else ()
    box = box_from_thousandths(label, [float(corner) for corner in corners])
    if box is None:
        raise ValueError(
            f"has no box {which} of four corners x1 < x2, y1 < y2 in thousandths of the picture, 0 to 1000: {corners!r}"
        )
    return box


def _plain(text: Any) -> str:
    """Return a name as scores compare it: small letters, single spaces."""
    return " ".join(str(text).lower().split())


def _thing(name: str, label: str, role: ObjectRole, *, place: str = "", box: BoundingBox | None = None) -> SceneObject:
    return SceneObject(
        name=name,
        label=label,
        role=role,
        place=place,
        pose=_NOWHERE,
        size=(0.0, 0.0, 0.0),
        held=False,
        placed=False,
        box=box,
    )
