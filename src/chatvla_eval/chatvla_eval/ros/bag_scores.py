# SPDX-License-Identifier: Apache-2.0
"""Score the trials of a recorded bag as a rollout does: the same texts, truths, causes and numbers.

Where trials begin and end comes from a person's notes (real robots), else from the rollout's marks, else from the
simulator's resets. With marks, the scores are exactly those of the rollout that was recorded.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from chatvla_control.scene import SceneTruth
from chatvla_eval.bags.notes import NotedTrial, read_notes
from chatvla_eval.bags.topics import TRIAL_TOPIC
from chatvla_eval.ros.bag_messages import BagError, BagMessages, BagText, read_bag, truths_by_trial
from chatvla_eval.session import TrialSetup, Watch
from chatvla_eval.tasks import task_by_name
from chatvla_eval.trace import TrialTrace
from chatvla_eval.trial import Touched, score_trial
from chatvla_eval.trial_result import TrialResult

__all__ = ["ScoredBag", "bag_folders", "score_bag"]

_SPARE_S = 1e-6
"""Stamps survive the way through messages to a nanosecond."""
_MISSED_S = 0.5
"""A recording whose first look at a trial is this much later than its beginning began in the middle of it."""


@dataclass(frozen=True, kw_only=True)
class ScoredBag:
    """The trials of one bag."""

    name: str
    task: str
    setups: tuple[TrialSetup, ...]
    """What was asked in each of `trials`."""
    policy: str
    privileged: bool
    simulation: bool
    trials: tuple[TrialResult, ...]
    traces: tuple[TrialTrace, ...]
    unread: dict[str, str]


@dataclass(frozen=True, kw_only=True)
class _Window:
    """One trial of a bag: what was asked, from when to when [s, ROS time], what was true, and how it ended."""

    setup: TrialSetup
    from_s: float
    to_s: float
    truths: Sequence[SceneTruth]
    end: dict[str, Any]
    picked: str | None = None
    """Name of the object taken, where a person noted it."""


def bag_folders(paths: Sequence[Path]) -> list[Path]:
    """Return the bags among `paths` and in the folders among them, sorted by name, each once.

    Raises BagError for a path without any.
    """
    found: dict[Path, Path] = {}
    for path in paths:
        bags = [path] if (path / "metadata.yaml").is_file() else sorted(p.parent for p in path.glob("*/metadata.yaml"))
        if not bags:
            raise BagError(f"{path} is no bag and holds none: a bag is a folder with metadata.yaml")
        for bag in bags:
            found.setdefault(bag.resolve(), bag)
    return list(found.values())


def score_bag(folder: Path, *, name: str = "", namespace: str = "chatvla", report: bool = False) -> ScoredBag:
    """Return the scored trials of the bag in `folder`; with `report`, their traces too.

    `name` is what results call it, the folder's name where it is empty. Raises BagError, also for several tasks in one
    bag, and NotesError.
    """
    messages = read_bag(folder, namespace=namespace, pictures=report)
    notes = read_notes(folder)
    if notes is not None:
        windows = _noted(notes, messages)
    else:
        windows = _marked(messages) if messages.marks else _by_resets(messages)
    if not windows and messages.marks:
        raise BagError(f"{folder} holds no trial from its beginning to its end; record before the rollout begins")
    if not windows:
        raise BagError(
            f"{folder} shows no trial: no sim/bench_state; for a real robot, write trials.json beside its metadata.yaml"
        )
    tasks = sorted({window.truths[-1].task for window in windows})
    if len(tasks) > 1:
        raise BagError(f"{folder} holds trials of several tasks, {', '.join(tasks)}; record each task in its own bag")
    windows = [replace(window, setup=_as_told(window, messages)) for window in windows]
    own = [text for text in messages.texts if text.policy]
    return ScoredBag(
        name=name or folder.name,
        task=tasks[0],
        setups=tuple(window.setup for window in windows),
        policy=" + ".join(dict.fromkeys(text.policy for text in own)) or "unknown",
        privileged=any(text.privileged for text in own),
        simulation=notes is None,
        trials=tuple(_scored(window, messages) for window in windows),
        traces=tuple(_trace(window, messages) for window in windows) if report else (),
        unread=messages.unread,
    )


def _noted(notes: Sequence[NotedTrial], messages: BagMessages) -> list[_Window]:
    return [
        _Window(
            setup=TrialSetup(index=index, split=note.truth.split, seed=note.truth.seed, swap=note.truth.swap),
            from_s=messages.start_s + note.from_s,
            to_s=min(messages.start_s + note.to_s, messages.end_s),
            truths=(note.truth,),
            end={
                "timed_out": not note.picked,
                "elapsed_s": min(note.to_s, messages.end_s - messages.start_s) - note.from_s,
            },
            picked=note.picked,
        )
        for index, note in enumerate(notes)
    ]


def _marked(messages: BagMessages) -> list[_Window]:
    """Return the trials that a rollout marked from beginning to end."""
    truths = truths_by_trial(messages)
    windows = []
    begin: dict[str, Any] | None = None
    for mark in messages.marks:
        if mark["event"] == "begin":
            begin = mark
        elif begin is not None and mark["trial"] == begin["trial"] and mark["trial"] in truths:
            low, high = begin["stamp_s"] - _SPARE_S, mark["stamp_s"] + _SPARE_S
            setup = TrialSetup(**begin["setup"] | {"fonts": tuple(begin["setup"]["fonts"])})
            seen = [truth for truth in truths[mark["trial"]] if low <= truth.stamp_s <= high]
            # A mark is heard by who comes later, what happened before is not.
            if seen and seen[0].stamp_s > begin["stamp_s"] + _MISSED_S:
                why = f"the recording began {seen[0].stamp_s - begin['stamp_s']:.1f} s after trial {setup.index} did"
                messages.unread.setdefault(TRIAL_TOPIC, why)
            elif seen:
                to_s = begin["stamp_s"] + mark["elapsed_s"]
                windows.append(_Window(setup=setup, from_s=low, to_s=to_s, truths=seen, end=mark))
            begin = None
    return windows


def _by_resets(messages: BagMessages) -> list[_Window]:
    """Return the trials by the simulator's resets, each to its last valid truth."""
    windows = []
    for index, seen in enumerate(truths_by_trial(messages).values()):
        first, last = seen[0], seen[-1]
        setup = TrialSetup(index=index, split=first.split, seed=first.seed, swap=first.swap)
        end = {"timed_out": not last.placed, "elapsed_s": last.stamp_s - first.stamp_s}
        windows.append(_Window(setup=setup, from_s=first.stamp_s - _SPARE_S, to_s=last.stamp_s, truths=seen, end=end))
    return windows


def _scored(window: _Window, messages: BagMessages) -> TrialResult:
    watch = _watch(window, messages)
    touched = Touched()
    touched.see(watch)
    if window.picked is not None:
        touched.first = touched.name = window.picked
    task = task_by_name(window.truths[-1].task)
    return score_trial(task, window.setup, watch, touched, timed_out=bool(window.end.get("timed_out")))


def _watch(window: _Window, messages: BagMessages) -> Watch:
    """Return the last look at a trial, holding all that was seen before it."""
    return Watch(
        elapsed_s=float(window.end["elapsed_s"]),
        truth=window.truths[-1],
        texts=tuple(item.text for item in _texts(window, messages.texts)),
        finished=True,
        error=window.end.get("error", ""),
        refused=window.end.get("refused", ""),
        counts=window.end.get("counts", {}),
        seen=window.truths,
        motion=[item for item in messages.motion if window.from_s - 1.0 <= item[0] <= window.to_s],
    )


def _as_told(window: _Window, messages: BagMessages) -> TrialSetup:
    """Return the trial's setup, with the text that was forced: one that no mark tells is told by the text itself."""
    first = next(iter(_texts(window, messages.texts)), None)
    if window.setup.forced_reasoning or window.setup.force_correct or first is None or not first.forced:
        return window.setup
    return replace(window.setup, forced_reasoning=first.text)


def _texts(window: _Window, texts: Sequence[BagText]) -> tuple[BagText, ...]:
    """Return the distinct texts of a trial, as many as the rollout had seen when it ended."""
    found: list[BagText] = []
    for item in texts:
        fits = window.from_s <= item.stamp_s and (item.stamp_s <= window.to_s or "texts" in window.end)
        if fits and item.text and item.text not in [before.text for before in found[-1:]]:
            found.append(item)
    return tuple(found[: window.end.get("texts", len(found))])


def _trace(window: _Window, messages: BagMessages) -> TrialTrace:
    """Return the trace of a trial: what a rollout's would hold."""
    trace = TrialTrace()
    kept = [item for item in messages.motion if window.from_s <= item[0] <= window.to_s]
    chunks = [chunk for chunk in messages.chunks if window.from_s <= chunk.start_s <= window.to_s]
    texts = _texts(window, messages.texts)
    every = (
        max(1, round(0.1 / max(float(np.median(np.diff([time for time, _ in kept]))), 1e-3))) if len(kept) > 1 else 1
    )
    last = window.truths[-1]
    for stamp_s, joints in kept[::every]:
        known = tuple(item.text for item in texts if item.stamp_s <= stamp_s)
        look = Watch(elapsed_s=stamp_s - window.from_s, truth=last, texts=known, clock_s=stamp_s, joints=joints)
        trace.add(replace(look, chunks=tuple(chunks)))
    for stamp_s, image in messages.pictures:
        if window.from_s <= stamp_s <= window.to_s:
            trace.add_frame(stamp_s - window.from_s, image)
    return trace
