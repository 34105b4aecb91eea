# SPDX-License-Identifier: Apache-2.0
"""Run the frozen language model once over a data set and keep what the action expert reads (see data/features.py)."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor

from chatvla_control.robot_spec import robot_spec
from chatvla_policy.model.batch import VlaBatch, to_device
from chatvla_policy.model.chatvla2 import ChatVLA2
from chatvla_training.data.displacement import Displacement
from chatvla_training.data.episodes import EpisodeDataset
from chatvla_training.data.errors import CorruptSampleError
from chatvla_training.data.features import FeatureSource, FeatureStore, FeatureWriter, wording
from chatvla_training.data.samples import RobotSample, first_readable
from chatvla_training.progress import progress
from chatvla_training.recipe import Recipe

__all__ = ["keep_features"]


def keep_features(
    recipe: Recipe,
    model: ChatVLA2,
    collate: Callable[[Sequence[Any]], VlaBatch],
    data: EpisodeDataset,
    folder: Path,
    accelerator: Accelerator,
    *,
    init: str,
    unreadable: Callable[[CorruptSampleError], None] = lambda error: None,
) -> FeatureSource:
    """Return `data` with kept features, computing those that `folder` does not hold yet.

    `init` is the fingerprint of the checkpoint. With several devices the first computes and the others wait. Frames
    that can't be read are left out, each told to `unreadable` when its features would be computed.
    """
    draws = recipe.cache_draws if recipe.reword and data.split == "train" else 1
    settings = f"{draws} {recipe.cache_dtype} {recipe.precision} {recipe.seed} {recipe.frame_every} {recipe.brief}"
    settings += f" {recipe.text_age_s}" if recipe.text_age_s else ""
    key = hashlib.sha256(f"{init} {data.sha256()} {data.split} {settings}".encode()).hexdigest()[:16]
    place = folder / f"{data.split}-{key}"
    if accelerator.is_main_process and not (place / "features.json").exists():
        for other in folder.glob(f"{data.split}-*") if folder.exists() else ():
            if other != place:
                shutil.rmtree(other)
        _compute(recipe, model, collate, data, place, accelerator, draws, unreadable)
    accelerator.wait_for_everyone()
    starts = recipe.starts if data.split == "train" else 1
    displacement = _displacement(recipe, data) if data.split == "train" else None
    return FeatureSource(
        data, FeatureStore(place), draws=draws, seed=recipe.seed, starts=starts, displacement=displacement
    )


def _displacement(recipe: Recipe, data: EpisodeDataset) -> Displacement | None:
    if not recipe.displace_rad:
        return None
    rotary = tuple(joint.unit == "rad" for joint in robot_spec(data.robot).joints)
    return Displacement(sigma_rad=recipe.displace_rad, rotary=rotary, step_period_s=data.step_period_s)


def _tokens(model: ChatVLA2, collate: Callable[[Sequence[Any]], VlaBatch], data: EpisodeDataset) -> int:
    """Return how many states the action expert reads besides the reasoning's: action tokens, maybe image tokens."""
    seen = int((collate([first_readable(data)]).ids_BT == model.config.backbone.image_token).sum())
    return model.config.action.queries + (seen if model.config.action.sight else 0)


@torch.no_grad()
def _compute(
    recipe: Recipe,
    model: ChatVLA2,
    collate: Callable[[Sequence[Any]], VlaBatch],
    data: EpisodeDataset,
    place: Path,
    accelerator: Accelerator,
    draws: int,
    unreadable: Callable[[CorruptSampleError], None],
) -> None:
    model.eval().to(accelerator.device)
    writer = FeatureWriter(
        place,
        tokens=_tokens(model, collate, data),
        width=model.config.backbone.text.width,
        dtype=recipe.cache_dtype,
    )
    total, size = len(data) * draws, recipe.micro_batch
    starts = range(len(writer.lengths), total, size)
    told = ""
    for start in progress(starts, f"features of {data.name}", unit="batch", total=-(-total // size)):
        samples: list[RobotSample | None] = []
        for number in range(start, min(start + size, total)):
            try:
                samples.append(data.sample(*wording(data, number, draws=draws, seed=recipe.seed)))
            except CorruptSampleError as error:
                samples.append(None)
                if error.sample != told:
                    unreadable(error)
                told = error.sample
        read = iter(_features(model, collate, accelerator, [sample for sample in samples if sample is not None]))
        writer.append([None if sample is None else next(read) for sample in samples])
    writer.finish()


def _features(
    model: ChatVLA2,
    collate: Callable[[Sequence[Any]], VlaBatch],
    accelerator: Accelerator,
    samples: Sequence[RobotSample],
) -> list[Tensor]:
    """Return what the action expert reads of each sample, action tokens first, then the reasoning, (S + L, V)."""
    if not samples:
        return []
    batch = to_device(collate(samples), accelerator.device)
    with accelerator.autocast():
        hidden_BTV, _ = model.hidden_states(batch)
    inputs = model.action_inputs(hidden_BTV, batch, batch.robots[0])
    rows = zip(inputs.tokens_BSV, inputs.reasoning.hidden_BLV, inputs.reasoning.valid_BL, strict=True)
    return [torch.cat([tokens_SV, hidden_LV[valid_L]]) for tokens_SV, hidden_LV, valid_L in rows]
