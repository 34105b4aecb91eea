# SPDX-License-Identifier: Apache-2.0
"""Train the diffusion policy without language on robot data sets.

Shapes: R samples; N views; H, W pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from torch import Tensor, nn

from chatvla_policy.model.action.config import ActionConfig, Embodiment, action_size
from chatvla_policy.model.batch import RobotRows, to_device
from chatvla_policy.model.diffusion_policy import DiffusionPolicyConfig, DiffusionPolicyModel
from chatvla_policy.model.loss import LossTerms, action_terms
from chatvla_policy.systems.diffusion_policy import Pictures, save_diffusion_policy
from chatvla_training.build_data import half_widths, make_mixture, robot_data, robot_setups
from chatvla_training.data.samples import RobotSample
from chatvla_training.recipe import Recipe, RecipeError
from chatvla_training.trainer.task import TrainingTask

__all__ = ["DiffusionRun", "PictureBatch"]

_SMALL_CHANNELS = (32, 64, 128, 128)


@dataclass(frozen=True, kw_only=True)
class PictureBatch:
    """Pictures of one robot's samples and what it did."""

    pictures_RNHW3: Tensor
    robot: RobotRows


class _Loss(nn.Module):
    """The model with its loss, called as the loop calls every module."""

    def __init__(self, model: DiffusionPolicyModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, batch: PictureBatch, *, generator: torch.Generator | None = None) -> LossTerms:
        """Return the action loss of the batch."""
        rows, device = batch.robot, batch.pictures_RNHW3.device
        noise = torch.randn(rows.chunk_RHA.shape, generator=generator).to(device)
        uniform = torch.rand(len(noise), generator=generator).to(device)
        conditions = self.model.condition(rows.robot, batch.pictures_RNHW3, rows.state_RZ)
        error = self.model.expert.losses(rows.robot, conditions, rows.chunk_RHA, noise_BTA=noise, uniform_B=uniform)
        total, steps = action_terms(error, rows.valid_RH)
        zero = total.detach().new_zeros(())
        return LossTerms(
            language_sum=zero,
            language_tokens=0,
            action_sum=total,
            action_steps=steps,
            router=zero,
            action_weight=1.0,
        )


class DiffusionTask:
    """The TrainingTask of a diffusion policy."""

    def __init__(self, model: DiffusionPolicyModel, half_width: Mapping[str, Tensor]) -> None:
        self.module: nn.Module = _Loss(model)
        self._model, self._half_width = model, half_width

    def counts(self, batch: PictureBatch) -> tuple[int, int]:
        """Return 0 tokens and the valid chunk steps."""
        return 0, int(batch.robot.valid_RH.sum())

    def place(self, batch: PictureBatch, device: torch.device) -> PictureBatch:
        """Return the batch on `device`."""
        moved = to_device(batch, device)
        return replace(moved, robot=to_device(batch.robot, device))

    @torch.no_grad()
    def action_error(self, batch: PictureBatch, generator: torch.Generator) -> Mapping[str, tuple[float, int]]:
        """Return the error of sampled chunks."""
        rows = batch.robot
        conditions = self._model.condition(rows.robot, batch.pictures_RNHW3, rows.state_RZ)
        sampled = self._model.expert.sample(rows.robot, conditions, generator=generator)
        error = (sampled - rows.chunk_RHA).abs() * self._half_width[rows.robot].to(sampled.device)
        valid = error[rows.valid_RH]
        return {rows.robot: (float(valid.sum()), valid.numel())}


def policy_config(recipe: Recipe, action: ActionConfig) -> DiffusionPolicyConfig:
    """Return the model of `recipe`: beside a tiny action expert a small picture encoder, else ResNet-18's widths."""
    small = {"channels": _SMALL_CHANNELS, "blocks": 1} if recipe.action_size.startswith(("tiny", "compact")) else {}
    return DiffusionPolicyConfig(action=action, **small)


class DiffusionRun:
    """One run; see system_runs.SystemRun."""

    def __init__(self, recipe: Recipe, accelerator: Accelerator) -> None:
        """Open the data. Raises RecipeError when it is of several robots."""
        unread = [key for key in ("init", "init_vision", "freeze", "lora_rank") if getattr(recipe, key)]
        if unread:
            raise RecipeError(
                f"a diffusion policy starts from nothing and trains whole; leave {', '.join(unread)} empty"
            )
        self._recipe = recipe
        data = robot_data(recipe)
        if len({item.robot for item in data.train}) != 1:
            raise RecipeError("a diffusion policy drives one robot; give the data of one")
        self.mixture = make_mixture(replace(recipe, ratio=(0, 1)), data)
        self.held = data.validation
        self._robot = data.train[0].robot
        self._setups = robot_setups(recipe, data, ())

    def build(self) -> tuple[TrainingTask, Callable[[Sequence[Any]], PictureBatch]]:
        """Return the task and the way from samples to batches."""
        recipe, setup = self._recipe, self._setups[0]
        torch.manual_seed(recipe.seed)
        width = setup.spec.width
        robot = Embodiment(name=self._robot, state_width=width, action_width=width, horizon=recipe.horizon)
        action = action_size(
            recipe.action_size or "S", conditioning="none", queries=len(setup.cameras), embodiments=(robot,)
        )
        self._model = DiffusionPolicyModel(policy_config(recipe, action))
        return DiffusionTask(self._model, half_widths(self._setups)), self._collate()

    def _collate(self) -> Callable[[Sequence[RobotSample]], PictureBatch]:
        setup, pictures = self._setups[0], Pictures(self._model.config)

        def collate(samples: Sequence[RobotSample]) -> PictureBatch:
            statistics = setup.statistics
            chunks = [
                statistics.normalise_actions(sample.actions.astype(np.float64), sample.state) for sample in samples
            ]
            states = [statistics.state.normalise(sample.state.astype(np.float64)) for sample in samples]
            seen = [pictures([sample.images[view] for view in setup.cameras]) for sample in samples]
            return PictureBatch(
                pictures_RNHW3=torch.from_numpy(np.stack(seen)),
                robot=RobotRows(
                    robot=setup.spec.name,
                    rows_R=torch.arange(len(samples)),
                    state_RZ=torch.from_numpy(np.stack(states)),
                    chunk_RHA=torch.from_numpy(np.stack(chunks)),
                    valid_RH=torch.from_numpy(np.stack([sample.valid for sample in samples])),
                ),
            )

        return collate

    def save(self, folder: Path, provenance: Mapping[str, Any]) -> None:
        """Write the checkpoint."""
        model = self._model.cpu().eval()
        save_diffusion_policy(folder, model, self._setups, dict(provenance), storage=self._recipe.storage)
