# SPDX-License-Identifier: Apache-2.0
"""Write and read what VLM2VLA says: action lists, subtask lists, verdicts. Reading is strict: no repair, no guess.

An action is [dx, dy, dz, gripper]: metres in the robot's base frame (+x forward, +y left, +z up), gripper 1 open,
0 closed. N actions.
"""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "MAX_ACTIONS",
    "MAX_STEP_M",
    "MalformedError",
    "Verdict",
    "actions_text",
    "parse_actions",
    "parse_subtasks",
    "parse_verdict",
    "place_text",
    "subtasks_text",
]

MAX_ACTIONS = 64
MAX_STEP_M = 1.0
"""Largest displacement of one action along one axis: beyond it the text is nonsense for any table-top robot."""
MAX_SUBTASKS = 64
MAX_SUBTASK_CHARACTERS = 120
MAX_CHARACTERS = 8000
_NUMBER = r"-?\d{1,2}(?:\.\d{1,6})?"
_ROW = rf"\[\s*{_NUMBER}(?:\s*,\s*{_NUMBER}){{3}}\s*\]"
_LIST = re.compile(rf"\[\s*(?:{_ROW}(?:\s*,\s*{_ROW})*)?\s*\]")


class MalformedError(ValueError):
    """A text is not of the agreed form; the message says what came and what is expected."""


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What a verifier says of one executed subtask."""

    success: bool
    confidence: str = ""
    reasoning: str = ""


def place_text(place_m: NDArray[np.floating[Any]], *, decimals: int = 3) -> str:
    """Return lengths [m] as text, without brackets: "0.310, 0.000, 0.101"; nought has no sign."""
    return ", ".join(f"{round(float(value), decimals) + 0.0:.{decimals}f}" for value in place_m)


def actions_text(actions_N4: NDArray[np.floating[Any]], *, decimals: int = 3) -> str:
    """Return actions as text, to the millimetre unless told otherwise: "[[0.010, 0.000, -0.025, 1.0]]"."""
    rows = (f"[{place_text(row[:3], decimals=decimals)}, {float(row[3]):.1f}]" for row in actions_N4)
    return f"[{', '.join(rows)}]"


def parse_actions(text: str) -> NDArray[np.float64]:
    """Return the actions of a text that is one list of lists and nothing else, shape (N, 4); N may be 0.

    Raises MalformedError.
    """
    stripped = text.strip()
    if len(stripped) > MAX_CHARACTERS or _LIST.fullmatch(stripped) is None:
        raise MalformedError(f"{_shown(stripped)} is no list of [dx, dy, dz, gripper]")
    numbers = [float(item) for item in re.findall(_NUMBER, stripped)]
    actions_N4 = np.array(numbers, np.float64).reshape(-1, 4)
    if len(actions_N4) > MAX_ACTIONS:
        raise MalformedError(f"{len(actions_N4)} actions, at most {MAX_ACTIONS} are taken")
    if (np.abs(actions_N4[:, :3]) > MAX_STEP_M).any():
        raise MalformedError(
            f"an action moves {np.abs(actions_N4[:, :3]).max():g} m, at most {MAX_STEP_M:g} m is taken"
        )
    if not np.isin(actions_N4[:, 3], (0.0, 1.0)).all():
        raise MalformedError("a gripper value is neither 0 (closed) nor 1 (open)")
    return actions_N4


def subtasks_text(subtasks: Sequence[str], thought: str = "") -> str:
    """Return subtasks as a Python list of strings, behind a thought where there is one."""
    return f"{thought} {list(subtasks)!r}".strip()


def parse_subtasks(text: str) -> tuple[str, tuple[str, ...]]:
    """Return the thought and the subtasks of a text that ends in a list of strings. Raises MalformedError."""
    stripped = text.strip()
    start = stripped.rfind("[")
    try:
        found = ast.literal_eval(stripped[start:]) if start >= 0 and len(stripped) <= MAX_CHARACTERS else None
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        found = None
    if not isinstance(found, list) or not found or not all(isinstance(item, str) and item.strip() for item in found):
        raise MalformedError(f"{_shown(stripped)} does not end in a list of subtasks")
    if len(found) > MAX_SUBTASKS or max(map(len, found)) > MAX_SUBTASK_CHARACTERS:
        raise MalformedError(
            f"{len(found)} subtasks of up to {max(map(len, found))} characters, "
            f"at most {MAX_SUBTASKS} of {MAX_SUBTASK_CHARACTERS} are taken"
        )
    return stripped[:start].strip(), tuple(item.strip() for item in found)


def parse_verdict(text: str) -> Verdict:
    """Return the verdict of a JSON object with success, confidence and reasoning. Raises MalformedError."""
    try:
        found = json.loads(text.strip()) if len(text) <= MAX_CHARACTERS else None
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict) or set(found) != {"success", "confidence", "reasoning"}:
        raise MalformedError(f"{_shown(text)} is no object with success, confidence and reasoning")
    if not isinstance(found["success"], bool):
        raise MalformedError(f"success is {found['success']!r}, expected true or false")
    return Verdict(success=found["success"], confidence=str(found["confidence"]), reasoning=str(found["reasoning"]))


def _shown(text: str) -> str:
    return repr(text if len(text) <= 80 else text[:77] + "...")
