# SPDX-License-Identifier: Apache-2.0
"""A small action expert and inputs for it."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace

import pytest
import torch

from chatvla_policy.model.action import ActionExpert, Embodiment, ReasoningTokens, action_size

LANGUAGE_WIDTH = 48


@pytest.fixture
def make_expert() -> Callable[..., ActionExpert]:
    """Return a maker of experts; `started=False` leaves nothing at its zero start."""

    def make(*, started: bool = False, **fields: object) -> ActionExpert:
        torch.manual_seed(0)
        embodiment = Embodiment(name="arm", state_width=5, action_width=3, horizon=6)
        fields = {"depth": 4, "width": 32, "heads": 4, "queries": 2, "embodiments": (embodiment,), **fields}
        expert = ActionExpert(action_size("tiny", **fields), LANGUAGE_WIDTH)
        if not started:
            with torch.no_grad():
                for parameter in expert.parameters():
                    if not parameter.abs().any():
                        parameter.copy_(0.2 * torch.randn_like(parameter))
        return expert.eval()

    return make


@pytest.fixture
def inputs() -> SimpleNamespace:
    """Return action tokens, states, reasoning, noise and chunks for two rows; the second reasoning is padded."""
    torch.manual_seed(1)
    valid = torch.tensor([[True] * 7, [True] * 4 + [False] * 3])
    return SimpleNamespace(
        tokens=torch.randn(2, 2, LANGUAGE_WIDTH),
        state=torch.randn(2, 5),
        reasoning=ReasoningTokens(hidden_BLV=torch.randn(2, 7, LANGUAGE_WIDTH), valid_BL=valid),
        noise=torch.randn(2, 6, 3),
        chunk=torch.rand(2, 6, 3) * 2 - 1,
    )
