# SPDX-License-Identifier: Apache-2.0
"""Say in words what a part of an episode does: by rules from its motion, or by a language model behind an endpoint."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from chatvla_policy.endpoint_answer import EndpointError, chat_answer
from chatvla_training.text.math_phrases import answer_of
from chatvla_training.vlm2vla.split import Part

__all__ = [
    "AXES",
    "EndpointDescriber",
    "centimetres",
    "direction_word",
    "plan_text",
    "step_text",
    "step_texts",
    "things_of",
    "way_text",
]

AXES = (("x", "forward", "backward"), ("y", "left", "right"), ("z", "up", "down"))
MAIN_M, SLIGHT_M = 0.025, 0.01
"""From here on a direction is named; below it, down to the second, it is called slight."""
PLACES = {
    "left": "left of",
    "right": "right of",
    "front": "place in front of",
    "behind": "place behind",
    "on top": "top of",
    "below": "place below",
}
"""Where a toy goes beside a thing, by relation: a plan is asked for by its step alone, which must say it."""


def things_of(facts: Mapping[str, Any]) -> tuple[tuple[str, str], ...]:
    """Return what is moved and where to, one pair per thing, in order, as the episode's facts tell.

    Where they tell nothing, one "object" goes to the "goal".
    """
    from chatvla_sim.toy_placement.sorting_trial import side_of
    from chatvla_training.demos.thoughts import facts_from

    math = facts_from(facts)
    if math is not None:
        card = answer_of(math)
        return ((f"{card.place} card" if card else "card", "board"),)
    if facts.get("task") == "toy_sorting" and facts.get("toys"):
        return tuple((label, f"{side_of(label)} side") for label in facts["toys"])
    thing, goal = str(facts.get("target") or "object"), str(facts.get("reference") or "goal")
    place = PLACES.get(str(facts.get("relation", "")), "")
    return ((thing, f"{place} the {goal}" if place and facts.get("reference") else goal),)


def step_texts(parts: Sequence[Part], things: Sequence[tuple[str, str]]) -> list[str]:
    """Return the subtask of each part. With each opening of the gripper the next thing's turn comes.

    The first way up from what was put down is still that thing's; behind the last thing, the arm goes home.
    """
    texts: list[str] = []
    number, leaving = 0, False
    for part in parts:
        thing, goal = things[min(number, len(things) - 1)]
        carried = number >= len(things)
        if leaving and part.phase == "up" and not part.holding:
            thing, goal = things[min(number, len(things)) - 1]
            carried = True
        leaving = part.phase == "open"
        texts.append(step_text(part, thing=thing, goal=goal, carried=carried))
        number += part.phase == "open"
    return texts


def step_text(part: Part, *, thing: str, goal: str, carried: bool) -> str:
    """Return the subtask of a part; `carried`: the thing has been picked up and put down before it."""
    if part.phase == "close":
        return f"Grasp the {thing}"
    if part.phase == "open":
        return f"Release the {thing}"
    if part.holding:
        words = {"up": f"Lift the {thing}", "down": f"Lower the {thing} to the {goal}"}
        return words.get(part.phase, f"Move the {thing} to the {goal}")
    if carried:
        return {"up": f"Retreat from the {goal}", "down": "Lower the arm"}.get(part.phase, "Move back")
    return {"up": f"Rise above the {thing}", "down": f"Lower to the {thing}"}.get(part.phase, f"Move to the {thing}")


def direction_word(delta_m: float, axis: int) -> str:
    """Return the direction along an axis (0 x, 1 y, 2 z), or "none" below the threshold."""
    _, positive, negative = AXES[axis]
    return "none" if abs(delta_m) < MAIN_M else positive if delta_m > 0 else negative


def centimetres(place_m: NDArray[np.float64]) -> str:
    """Return a place [m], shape (3,), as whole centimetres: "31, -28, 20"."""
    return ", ".join(str(round(100 * float(value))) for value in place_m)


def way_text(start_m: NDArray[np.float64], end_m: NDArray[np.float64]) -> str:
    """Return axis by axis, in centimetres, from where to where the tool goes and how far; places [m], shape (3,)."""
    said = []
    for (name, positive, negative), start, end in zip(AXES, start_m, end_m, strict=True):
        first, last = round(100 * float(start)), round(100 * float(end))
        word = "none" if first == last else positive if last > first else negative
        said.append(f"{name} {first} to {last}: {abs(last - first)} {word}")
    return ", ".join(said) + "."


def plan_text(delta_3: NDArray[np.float64], *, before: bool, after: bool, way: str = "") -> str:
    """Return the motion plan of a displacement [m] with the gripper open or not before and after.

    `way` stands in for the words for the displacement.
    """
    order = np.argsort(-np.abs(delta_3))
    main = [direction_word(float(delta_3[axis]), int(axis)) for axis in order]
    slight = [
        AXES[int(axis)][1 if delta_3[axis] > 0 else 2] for axis in order if SLIGHT_M <= abs(delta_3[axis]) < MAIN_M
    ]
    words = [word for word in main if word != "none"]
    parts = []
    if way:
        parts.append(way)
    elif words:
        parts.append(f"Move {' and '.join(words)}" + (f", slightly {' and '.join(slight)}" if slight else "") + ".")
    elif slight:
        parts.append(f"Move slightly {' and '.join(slight)}.")
    if before != after:
        parts.append("Open the gripper." if after else "Close the gripper.")
    else:
        parts.append(f"Gripper stays {'open' if after else 'closed'}.")
    return " ".join(parts)


REQUEST = (
    "A robot arm performs the task '{task}'. Positive x is forward, positive y is left, positive z is up; gripper 1 is "
    "open, 0 is closed. Its motion was cut into {count} parts; each is given with its displacement in metres and the "
    "gripper after it:\n{parts}\nAnswer with a JSON list of {count} objects with the keys step_description (a few "
    "words) and reasoning (one or two sentences on the directions of movement), in this order, and nothing else."
)


class EndpointDescriber:
    """A server with OpenAI's chat interface words the parts; where its answer does not fit, the rules' words stay."""

    def __init__(self, url: str, model: str, *, timeout_s: float = 60.0) -> None:
        """Ask `model` at `url`, such as http://host:8000/v1; no image is sent. CHATVLA_DESCRIBE_KEY may hold a key."""
        self._url, self._model, self._timeout_s = url.rstrip("/") + "/chat/completions", model, timeout_s
        self.counts: Counter[str] = Counter()
        """How many episodes were "worded" and how many "kept"."""

    def __call__(
        self, task: str, parts: Sequence[tuple[NDArray[np.float64], bool]], rules: Sequence[tuple[str, str]]
    ) -> list[tuple[str, str]]:
        """Return (subtask, plan) of each part, given (displacement, open after it) and the rules' words.

        Raises EndpointError when the server does not answer the first request.
        """
        lines = "\n".join(
            f"{number}: [{x:.3f}, {y:.3f}, {z:.3f}], gripper {int(opened)}"
            for number, ((x, y, z), opened) in enumerate(parts, 1)
        )
        body = {
            "model": self._model,
            "temperature": 0.2,
            "messages": [
                {"role": "user", "content": REQUEST.format(task=task, count=len(parts), parts=lines)},
            ],
        }
        key = os.environ.get("CHATVLA_DESCRIBE_KEY", "")
        try:
            said = chat_answer(self._url, body, key=key, timeout_s=self._timeout_s)
        except EndpointError as error:
            if not self.counts:
                raise EndpointError(f"{error}; leave --describe-url out to describe by rules") from error
            said = ""  # It answered before: one request that fails ends no long work.
        try:
            items = json.loads(said[said.index("[") : said.rindex("]") + 1])
            worded = [(str(item["step_description"]).strip(), str(item["reasoning"]).strip()) for item in items]
        except (ValueError, KeyError, TypeError):
            worded = []
        if len(worded) != len(parts) or not all(step and plan and len(step) <= 100 for step, plan in worded):
            self.counts["kept"] += 1
            return list(rules)
        self.counts["worded"] += 1
        return worded
