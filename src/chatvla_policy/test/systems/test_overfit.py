# SPDX-License-Identifier: Apache-2.0
"""The whole chain learns eight samples by heart through both stages; the policy reads them back from camera images."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from chatvla_policy.model.action.conditioning import ReasoningTokens
from chatvla_policy.model.chatvla2 import ActionInputs, ChatVLA2, Stage
from chatvla_policy.systems.chatvla2 import ChatVLA2Policy

DRAWS = 8


def _stage1(model: ChatVLA2, batch, steps: int) -> float:
    """Return the last language loss of co-training on the batch."""
    names = model.set_stage(Stage.STAGE1)
    assert names
    model.train()
    optimiser = torch.optim.AdamW(model.parameters(), lr=6e-3, betas=(0.9, 0.98), weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, max_lr=6e-3, total_steps=steps)
    generator = torch.Generator().manual_seed(0)
    for _ in range(steps):
        terms = model(batch, generator=generator)
        optimiser.zero_grad()
        terms.total().backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        schedule.step()
    return terms.figures()["language"]


def _stage2(model: ChatVLA2, batch, steps: int) -> float:
    """Return the last action loss of training the action expert on kept states, many noise levels a step."""
    model.set_stage(Stage.STAGE2)
    model.eval()
    rows = batch.robots[0]
    with torch.no_grad():
        hidden, _ = model.hidden_states(batch)
        kept = model.action_inputs(hidden, batch, rows)
    inputs = ActionInputs(
        tokens_BSV=kept.tokens_BSV.repeat(DRAWS, 1, 1),
        reasoning=ReasoningTokens(
            hidden_BLV=kept.reasoning.hidden_BLV.repeat(DRAWS, 1, 1), valid_BL=kept.reasoning.valid_BL.repeat(DRAWS, 1)
        ),
    )
    many = type(rows)(
        robot=rows.robot,
        rows_R=rows.rows_R.repeat(DRAWS),
        state_RZ=rows.state_RZ.repeat(DRAWS, 1),
        chunk_RHA=rows.chunk_RHA.repeat(DRAWS, 1, 1),
        valid_RH=rows.valid_RH.repeat(DRAWS, 1),
    )
    optimiser = torch.optim.AdamW(model.expert.parameters(), lr=4e-3, weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, max_lr=4e-3, total_steps=steps)
    generator = torch.Generator().manual_seed(1)
    for _ in range(steps):
        total, count = model.action_loss(inputs, many, generator=generator)
        optimiser.zero_grad()
        (total / count).backward()
        optimiser.step()
        schedule.step()
    return float(total.detach()) / count


@pytest.mark.slow
def test_eight_samples_are_learned_by_heart_and_played_back(small_config, world) -> None:
    torch.manual_seed(0)
    model = ChatVLA2(small_config(depth=2, width=128))
    with torch.no_grad():  # transformers' initial weights are too small to learn at this width.
        for name, weight in model.backbone.named_parameters():
            if weight.dim() == 2 and ("attn" in name or "mlp" in name or "merger" in name):
                weight.mul_(3.0)
    batch = world.batcher(model.config)(world.samples)
    assert _stage1(model, batch, 120) < 0.02
    assert _stage2(model, batch, 600) < 0.01
    policy = ChatVLA2Policy(world.checkpoint(model.eval()))
    span = world.spec.upper - world.spec.lower
    for index, sample in enumerate(world.samples):
        result = policy.infer(world.observation(index))
        assert result.reasoning.text == sample.reasoning
        error = [float(np.abs((result.chunk.actions - other.actions) / span).mean()) for other in world.samples]
        assert int(np.argmin(error)) == index
        assert error[index] < 0.03
