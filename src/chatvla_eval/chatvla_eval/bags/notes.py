# SPDX-License-Identifier: Apache-2.0
"""Read a person's notes on a bag of a real robot: what stood on the table and how each trial ended.

`trials.json` beside the bag's metadata.yaml, a list; one entry:
{"from_s": 0, "to_s": 41, "task": "math_match", "split": "open_world", "instruction": "...", "equation": "3 + 4",
 "answer": "7", "cards": [["left", "12"], ["middle", "7"]], "picked": "7", "success": true}
from_s and to_s count from the bag's first message; to_s may be missing. `picked` is a card's number, "" for none.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from chatvla_control.scene import Pose, SceneObject, SceneTruth

__all__ = ["NOTES_NAME", "NotedTrial", "NotesError", "read_notes"]

NOTES_NAME = "trials.json"
_NOWHERE = Pose(position=(0.0, 0.0, 0.0), quaternion=(0.0, 0.0, 0.0, 1.0))
_NEEDED = ("instruction", "equation", "answer", "cards", "picked", "success")


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
    return [_noted(path, number, entry) for number, entry in enumerate(entries)]


def _noted(path: Path, number: int, entry: Any) -> NotedTrial:
    missing = [name for name in _NEEDED if not isinstance(entry, dict) or name not in entry]
    if missing:
        raise NotesError(f"{path}: trial {number} lacks {', '.join(missing)}")
    cards = [(str(place), str(value)) for place, value in entry["cards"]]
    names = {value: f"card_{index}" for index, (_, value) in enumerate(cards)}
    answer, picked = str(entry["answer"]), str(entry["picked"])
    for what, value in (("answer", answer), ("picked", picked)):
        if value and value not in names:
            raise NotesError(f"{path}: trial {number}: no card shows {what} {value!r}; cards: {', '.join(names)}")
    objects = tuple(_card(f"card_{index}", place, value) for index, (place, value) in enumerate(cards))
    success = bool(entry["success"])
    truth = SceneTruth(
        stamp_s=0.0,
        task=str(entry.get("task", "math_match")),
        split=str(entry.get("split", "open_world")),
        seed=int(entry.get("seed", number)),
        swap=bool(entry.get("swap", False)),
        trial=number,
        ready=True,
        instruction=str(entry["instruction"]),
        equation=str(entry["equation"]),
        answer=answer,
        target=names[answer],
        goal=_NOWHERE,
        objects=objects,
        placed=names[answer] if success else "",
        success=success,
        subsets=tuple(entry.get("subsets", ())),
    )
    return NotedTrial(
        from_s=float(entry.get("from_s", 0.0)),
        to_s=float(entry.get("to_s", float("inf"))),
        truth=truth,
        picked=names.get(picked, ""),
    )


def _card(name: str, place: str, value: str) -> SceneObject:
    return SceneObject(
        name=name,
        label=value,
        role="card",
        place=place,
        pose=_NOWHERE,
        size=(0.0, 0.0, 0.0),
        held=False,
        placed=False,
        box=None,
    )
