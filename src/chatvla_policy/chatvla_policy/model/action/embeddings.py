# SPDX-License-Identifier: Apache-2.0
"""Turn times, action tokens, states and reasoning tokens into the vectors that condition the action expert.

  t = MLP(sinusoids(time))
  o = W [LayerNorm(linear(linear(action tokens))), state embedding]      observation embedding
  r = MLP(weighted mean of the reasoning tokens' hidden states, the last one included)
Tensors: B batch, Q action tokens, L reasoning tokens, V width of the language model, D width of the action expert.
Departure: the Q projected action tokens are concatenated before W where DexVLA's code pools them, so that positions
of several objects need not share one average; Q is 8. The mean's weights are learned and begin equal: a text that lists
five cards and chooses one says in its last words what is to be done, and a plain mean drowns them.
(ChatVLA-2, sections 3.1 and 3.2)
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

__all__ = [
    "ActionProjection",
    "ObservationEmbedding",
    "PooledReasoning",
    "ReasoningEmbedding",
    "TimeEmbedding",
]


class TimeEmbedding(nn.Module):
    """Embed a noise level: 256 sinusoids through two linear layers (DiT)."""

    FREQUENCIES = 256

    def __init__(self, width: int) -> None:
        """Build for vectors of `width`."""
        super().__init__()
        self.linear_in = nn.Linear(self.FREQUENCIES, width)
        self.linear_out = nn.Linear(width, width)

    def forward(self, time_N: Tensor) -> Tensor:
        """Return embeddings of times, shape (N, D)."""
        half = self.FREQUENCIES // 2
        rates_F = torch.exp(-math.log(10000.0) * torch.arange(half, device=time_N.device, dtype=torch.float32) / half)
        angles_NF = time_N.float()[:, None] * rates_F
        waves_NF = torch.cat([angles_NF.cos(), angles_NF.sin()], dim=-1).to(self.linear_in.weight.dtype)
        return self.linear_out(nn.functional.silu(self.linear_in(waves_NF)))


class ActionProjection(nn.Module):
    """Project the language model's action tokens: two linear layers and a LayerNorm (section 3.1)."""

    def __init__(self, language_width: int, width: int) -> None:
        """Map `language_width` to `width`."""
        super().__init__()
        self.linear_in = nn.Linear(language_width, width)
        self.linear_out = nn.Linear(width, width)
        self.norm = nn.LayerNorm(width)

    def forward(self, action_tokens_BQV: Tensor) -> Tensor:
        """Return projected tokens, shape (B, Q, D)."""
        return self.norm(self.linear_out(nn.functional.gelu(self.linear_in(action_tokens_BQV))))


class ObservationEmbedding(nn.Module):
    """Make o from the action tokens and the embedded state."""

    def __init__(self, language_width: int, queries: int, width: int) -> None:
        """Build for `queries` action tokens of `language_width` and states embedded in `width`."""
        super().__init__()
        self.project = ActionProjection(language_width, width)
        self.combine = nn.Linear((queries + 1) * width, width)

    def forward(self, action_tokens_BQV: Tensor, state_BD: Tensor) -> Tensor:
        """Return o, shape (B, D)."""
        projected_BQD = self.project(action_tokens_BQV)
        return self.combine(torch.cat([projected_BQD.flatten(1), state_BD], dim=-1))


class ReasoningEmbedding(nn.Module):
    """Make r from the reasoning tokens' hidden states (section 3.2: reasoning tokens projected through an MLP)."""

    def __init__(self, language_width: int, width: int) -> None:
        """Map `language_width` to `width`."""
        super().__init__()
        self.linear_in = nn.Linear(language_width, width)
        self.linear_out = nn.Linear(width, width)

    def forward(self, tokens: Tensor) -> Tensor:
        """Return embeddings of pooled (B, V) or single (B, L, V) reasoning tokens, with D in place of V."""
        return self.linear_out(nn.functional.gelu(self.linear_in(tokens)))


class PooledReasoning(ReasoningEmbedding):
    """Make one r of all reasoning tokens."""

    def __init__(self, language_width: int, width: int) -> None:
        """Build; all tokens begin with the same weight."""
        super().__init__(language_width, width)
        self.weigh = nn.Linear(language_width, 1, bias=False)
        nn.init.zeros_(self.weigh.weight)

    def pooled(self, hidden_BLV: Tensor, valid_BL: Tensor) -> Tensor:
        """Return r, shape (B, D), of the valid tokens; of a zero vector where a row has none."""
        scores_BL = self.weigh(hidden_BLV).squeeze(-1).float()
        weights_BL = scores_BL.masked_fill(~valid_BL.bool(), torch.finfo(torch.float32).min).softmax(-1) * valid_BL
        return self(torch.einsum("bl,blv->bv", weights_BL.to(hidden_BLV.dtype), hidden_BLV))
