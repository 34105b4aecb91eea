# SPDX-License-Identifier: Apache-2.0
"""Turn a robot data set into language: subtasks, plans, actions, directions, completions. `./chatvla relabel`.

In: a data set in the LeRobot layout, ours or imported from bags. Out, whole or not at all:
  language.jsonl  one question a line: kind, images, what its prompt is filled with, answer; free of any prompt's words
  info.json       robot, views, gripper openings, how the tool is turned where, statistics, source, counts
  images/         the frames that questions show
Episodes in which the arm was pushed are left out: where it went is not where it was meant to go.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from chatvla_control.argument_types import count, positive
from chatvla_control.cartesian import arm_models, cartesian_rows, tool_poses
from chatvla_control.robot_spec import RobotSpec, robot_spec
from chatvla_control.rotations import six_from_matrix
from chatvla_policy.endpoint_answer import EndpointError
from chatvla_policy.processing.statistics import Statistics
from chatvla_policy.strict_json import to_plain
from chatvla_policy.vlm2vla.prompts import with_arm
from chatvla_training.data.episodes import DatasetError, EpisodeDataset
from chatvla_training.data.errors import CorruptSampleError
from chatvla_training.progress import progress
from chatvla_training.vlm2vla.describe import EndpointDescriber, step_texts, things_of
from chatvla_training.vlm2vla.episode_questions import (
    Asked,
    Episode,
    Frame,
    Frames,
    episode_questions,
    moved,
    plan_from,
)
from chatvla_training.vlm2vla.split import Merging, parts_of

__all__ = ["RelabelSettings", "main", "relabel"]

Array = NDArray[np.float64]
ANCHORS = 48
"""Poses per arm that say how the tool is turned where."""


@dataclass(frozen=True, kw_only=True)
class RelabelSettings:
    """How to relabel."""

    merging: Merging = field(default_factory=Merging)
    starts: int = 4
    """Frames of each part from which its rest is asked for, the first among them; 1, its first frame alone, is as
    published. With more, a policy that went astray finds its way on."""
    pushed: bool = False
    """Use episodes in which the arm was pushed, too."""
    decimals: int = 3
    """Of lengths [m] in texts. Departure: 2 halves the digits that a small model has to get right."""
    where: bool = False
    """Plans by rules say, axis by axis, from where to where. Departure: a small model subtracts beside the numbers."""
    seed: int = 0
    describer: EndpointDescriber | None = None


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
    used: dict[str, list[int]] = {}
    asked = Asked(
        spec=spec,
        rate_hz=1.0 / data.step_period_s,
        merging=settings.merging,
        starts=settings.starts,
        seed=settings.seed,
        described=settings.describer is not None,
        decimals=settings.decimals,
        where=settings.where,
        actions=[],
        left_out=Counter(),
    )
    with (aside / "language.jsonl").open("w", encoding="utf-8") as stream:
        for split, dataset in splits.items():
            thoughts = dataset.texts()
            for episode, frames in _episodes(asked, dataset, grippers, settings):
                used.setdefault(split, []).append(episode.number)
                views = Frames(dataset, episode, frames, aside / "images")
                for entry in episode_questions(asked, episode, views, thoughts):
                    counts[entry["kind"]] += 1
                    stream.write(json.dumps({"split": split, **entry}) + "\n")
    if not counts:
        why = "".join(f"; left out: {count} {reason}" for reason, count in asked.left_out.items())
        raise DatasetError(f"{source} has no motion to describe{why}")
    info = {
        "robot": spec.name,
        "views": list(data.views),
        "step_period_s": data.step_period_s,
        "open_m": grippers[0],
        "closed_m": grippers[1],
        "anchors": _anchors(spec, data, used.get("train", []), settings.seed),
        "state": to_plain(Statistics.from_samples(spec.joint_names, data.states_ND)),
        "action": to_plain(Statistics.from_samples(("dx", "dy", "dz", "gripper"), np.concatenate(asked.actions))),
        "merging": asdict(settings.merging),
        "starts": settings.starts,
        "decimals": settings.decimals,
        "where": settings.where,
        "episodes": {split: len(numbers) for split, numbers in used.items()},
        "longest_list": max(map(len, asked.actions)),
        "left_out": dict(asked.left_out),
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
    asked: Asked, data: EpisodeDataset, grippers: tuple[float, float], settings: RelabelSettings
) -> Iterator[tuple[Episode, list[Frame]]]:
    """Yield the split's episodes with their parts and words, and their frames."""
    spec = asked.spec
    samples: dict[int, list[int]] = {}
    for index in range(len(data)):
        samples.setdefault(data.episode_of(index), []).append(index)
    columns = [arm.gripper for arm in arm_models(spec)]
    for number, indices in progress(list(samples.items()), "relabel", unit="episode"):
        facts = data.facts(number)
        if facts.get("pushes") and not settings.pushed:
            asked.left_out["episodes in which the arm was pushed (--pushed takes them)"] += 1
            continue
        first, last = (data.episodes[number][f"dataset_{side}_index"] for side in ("from", "to"))
        poses = cartesian_rows(spec, data.states_ND[first:last].astype(np.float64))
        tools_NA3 = np.stack([poses[:, arm.column : arm.column + 3] for arm in arm_models(spec)], axis=1)
        opened_NA = data.actions_ND[first:last, columns] > (grippers[0] + grippers[1]) / 2
        parts = parts_of(tools_NA3, opened_NA, rate_hz=asked.rate_hz)
        task = data.sample(indices[0], 0).instruction
        plans = [plan_from(asked, part, tools_NA3, opened_NA, part.start) for part in parts]
        rules = list(zip(step_texts(parts, things_of(facts)), plans, strict=True))
        if settings.describer is not None and parts:
            moves = [(moved(part, tools_NA3), bool(opened_NA[part.stop - 1, part.arm])) for part in parts]
            rules = settings.describer(task, moves, rules)
        episode = Episode(
            number=number,
            task=task,
            facts=facts,
            tools_NA3=tools_NA3,
            opened_NA=opened_NA,
            parts=parts,
            words=[(with_arm(spec, part.arm, step), plan) for part, (step, plan) in zip(parts, rules, strict=True)],
        )
        yield episode, [Frame(row=data.row_of(index) - first, index=index) for index in indices]


def _anchors(spec: RobotSpec, data: EpisodeDataset, episodes: Sequence[int], seed: int) -> dict[str, list[list[float]]]:
    """Return positions and 6D rotations of each arm's tool, spread over where it has been (farthest points first)."""
    if not episodes:
        raise DatasetError(
            f"{data.folder}: no episode of its training split can be used; record more, or give --pushed"
        )
    bounds = [[data.episodes[number][f"dataset_{side}_index"] for side in ("from", "to")] for number in episodes]
    rows = np.concatenate([np.arange(first, last) for first, last in bounds])
    rows = np.random.default_rng(seed).permutation(rows)[:4000]
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
    parser.add_argument("--step", type=positive, default=0.025, help="metres along one axis that complete an action")
    parser.add_argument(
        "--limit", type=positive, default=0.05, help="metres that no action exceeds (to the millimetre)"
    )
    parser.add_argument("--starts", type=count, default=4, help="frames of each part from which its rest is asked for")
    parser.add_argument("--decimals", type=int, choices=(2, 3), default=3, help="of lengths in metres")
    parser.add_argument("--where", action="store_true", help="plans say from where to where, in centimetres")
    parser.add_argument("--pushed", action="store_true", help="use episodes in which the arm was pushed, too")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--describe-url", default="", help="OpenAI-compatible endpoint that words the parts")
    parser.add_argument("--describe-model", default="", help="model to ask there")
    options = parser.parse_args(arguments)
    describer = EndpointDescriber(options.describe_url, options.describe_model) if options.describe_url else None
    merging = Merging(step_m=options.step, limit_m=options.limit)
    settings = RelabelSettings(
        merging=merging,
        starts=options.starts,
        pushed=options.pushed,
        decimals=options.decimals,
        where=options.where,
        seed=options.seed,
        describer=describer,
    )
    try:
        counts = relabel(options.data, options.out, settings)
    except (DatasetError, CorruptSampleError, EndpointError, OSError) as error:
        print(f"relabel: {error}", file=sys.stderr)
        return 1
    print(f"{options.out}: " + ", ".join(f"{count} {kind}" for kind, count in counts.items()))
    if describer is not None:
        print(
            f"descriptions: {describer.counts['worded']} episodes worded by the server, "
            f"{describer.counts['kept']} kept the rules' words"
        )
    return 0
