# SPDX-License-Identifier: Apache-2.0
"""Ask of one episode what VLM2VLA learns: subtasks, plans, actions, directions, completions, the end.

Picture, tool's place and rest of the way of a question are of one moment: the row of a frame. N rows at the control
rate; A arms. (VLM2VLA, section 3.2 and appendix B.2)
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from chatvla_control.robot_spec import RobotSpec
from chatvla_policy.vlm2vla.text_forms import MAX_ACTIONS, MalformedError, actions_text, parse_subtasks, subtasks_text
from chatvla_training.data.episodes import EpisodeDataset
from chatvla_training.vlm2vla.describe import AXES, centimetres, direction_word, plan_text, way_text
from chatvla_training.vlm2vla.split import Merging, Part, actions_of

__all__ = ["Asked", "Episode", "Frame", "Frames", "episode_questions", "moved", "plan_from"]

Array = NDArray[np.float64]
WAYS = 16
"""Subtractions asked of an episode."""
AROUND_M = 0.06
"""How far from where the tool has been their places lie, at most, along each axis."""
EARLY_SHARE = 0.6
"""A frame of a part's first share still shows it as not completed."""


@dataclass(frozen=True, kw_only=True)
class Episode:
    """One episode with its parts and words."""

    number: int
    task: str
    facts: dict[str, Any]
    tools_NA3: Array
    opened_NA: NDArray[np.bool_]
    parts: list[Part]
    words: list[tuple[str, str]]
    """Subtask and plan of each part."""


@dataclass(frozen=True, kw_only=True)
class Asked:
    """How questions are asked, and what came of it."""

    spec: RobotSpec
    rate_hz: float
    merging: Merging
    starts: int
    seed: int
    described: bool
    """A language model has worded the parts."""
    decimals: int
    """Of lengths [m] in texts."""
    where: bool
    """Plans by rules say, axis by axis, from where to where the motion goes."""
    actions: list[Array]
    """Every action list, for the statistics."""
    left_out: Counter[str]
    """Questions that were not asked, by reason."""


@dataclass(frozen=True, order=True)
class Frame:
    """One moment with pictures."""

    row: int
    """Within the episode."""
    index: int
    """Number of the sample in the data set's split."""


class Frames:
    """The frames of one episode; writes those that questions show, each once."""

    def __init__(self, data: EpisodeDataset, episode: Episode, frames: list[Frame], folder: Path) -> None:
        """`frames` in order, at least one; `folder` takes the pictures."""
        self._data, self._episode, self._folder = data, episode, folder
        self.all = frames

    def before(self, row: int) -> Frame:
        """Return the newest frame at `row`, the first one where there is none yet."""
        return max((frame for frame in self.all if frame.row <= row), default=self.all[0])

    def after(self, row: int) -> Frame:
        """Return the first frame at or after `row`, the last one where there is none."""
        return min((frame for frame in self.all if frame.row >= row), default=self.all[-1])

    def begun(self, part: Part) -> Frame:
        """Return the frame at which a part is asked for: where its gripper is as before the part, near its start."""
        opened_N = self._episode.opened_NA[:, part.arm]
        if part.phase in ("close", "open"):
            return self.before(part.start - 1)
        early, late = self.before(part.start), self.after(part.start)
        holds = (opened_N[early.row : part.start] == opened_N[part.start]).all()
        if holds and (part.start - early.row <= late.row - part.start or late.row >= part.stop - 1):
            return early
        return late if part.start <= late.row < part.stop - 1 else early

    def starts(self, part: Part, count: int) -> list[Frame]:
        """Return the frames of a part from which its rest is asked for, the one where it begins among them."""
        first = self.begun(part)
        inside = [frame for frame in self.all if max(first.row, part.start) < frame.row < part.stop - 1]
        if part.phase in ("close", "open") or not inside:
            return [first]
        chosen = [inside[int(k)] for k in np.linspace(0, len(inside), count, endpoint=False)[1:]]
        return [first, *dict.fromkeys(chosen)]

    def written(self, frame: Frame) -> dict[str, str]:
        """Return the file of each view of a frame."""
        names = {
            view: f"{self._data.split}-{self._episode.number:06d}-{frame.row:05d}-{view}.jpg"
            for view in self._data.views
        }
        if not all((self._folder / name).is_file() for name in names.values()):
            images = self._data.sample(frame.index, 0).images
            for view, name in names.items():
                Image.fromarray(images[view]).save(self._folder / name, quality=90)
        return names


def plan_from(asked: Asked, part: Part, tools_NA3: Array, opened_NA: NDArray[np.bool_], start: int) -> str:
    """Return, by rules, the plan of a part from row `start` on."""
    end = tools_NA3[min(part.stop, len(tools_NA3) - 1), part.arm]
    return plan_text(
        moved(part, tools_NA3, start),
        before=bool(opened_NA[max(0, start - 1), part.arm]),
        after=bool(opened_NA[part.stop - 1, part.arm]),
        way=way_text(tools_NA3[start, part.arm], end) if asked.where else "",
    )


def moved(part: Part, tools_NA3: Array, start: int | None = None) -> Array:
    """Return the displacement [m] of a part's tool, shape (3,), from row `start` on, else from the part's own start."""
    first = part.start if start is None else start
    return tools_NA3[min(part.stop, len(tools_NA3) - 1), part.arm] - tools_NA3[first, part.arm]


def episode_questions(asked: Asked, episode: Episode, frames: Frames, thoughts: list[str]) -> Iterator[dict[str, Any]]:
    """Yield the questions of one episode; `thoughts` is the stored reasoning by sample index."""
    if not episode.parts:
        return
    shared = {"episode": episode.number, "task": episode.task}
    yield from _subtasks(asked, episode, frames, thoughts, shared)
    for number, part in enumerate(episode.parts):
        for frame in frames.starts(part, asked.starts):
            yield from _of_part(asked, episode, number, frame, frames, shared)
    yield from _completions(asked, episode, frames, shared)
    if asked.where:
        yield from _ways(asked, episode, shared)
    arm = asked.spec.arms[episode.parts[-1].arm].name
    yield {**shared, "kind": "end", "images": [frames.written(frames.all[-1])], "arm": arm}


def _subtasks(
    asked: Asked, episode: Episode, frames: Frames, thoughts: list[str], shared: dict[str, Any]
) -> Iterator[dict[str, Any]]:
    """Yield the question for all subtasks, at the episode's first frame and where the first part is still going on."""
    steps = [step for step, _ in episode.words]
    try:
        parse_subtasks(subtasks_text(steps))
    except MalformedError as error:
        asked.left_out[f"subtasks that no policy would take: {error}"] += 1
        return
    for frame in dict.fromkeys([frames.all[0], *frames.starts(episode.parts[0], asked.starts)]):
        yield {
            **shared,
            "kind": "subtasks",
            "images": [frames.written(frame)],
            "subtasks": steps,
            "thought": thoughts[frame.index],
            "facts": episode.facts,
        }


def _of_part(
    asked: Asked, episode: Episode, number: int, frame: Frame, frames: Frames, shared: dict[str, Any]
) -> Iterator[dict[str, Any]]:
    """Yield plan, actions and directions of what is left of a part from a frame on."""
    part, (step, plan) = episode.parts[number], episode.words[number]
    stop = min(part.stop + 1, len(episode.tools_NA3))
    way, opened = episode.tools_NA3[frame.row : stop, part.arm], episode.opened_NA[frame.row : stop - 1, part.arm]
    before = bool(episode.opened_NA[max(0, frame.row - 1), part.arm])
    pose = np.round(episode.tools_NA3[frame.row, part.arm], asked.decimals)
    if asked.decimals < 3:
        # What the text tells is what is counted from, and to.
        way = np.round(way, asked.decimals)
    found = actions_of(way, np.append(opened, opened[-1:]), rate_hz=asked.rate_hz, merging=asked.merging, before=before)
    if len(found) > MAX_ACTIONS:
        asked.left_out[f"parts of more than {MAX_ACTIONS} actions"] += 1
        return
    asked.actions.append(found)
    delta = moved(part, episode.tools_NA3, frame.row)
    first = frame == frames.begun(part)
    if frame.row != part.start and not (first and asked.described):
        plan = plan_from(asked, part, episode.tools_NA3, episode.opened_NA, frame.row)
    entry = {
        **shared,
        "images": [frames.written(frame)],
        "subtask": step,
        "arm": asked.spec.arms[part.arm].name,
        "pose": [*pose.tolist(), float(before)],
    }
    yield {**entry, "kind": "plan", "plan": plan}
    if asked.where and _reaches(episode.parts[number:]):
        yield {**entry, "kind": "reach", "plan": plan}
    yield {
        **entry,
        "kind": "actions",
        "plan": plan,
        "actions": actions_text(found, decimals=asked.decimals),
        "first": first,
    }
    for axis, (name, *_) in enumerate(AXES):
        yield {**entry, "kind": "direction", "axis": name, "direction": direction_word(float(delta[axis]), axis)}


def _reaches(parts: Sequence[Part]) -> bool:
    """Return whether the first of `parts` goes across to what the arm then takes: only a picture shows its place."""
    first, *later = parts
    grips = [part.phase for part in later if part.arm == first.arm and part.phase in ("open", "close")]
    return first.phase == "across" and not first.holding and grips[:1] == ["close"]


def _ways(asked: Asked, episode: Episode, shared: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield how far it is from place to place near where the tool has been: what plans subtract, without a picture."""
    rng = np.random.default_rng([asked.seed, episode.number])
    moving = [part.arm for part in episode.parts]
    for _ in range(WAYS):
        places = episode.tools_NA3[rng.integers(len(episode.tools_NA3), size=2), rng.choice(moving)]
        start, end = places + rng.uniform(-AROUND_M, AROUND_M, places.shape)
        text = {"start": centimetres(start), "end": centimetres(end), "way": way_text(start, end)}
        yield {**shared, "kind": "way", "images": [], **text}


def _completions(asked: Asked, episode: Episode, frames: Frames, shared: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield whether each part was completed between two images: once as it was, once at another moment.

    The other moment is the start of another part (as published) or early in the part itself. A pair that shows one
    picture twice, or as not completed what another pair shows as completed, is left out.
    """
    rng = random.Random(asked.seed * 1_000_003 + episode.number)
    steps = [step for step, _ in episode.words]
    for number, part in enumerate(episode.parts):
        before, done = frames.begun(part), frames.after(part.stop)
        others = [frames.begun(other) for k, other in enumerate(episode.parts) if k not in (number, number + 1)]
        latest = part.start + EARLY_SHARE * (part.stop - part.start)
        early = [frame for frame in frames.all if before.row < frame.row < latest]
        strange = [
            frame for frame in (early if early and rng.random() < 0.5 else others) if frame not in (before, done)
        ]
        pairs = [(done, True), *((frame, False) for frame in rng.sample(strange, min(1, len(strange))))]
        for after, success in pairs:
            if after == before:
                asked.left_out["completions between one picture and itself"] += 1
                continue
            yield {
                **shared,
                "kind": "completion",
                "images": [frames.written(before), frames.written(after)],
                "subtask": steps[number],
                "next": (*steps, "none")[number + 1],
                "success": success,
            }
