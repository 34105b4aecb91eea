# SPDX-License-Identifier: Apache-2.0
"""A diffusion policy's folder loads where model, robot and cameras belong together, and runs in the stored types."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from chatvla_policy.checkpoint import CheckpointError, RobotSetup
from chatvla_policy.checkpoint.files import MANIFEST, write_manifest
from chatvla_policy.model.action import Embodiment, action_size
from chatvla_policy.model.diffusion_policy import DiffusionPolicyConfig, DiffusionPolicyModel
from chatvla_policy.systems import load_policy
from chatvla_policy.systems.diffusion_policy import DiffusionPolicy, save_diffusion_policy


def make_model(*, robot: str = "arx_r5", width: int = 14, **action: object) -> DiffusionPolicyModel:
    embodiment = Embodiment(name=robot, state_width=width, action_width=width, horizon=8)
    fields = {"conditioning": "none", "queries": 1, "embodiments": (embodiment,), **action}
    torch.manual_seed(0)
    return DiffusionPolicyModel(
        DiffusionPolicyConfig(
            action=action_size("tiny", **fields),
            image_width=32,
            image_height=24,
            channels=(8, 16),
            blocks=1,
            keypoints=4,
            width=16,
        )
    )


@pytest.fixture
def setup(world) -> RobotSetup:
    return RobotSetup(spec=world.spec, cameras=("top",), statistics=world.statistics)


def test_what_is_saved_loads_and_acts(setup: RobotSetup, world, tmp_path: Path) -> None:
    save_diffusion_policy(tmp_path / "c", make_model(), (setup,), {})
    chunk = load_policy(tmp_path / "c").infer(world.observation()).chunk
    assert chunk.actions.shape == (8, 14)


def test_text_is_refused_where_nothing_reads_it(setup: RobotSetup) -> None:
    with pytest.raises(ValueError, match="reads no text"):
        DiffusionPolicy(make_model(), setup).check_forced("I should pick the left card.")


def test_weights_in_several_types_are_run_as_they_are(setup: RobotSetup, world) -> None:
    model = make_model().bfloat16()
    model.expert.robots.float()
    chunk = DiffusionPolicy(model, setup).infer(world.observation()).chunk
    assert np.isfinite(chunk.actions).all()
    assert {weight.dtype for weight in model.parameters()} == {torch.float32, torch.bfloat16}


@pytest.mark.parametrize(
    ("model", "change", "message"),
    [
        ({}, {"cameras": ("top", "wrist")}, r"has 2 cameras, the model sees 1 \(queries\)"),
        ({"queries": 2}, {}, "has 1 cameras, the model sees 2"),
        ({"robot": "franka"}, {}, "no heads for robot 'arx_r5'; it has: franka"),
        ({"width": 8}, {}, r"has \(14, 14\) state and action values, its heads take \(8, 8\)"),
    ],
)
def test_model_for_another_robot_is_refused(
    setup: RobotSetup, tmp_path: Path, model: dict, change: dict, message: str
) -> None:
    save_diffusion_policy(tmp_path / "c", make_model(**model), (replace(setup, **change),), {})
    with pytest.raises(CheckpointError, match=message):
        load_policy(tmp_path / "c")


def test_scale_that_a_clipping_expert_cannot_fill_is_refused(setup: RobotSetup, world, tmp_path: Path) -> None:
    statistics = replace(world.statistics, action=replace(world.statistics.action, method="mean_std"))
    scaled = replace(setup, statistics=statistics)
    save_diffusion_policy(tmp_path / "clipped", make_model(), (scaled,), {})
    with pytest.raises(CheckpointError, match="one standard deviation about the mean; train with quantile or min_max"):
        load_policy(tmp_path / "clipped")
    save_diffusion_policy(tmp_path / "free", make_model(clip_sample=False), (scaled,), {})
    assert load_policy(tmp_path / "free").setup == scaled


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda data: data.update(channels=[]), r"channels are \(\), must be multiples of 8"),
        (lambda data: data.update(channels=[8, 4]), "must be multiples of 8"),
        (lambda data: data.update(image_width=0), "image_width is 0, must lie in 1"),
        (lambda data: data.update(keypoints=-1), "keypoints is -1, must lie in 1"),
    ],
)
def test_size_that_cannot_be_built_is_named(setup: RobotSetup, tmp_path: Path, change: Callable, message: str) -> None:
    save_diffusion_policy(tmp_path, make_model(), (setup,), {})
    data = json.loads((tmp_path / "config.json").read_text())
    change(data)
    (tmp_path / "config.json").write_text(json.dumps(data))
    (tmp_path / MANIFEST).unlink()
    write_manifest(tmp_path)
    with pytest.raises(CheckpointError, match=message):
        load_policy(tmp_path)
