# SPDX-License-Identifier: Apache-2.0
"""Turn a robot data set into language: subtasks, plans, actions, directions, completions. `./chatvla relabel`.

In: a data set in the LeRobot layout, ours or imported from bags. Out, whole or not at all:
  language.jsonl  one question a line: kind, images, what its prompt is filled with, answer; free of any prompt's words
  info.json       robot, views, gripper openings, how the tool is turned where, statistics, source, counts
  images/         the frames that questions show
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from chatvla_control.cartesian import arm_models, cartesian_rows, tool_poses
from chatvla_control.robot_spec import RobotSpec, robot_spec
from chatvla_control.rotations import six_from_matrix
from chatvla_policy.processing.statistics import Statistics
from chatvla_policy.strict_json import to_plain
from chatvla_policy.vlm2vla.prompts import with_arm
from chatvla_policy.vlm2vla.text_forms import actions_text
from chatvla_training.data.episodes import DatasetError, EpisodeDataset
from chatvla_training.progress import progress
from chatvla_training.vlm2vla.describe import AXES, EndpointDescriber, direction_word, plan_text, step_text, things_of
from chatvla_training.vlm2vla.split import Merging, Part, actions_of, parts_of

__all__ = ["RelabelSettings", "main", "relabel"]

Array = NDArray[np.float64]
ANCHORS = 48
"""Poses per arm that say how the tool is turned where."""


@dataclass(frozen=True, kw_only=True)
class RelabelSettings:
    """How to relabel."""

    merging: Merging = field(default_factory=Merging)
    starts: int = 1
    """Frames of each part from which its rest is asked for: 1 is its first frame alone, as published."""
    seed: int = 0
    describer: EndpointDescriber | None = None


@dataclass(frozen=True, kw_only=True)
class _Episode:
    """One episode with its parts and words."""

    number: int
    task: str
    thought: str
    facts: dict[str, Any]
    tools_NA3: Array
    opened_NA: NDArray[np.bool_]
    parts: list[Part]
    words: list[tuple[str, str]]
    frames: list[tuple[int, int]]
    """(row within the episode, sample index) of each frame."""


def relabel(source: Path, out: Path, settings: RelabelSettings) -> dict[str, int]:
    """Write `out`; return how many questions of each kind it holds.

    Raises DatasetError when `source` is no data set of a robot with Cartesian data, FileExistsError when `out` exists.
    """
    if out.exists():
        raise FileExistsError(f"{out} exists already; choose another folder or remove it")
    splits = {}
    for split in ("train", "val"):
        try:
            splits[split] = EpisodeDataset(source, split=split, horizon=1)
        except DatasetError:
            if split == "train":
                raise
    data = splits["train"]
    spec = robot_spec(data.robot)
    if not arm_models(spec):
        raise DatasetError(f"robot {spec.name} has no Cartesian data; its tools' ways are not known (docs/robots.md)")
    aside = out.with_name(f".{out.name}.making")
    shutil.rmtree(aside, ignore_errors=True)
    (aside / "images").mkdir(parents=True)
    grippers = _grippers(spec, data)
    counts: Counter[str] = Counter()
    actions: list[Array] = []
    with (aside / "language.jsonl").open("w", encoding="utf-8") as stream:
        for split, dataset in splits.items():
            for episode in _episodes(spec, dataset, grippers, settings):
                views = _Frames(dataset, episode, aside / "images")
                for entry in _questions(spec, dataset, episode, settings, views, actions):
                    counts[entry["kind"]] += 1
                    stream.write(json.dumps({"split": split, **entry}) + "\n")
    if not counts:
        raise DatasetError(f"{source} has no motion to describe")
    info = {
        "robot": spec.name,
        "views": list(data.views),
        "step_period_s": data.step_period_s,
        "open_m": grippers[0],
        "closed_m": grippers[1],
        "anchors": _anchors(spec, data, settings.seed),
        "state": to_plain(Statistics.from_samples(spec.joint_names, data.states_ND)),
        "action": to_plain(Statistics.from_samples(("dx", "dy", "dz", "gripper"), np.concatenate(actions))),
        "merging": asdict(settings.merging),
        "starts": settings.starts,
        "described_by": "rules" if settings.describer is None else dict(settings.describer.counts),
        "source": {"name": data.name, "sha256": data.sha256()},
        "questions": dict(counts),
    }
    (aside / "info.json").write_text(json.dumps(info, indent=1) + "\n", encoding="utf-8")
    aside.replace(out)
    return dict(counts)


def _grippers(spec: RobotSpec, data: EpisodeDataset) -> tuple[float, float]:
    """Return the commanded openings for open and closed [m]: medians above and below the middle of their range."""
    columns = [arm.gripper for arm in arm_models(spec)]
    values = data.actions_ND[:, columns].astype(np.float64).ravel()
    middle = (values.min() + values.max()) / 2
    above, below = values[values > middle], values[values <= middle]
    return float(np.median(above if len(above) else values)), float(np.median(below if len(below) else values))


def _episodes(
    spec: RobotSpec, data: EpisodeDataset, grippers: tuple[float, float], settings: RelabelSettings
) -> Iterator[_Episode]:
    """Yield the split's episodes with their parts and words."""
    samples: dict[int, list[int]] = {}
    for index in range(len(data)):
        samples.setdefault(data.episode_of(index), []).append(index)
    columns = [arm.gripper for arm in arm_models(spec)]
    for number, indices in progress(list(samples.items()), "relabel", unit="episode"):
        first, last = (data.episodes[number][f"dataset_{side}_index"] for side in ("from", "to"))
        poses = cartesian_rows(spec, data.states_ND[first:last].astype(np.float64))
        tools_NA3 = np.stack([poses[:, arm.column : arm.column + 3] for arm in arm_models(spec)], axis=1)
        opened_NA = data.actions_ND[first:last, columns] > (grippers[0] + grippers[1]) / 2
        parts = parts_of(tools_NA3, opened_NA, rate_hz=1.0 / data.step_period_s)
        start = data.sample(indices[0], 0)
        facts = data.facts(number)
        rules = _words(parts, tools_NA3, opened_NA, facts)
        if settings.describer is not None and parts:
            moves = [(_moved(part, tools_NA3), bool(opened_NA[part.stop - 1, part.arm])) for part in parts]
            rules = settings.describer(start.instruction, moves, rules)
        yield _Episode(
            number=number,
            task=start.instruction,
            thought=start.reasoning,
            facts=facts,
            tools_NA3=tools_NA3,
            opened_NA=opened_NA,
            parts=parts,
            words=[(with_arm(spec, part.arm, step), plan) for part, (step, plan) in zip(parts, rules, strict=True)],
            frames=[(data.row_of(index) - first, index) for index in indices],
        )


def _words(
    parts: Sequence[Part], tools_NA3: Array, opened_NA: NDArray[np.bool_], facts: dict[str, Any]
) -> list[tuple[str, str]]:
    """Return subtask and plan of each part, by rules."""
    thing, goal = things_of(facts)
    words, carried = [], False
    for part in parts:
        before = bool(opened_NA[max(0, part.start - 1), part.arm])
        after = bool(opened_NA[part.stop - 1, part.arm])
        plan = plan_text(_moved(part, tools_NA3), before=before, after=after)
        words.append((step_text(part, thing=thing, goal=goal, carried=carried), plan))
        carried = carried or part.phase == "open"
    return words


def _moved(part: Part, tools_NA3: Array, start: int | None = None) -> Array:
    first = part.start if start is None else start
    return tools_NA3[min(part.stop, len(tools_NA3) - 1), part.arm] - tools_NA3[first, part.arm]


class _Frames:
    """Writes frames that questions show, each once."""

    def __init__(self, data: EpisodeDataset, episode: _Episode, folder: Path) -> None:
        self._data, self._episode, self._folder = data, episode, folder

    def at(self, row: int) -> tuple[int, int]:
        """Return (row, index) of the newest frame at `row`."""
        return max((frame for frame in self._episode.frames if frame[0] <= row), default=self._episode.frames[0])

    def written(self, frame: tuple[int, int]) -> dict[str, str]:
        """Return the file of each view of a frame."""
        names = {
            view: f"{self._data.split}-{self._episode.number:06d}-{frame[0]:05d}-{view}.jpg"
            for view in self._data.views
        }
        if not all((self._folder / name).is_file() for name in names.values()):
            images = self._data.sample(frame[1], 0).images
            for view, name in names.items():
                Image.fromarray(images[view]).save(self._folder / name, quality=90)
        return names


def _questions(
    spec: RobotSpec,
    data: EpisodeDataset,
    episode: _Episode,
    settings: RelabelSettings,
    frames: _Frames,
    actions: list[Array],
) -> Iterator[dict[str, Any]]:
    """Yield the questions of one episode; appends its actions to `actions`."""
    if not episode.parts:
        return
    rng = random.Random(settings.seed * 1_000_003 + episode.number)
    steps = [step for step, _ in episode.words]
    shared = {"episode": episode.number, "task": episode.task}
    yield {
        **shared,
        "kind": "subtasks",
        "images": [frames.written(frames.at(0))],
        "subtasks": steps,
        "thought": episode.thought,
        "facts": episode.facts,
    }
    for number, part in enumerate(episode.parts):
        for row in _starts(part, episode, settings.starts):
            yield from _of_part(spec, data, episode, number, row, settings, frames, actions, shared)
        following = (*steps, "none")[number + 1]
        others = [other for k, other in enumerate(episode.parts) if k != number + 1]
        for success in (True, False):
            # Nothing of the part is done at its own start: the surest example that it was not completed.
            after = part.stop if success else rng.choice(others).start if rng.random() < 0.5 else part.start
            yield {
                **shared,
                "kind": "completion",
                "images": [frames.written(frames.at(part.start)), frames.written(frames.at(after))],
                "subtask": steps[number],
                "next": following,
                "success": success,
            }


def _starts(part: Part, episode: _Episode, count: int) -> list[int]:
    """Return the rows of a part from which its rest is asked for, the first among them."""
    rows = [row for row, _ in episode.frames if part.start < row < part.stop - 1]
    chosen = [rows[int(k)] for k in np.linspace(0, len(rows), count, endpoint=False)[1:]] if rows else []
    return [part.start, *dict.fromkeys(chosen)]


def _of_part(
    spec: RobotSpec,
    data: EpisodeDataset,
    episode: _Episode,
    number: int,
    start: int,
    settings: RelabelSettings,
    frames: _Frames,
    actions: list[Array],
    shared: dict[str, Any],
) -> Iterator[dict[str, Any]]:
    """Yield plan, actions and directions of what is left of a part from row `start` on."""
    part, (step, plan) = episode.parts[number], episode.words[number]
    stop = min(part.stop + 1, len(episode.tools_NA3))
    way, opened = episode.tools_NA3[start:stop, part.arm], episode.opened_NA[start : stop - 1, part.arm]
    moved = actions_of(way, np.append(opened, opened[-1:]), rate_hz=1.0 / data.step_period_s, merging=settings.merging)
    actions.append(moved)
    delta = _moved(part, episode.tools_NA3, start)
    before = bool(episode.opened_NA[max(0, start - 1), part.arm])
    if start != part.start:
        plan = plan_text(delta, before=before, after=bool(episode.opened_NA[part.stop - 1, part.arm]))
    entry = {
        **shared,
        "images": [frames.written(frames.at(start))],
        "subtask": step,
        "arm": spec.arms[part.arm].name,
        "pose": [*np.round(episode.tools_NA3[start, part.arm], 3).tolist(), float(before)],
    }
    yield {**entry, "kind": "plan", "plan": plan}
    yield {**entry, "kind": "actions", "plan": plan, "actions": actions_text(moved), "first": start == part.start}
    for axis, (name, *_) in enumerate(AXES):
        yield {**entry, "kind": "direction", "axis": name, "direction": direction_word(float(delta[axis]), axis)}


def _anchors(spec: RobotSpec, data: EpisodeDataset, seed: int) -> dict[str, list[list[float]]]:
    """Return positions and 6D rotations of each arm's tool, spread over where it has been (farthest points first)."""
    rows = np.random.default_rng(seed).permutation(len(data.states_ND))[:4000]
    poses = np.stack([tool_poses(spec, data.states_ND[row].astype(np.float64)) for row in rows])
    found = {}
    for number, arm in enumerate(spec.arms):
        places = poses[:, number, :3, 3]
        chosen = [0]
        distance = np.linalg.norm(places - places[0], axis=1)
        while len(chosen) < min(ANCHORS, len(places)) and distance.max() > 0.01:
            chosen.append(int(np.argmax(distance)))
            distance = np.minimum(distance, np.linalg.norm(places - places[chosen[-1]], axis=1))
        turns = six_from_matrix(poses[chosen, number, :3, :3])
        found[arm.name] = np.round(np.concatenate([places[chosen], turns], axis=1), 4).tolist()
    return found


def main(arguments: Sequence[str]) -> int:
    """Run the verb; return the exit code."""
    parser = argparse.ArgumentParser(prog="./chatvla relabel", description="Describe a robot data set in language.")
    parser.add_argument("data", type=Path, help="robot data set, made by ./chatvla demos or imported from bags")
    parser.add_argument("--out", type=Path, required=True, help="folder to write; must not exist")
    parser.add_argument("--step", type=float, default=0.025, help="metres along one axis that complete an action")
    parser.add_argument("--limit", type=float, default=0.05, help="metres that no action exceeds")
    parser.add_argument("--starts", type=int, default=1, help="frames of each part from which its rest is asked for")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--describe-url", default="", help="OpenAI-compatible endpoint that words the parts")
    parser.add_argument("--describe-model", default="", help="model to ask there")
    options = parser.parse_args(arguments)
    describer = EndpointDescriber(options.describe_url, options.describe_model) if options.describe_url else None
    merging = Merging(step_m=options.step, limit_m=options.limit)
    settings = RelabelSettings(merging=merging, starts=options.starts, seed=options.seed, describer=describer)
    try:
        counts = relabel(options.data, options.out, settings)
    except (DatasetError, FileExistsError) as error:
        print(f"relabel: {error}", file=sys.stderr)
        return 1
    print(f"{options.out}: " + ", ".join(f"{count} {kind}" for kind, count in counts.items()))
    return 0
