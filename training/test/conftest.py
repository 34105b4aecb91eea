# SPDX-License-Identifier: Apache-2.0
"""Small data and recipes that train in seconds."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from chatvla_control.robot_spec import robot_spec
from chatvla_training.data.assemble import assemble
from chatvla_training.data.record import EpisodeRecord, encode_image, save_record
from chatvla_training.training_run import train_recipe

from .small_runs import small_recipe

FACTS = {
    "task": "math_match",
    "split": "in_domain",
    "equation": "3+4",
    "answer": "7",
    "cards": [["7", "left"], ["1", "middle"], ["12", "right"]],
}


def arm_record(seed: int, rows: int = 30) -> EpisodeRecord:
    """Return an episode of the ARX R5 that moves smoothly from home."""
    spec = robot_spec("arx_r5")
    rng = np.random.default_rng(seed)
    way = np.linspace(0, 1, rows)[:, None] * rng.uniform(0.0, 0.2, spec.width) + np.array(spec.home)
    frame_rows = np.arange(0, rows, 10)
    frames = [encode_image(rng.integers(0, 255, (48, 64, 3), np.uint8), codec="png") for _ in frame_rows]
    return EpisodeRecord(
        instruction="Pick the card.",
        rate_hz=50.0,
        states=way.astype(np.float32),
        actions=(way + 0.01).astype(np.float32),
        frame_rows=frame_rows,
        frames={"top": frames},
        reasoning=["I should pick the left card."] * len(frame_rows),
        facts=FACTS | {"seed": seed},
    )


@pytest.fixture(scope="session")
def arm_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("arm")
    spec = robot_spec("arx_r5")
    paths = [folder / f"{seed}.npz" for seed in range(4)]
    for seed, path in enumerate(paths):
        save_record(arm_record(seed), path)
    out = folder / "set"
    assemble(paths, out, robot=spec.name, joint_names=spec.joint_names, provenance={}, validation_share=0.25)
    return out


@pytest.fixture(scope="session")
def llava_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("llava")
    rng = np.random.default_rng(0)
    entries = []
    for number in range(6):
        Image.fromarray(rng.integers(0, 255, (40, 60, 3), np.uint8)).save(folder / f"{number}.png")
        turns = [("human", "<image>\nWhat is this?"), ("gpt", "noise")] * (1 + number)
        entries.append(
            {"id": number, "image": f"{number}.png", "conversations": [{"from": a, "value": b} for a, b in turns]}
        )
    path = folder / "chat.json"
    path.write_text(json.dumps(entries))
    return path


@pytest.fixture(scope="session")
def stage1(tmp_path_factory: pytest.TempPathFactory, arm_data: Path, llava_file: Path) -> Path:
    """Return a finished stage-1 run."""
    run = tmp_path_factory.mktemp("runs") / "stage1"
    train_recipe(small_recipe(arm_data, llava_file), run)
    return run
