# SPDX-License-Identifier: Apache-2.0
"""Say what the loop needs of a thing to train, and give it ChatVLA-2, whole or its action expert on kept features.

An objective of another kind is a class with these members; the loop asks for nothing else.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from chatvla_policy.model.action import ReasoningTokens
from chatvla_policy.model.batch import RobotRows, VlaBatch, to_device
from chatvla_policy.model.chatvla2 import ActionInputs, ChatVLA2
from chatvla_policy.model.loss import LossTerms
from chatvla_training.data.features import FeatureBatch

__all__ = ["FeatureTask", "TrainingTask", "VlaTask", "action_error"]


class TrainingTask(Protocol):
    """A module with a loss, and how its batches are counted and moved."""

    module: nn.Module
    """Called with (batch, generator=) under autograd; returns LossTerms. Its trained parameters take gradients."""

    def counts(self, batch: Any) -> tuple[int, int]:
        """Return written tokens and valid chunk steps that the batch supervises."""
        ...

    def place(self, batch: Any, device: torch.device) -> Any:
        """Return the batch on `device`."""
        ...

    def action_error(self, batch: Any, generator: torch.Generator) -> Mapping[str, tuple[float, int]]:
        """Return (sum, count) of the open-loop error per robot in its units; empty where there is no action."""
        ...


class VlaTask:
    """All of ChatVLA-2, in the stage that the model is set to."""

    def __init__(self, model: ChatVLA2, half_width: Mapping[str, Tensor]) -> None:
        """Train `model`; `half_width` turns normalised actions back to rad and m, shape (A,) per robot."""
        self.module: nn.Module = model
        self._model, self._half_width = model, half_width

    def counts(self, batch: VlaBatch) -> tuple[int, int]:
        """Return written tokens and valid chunk steps."""
        return int(batch.text_BT.sum()), sum(int(robot.valid_RH.sum()) for robot in batch.robots)

    def place(self, batch: VlaBatch, device: torch.device) -> VlaBatch:
        """Return the batch on `device`."""
        return to_device(batch, device)

    @torch.no_grad()
    def action_error(self, batch: VlaBatch, generator: torch.Generator) -> Mapping[str, tuple[float, int]]:
        """Return the error of sampled chunks, the recorded reasoning given."""
        if not batch.robots:
            return {}
        hidden_BTV, _ = self._model.hidden_states(batch)
        found = {}
        for robot in batch.robots:
            inputs = self._model.action_inputs(hidden_BTV, batch, robot)
            found[robot.robot] = action_error(self._model, inputs, robot, self._half_width[robot.robot], generator)
        return found


class _ExpertOnly(nn.Module):
    """The action expert's loss from kept features, as a module of its own so that wrappers see one call."""

    def __init__(self, model: ChatVLA2) -> None:
        super().__init__()
        self.expert = model.expert
        self._model = (model,)

    def forward(self, batch: FeatureBatch, *, generator: torch.Generator | None = None) -> LossTerms:
        """Return the action loss of the batch."""
        model = self._model[0]
        total, steps = model.action_loss(_inputs(batch), batch.robot, generator=generator)
        zero = total.detach().new_zeros(())
        return LossTerms(
            language_sum=zero,
            language_tokens=0,
            action_sum=total,
            action_steps=steps,
            router=zero,
            action_weight=model.config.action_loss_weight,
        )


class FeatureTask:
    """Stage 2 on kept features: only the action expert runs."""

    def __init__(self, model: ChatVLA2, half_width: Mapping[str, Tensor]) -> None:
        """Train `model`'s action expert; `half_width` as in VlaTask."""
        self.module: nn.Module = _ExpertOnly(model)
        self._model, self._half_width = model, half_width

    def counts(self, batch: FeatureBatch) -> tuple[int, int]:
        """Return 0 tokens and the valid chunk steps."""
        return 0, int(batch.robot.valid_RH.sum())

    def place(self, batch: FeatureBatch, device: torch.device) -> FeatureBatch:
        """Return the batch on `device`."""
        return to_device(batch, device)

    @torch.no_grad()
    def action_error(self, batch: FeatureBatch, generator: torch.Generator) -> Mapping[str, tuple[float, int]]:
        """Return the error of sampled chunks."""
        robot = batch.robot
        return {robot.robot: action_error(self._model, _inputs(batch), robot, self._half_width[robot.robot], generator)}


def _inputs(batch: FeatureBatch) -> ActionInputs:
    return ActionInputs(
        tokens_BSV=batch.tokens_RSV,
        reasoning=ReasoningTokens(
            hidden_BLV=batch.hidden_RLV, valid_BL=batch.valid_RL, numbers_BM=batch.robot.numbers_RM
        ),
    )


def action_error(
    model: ChatVLA2, inputs: ActionInputs, robot: RobotRows, half_width_A: Tensor, generator: torch.Generator
) -> tuple[float, int]:
    """Return the summed absolute difference of sampled and recorded targets over valid values, and their number."""
    conditions = model.expert.condition(robot.robot, inputs.tokens_BSV, robot.state_RZ, inputs.reasoning)
    sampled_RHA = model.expert.sample(robot.robot, conditions, generator=generator)
    error_RHA = (sampled_RHA - robot.chunk_RHA).abs() * half_width_A.to(sampled_RHA.device)
    valid = error_RHA[robot.valid_RH]
    return float(valid.sum()), valid.numel()
