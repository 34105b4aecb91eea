# SPDX-License-Identifier: Apache-2.0
"""A small data set in which the left arm goes across, down, grips, goes up, back and lets go."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from chatvla_control.cartesian import cartesian_rows, joint_rows
from chatvla_control.robot_spec import robot_spec
from chatvla_training.data.assemble import assemble
from chatvla_training.data.record import EpisodeRecord, encode_image, save_record

WAYS = ((0.06, 0.04, 0.0), (0.0, 0.0, -0.06), None, (0.0, 0.0, 0.06), (-0.06, 0.0, 0.0), None)
"""Left tool's ways [m]; None turns the gripper over. Twenty rows each, ten at rest around a gripper's turn."""
FACTS = {
    "task": "math_match",
    "split": "in_domain",
    "equation": "3+4",
    "answer": "7",
    "cards": [["7", "left"], ["1", "middle"], ["12", "right"]],
}


def picks_set(
    folder: Path, *, facts: Sequence[Mapping[str, Any]], views: Sequence[str] = ("top",), every: int = 5
) -> Path:
    """Write a data set of one episode for each of `facts`, the last half of them held out; a frame `every` rows."""
    spec = robot_spec("arx_r5")
    home = np.array(spec.home)
    place, grip, poses = cartesian_rows(spec, home[None])[0], 0.08, []
    for way in WAYS:
        if way is None:
            grip = 0.04 if grip == 0.08 else 0.08
            poses += [np.append(place[:9], grip)] * 10
            continue
        for share in np.linspace(0, 1, 20):
            poses.append(np.append(place[:3] + share * np.array(way), [*place[3:9], grip]))
        place = np.append(poses[-1][:9], place[9:])
    rows = np.repeat(cartesian_rows(spec, home[None]), len(poses), axis=0)
    rows[:, :10] = poses
    joints = joint_rows(spec, rows, start=home).astype(np.float32)
    frames = np.arange(0, len(poses), every)
    rng = np.random.default_rng(0)
    paths = []
    for seed, known in enumerate(facts):
        pictures = {
            view: [encode_image(rng.integers(0, 255, (48, 64, 3), np.uint8), codec="png") for _ in frames]
            for view in views
        }
        record = EpisodeRecord(
            instruction="Pick the card.",
            rate_hz=50.0,
            states=joints,
            actions=joints,
            frame_rows=frames,
            frames=pictures,
            reasoning=["3+4=7. I should pick the left card."] * len(frames),
            facts=FACTS | dict(known) | {"seed": seed},
        )
        paths.append(folder / f"{seed}.npz")
        save_record(record, paths[-1])
    assemble(paths, folder / "set", robot=spec.name, joint_names=spec.joint_names, provenance={}, validation_share=0.5)
    return folder / "set"


def lines(folder: Path, kind: str, *, split: str = "train") -> list[dict[str, Any]]:
    """Return the questions of one kind and split of a relabelled data set."""
    entries = [json.loads(line) for line in (folder / "language.jsonl").read_text().splitlines()]
    return [entry for entry in entries if entry["kind"] == kind and entry["split"] == split]
