# SPDX-License-Identifier: Apache-2.0
"""Turn times, action tokens, states and reasoning tokens into the vectors that condition the action expert.

  t = MLP(sinusoids(time))
  o = W [a, s, look(a, s)]      observation embedding, of
      a = LayerNorm(linear(linear(action tokens))), s = LayerNorm(state embedding)
  r = MLP [h, look(h), n]       reasoning embedding, of
      h = mean of the reasoning tokens' hidden states, or the states of the last few
      n = the last numbers that the text states, as values
Tensors: B batch, Q action tokens, L reasoning tokens, V width of the language model, D width of the action expert,
P width that an action token is projected to, S image and action tokens, I image tokens, H heads, d width of a head,
X width of a question to the image, M stated numbers.
Departures: the Q projected action tokens are concatenated before W where DexVLA's code pools them, so that positions
of several objects need not share one average; Q is 8. The state embedding has a LayerNorm of its own: without it the
Q normalised tokens drown it, and the expert guesses the joints' whereabouts from pictures. A text that lists five
cards and chooses one says in its last words what is to be done, and a mean drowns them: `reasoning_tail`. Where a card
lies exactly is, at tiny size, plain in what the vision tower makes of the image alone: `sight` lets o and r attend to
that. r asks for what the text chose; o, which no text reaches directly, found the card of the choice too rarely.
A thousand demonstrations show each number of a rectangle a few times: from states that stand for numbers as words a
tiny expert learned to put the gripper within 14 mm of unseen toys, from their values within 6 mm: `numbers`.
(ChatVLA-2, sections 3.1 and 3.2)
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from chatvla_policy.model.action.config import ActionConfig

__all__ = [
    "ActionProjection",
    "Look",
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

    def __init__(self, language_width: int, config: ActionConfig) -> None:
        """Map `language_width` to the token width of `config`."""
        super().__init__()
        self.dropout = nn.Dropout(config.dropout)
        self.linear_in = nn.Linear(language_width, config.width)
        self.linear_out = nn.Linear(config.width, config.token_width or config.width)
        self.norm = nn.LayerNorm(config.token_width or config.width)

    def forward(self, action_tokens_BQV: Tensor) -> Tensor:
        """Return projected tokens, shape (B, Q, P)."""
        return self.norm(self.linear_out(nn.functional.gelu(self.linear_in(self.dropout(action_tokens_BQV)))))


class Look(nn.Module):
    """Attend to the image tokens: what is asked for, and where in the picture it is."""

    HEADS = 8

    def __init__(self, language_width: int, asks: int, config: ActionConfig) -> None:
        """Build for questions of width `asks` and at most `config.sight` image tokens."""
        super().__init__()
        self.head_width = config.token_width or config.width // self.HEADS
        self.width = self.HEADS * self.head_width
        self.hidden_share = config.dropout
        self.place_IV = nn.Parameter(torch.randn(config.sight, language_width))
        self.seen_norm = nn.LayerNorm(language_width)
        self.ask = nn.Sequential(nn.Linear(asks, config.width), nn.GELU(), nn.Linear(config.width, self.width))
        self.key_value = nn.Linear(language_width, 2 * self.width)
        self.norm = nn.LayerNorm(self.width)

    def forward(self, image_BIV: Tensor, ask_BX: Tensor) -> Tensor:
        """Return what was found, shape (B, H d). Raises ValueError for more image tokens than there are places."""
        if image_BIV.shape[1] > len(self.place_IV):
            raise ValueError(
                f"{image_BIV.shape[1]} image tokens, the action expert looks at {len(self.place_IV)} at most; "
                "prepare smaller images or raise `sight`"
            )
        placed_BIV = self.seen_norm(image_BIV) + self.place_IV[: image_BIV.shape[1]]
        split = self.key_value(placed_BIV).unflatten(-1, (2, self.HEADS, self.head_width))
        key_BHId, value_BHId = split.permute(2, 0, 3, 1, 4).unbind(0)
        ask_BH1d = self.ask(ask_BX).view(-1, self.HEADS, 1, self.head_width)
        hidden_B11I = None
        if self.training and self.hidden_share:
            # Whole tokens: numbers missing from a token would blur where it says that a card lies.
            drawn_B11I = torch.rand(len(image_BIV), 1, 1, image_BIV.shape[1], device=image_BIV.device)
            hidden_B11I = -1e4 * (drawn_B11I < self.hidden_share).to(key_BHId.dtype)
        found_BH1d = nn.functional.scaled_dot_product_attention(ask_BH1d, key_BHId, value_BHId, attn_mask=hidden_B11I)
        return self.norm(found_BH1d.flatten(1))


class ObservationEmbedding(nn.Module):
    """Make o from the action tokens and the embedded state, and from the image tokens where the config says so."""

    def __init__(self, language_width: int, config: ActionConfig) -> None:
        """Build for action tokens of `language_width` and states embedded in the width of `config`."""
        super().__init__()
        self.queries = config.queries
        self.project = ActionProjection(language_width, config)
        self.state_norm = nn.LayerNorm(config.width)
        width = config.queries * (config.token_width or config.width) + config.width
        self.look = Look(language_width, width, config) if config.sight else None
        self.combine = nn.Linear(width + (self.look.width if self.look else 0), config.width)

    def forward(self, tokens_BSV: Tensor, state_BD: Tensor) -> Tensor:
        """Return o, shape (B, D); `tokens` are the action tokens, behind the image tokens if there is a look."""
        projected_BQP = self.project(tokens_BSV[:, -self.queries :])
        known_BX = torch.cat([projected_BQP.flatten(1), self.state_norm(state_BD)], dim=-1)
        if self.look is not None:
            known_BX = torch.cat([known_BX, self.look(tokens_BSV[:, : -self.queries], known_BX)], dim=-1)
        return self.combine(known_BX)


class ReasoningEmbedding(nn.Module):
    """Embed the reasoning tokens' hidden states (section 3.2: reasoning tokens projected through an MLP)."""

    def __init__(self, language_width: int, config: ActionConfig, *, found: int = 0) -> None:
        """Map `language_width` to the width of `config`; `found` is the width of what a look adds."""
        super().__init__()
        self.dropout = nn.Dropout(config.dropout)
        narrow = config.token_width
        self.squeeze = nn.Linear(language_width, narrow) if narrow else nn.Identity()
        self.linear_in = nn.Linear((narrow or language_width) + found, config.width)
        self.linear_out = nn.Linear(config.width, config.width)

    def forward(self, tokens: Tensor) -> Tensor:
        """Return embeddings of pooled (B, V) or single (B, L, V) reasoning tokens, with D in place of V."""
        return self.mixed(self.squeeze(self.dropout(tokens)))

    def mixed(self, squeezed: Tensor) -> Tensor:
        """Return the embedding of squeezed tokens, with what a look found beside them."""
        return self.linear_out(nn.functional.gelu(self.linear_in(squeezed)))


class PooledReasoning(ReasoningEmbedding):
    """Make one r of all reasoning tokens, or of the last few."""

    def __init__(self, language_width: int, config: ActionConfig) -> None:
        """Build for the mean, or for `reasoning_tail` tokens side by side."""
        asks = language_width * (config.reasoning_tail or 1)
        look = Look(language_width, asks, config) if config.sight else None
        super().__init__(asks, config, found=(look.width if look else 0) + 2 * config.numbers)
        self.look = look
        self.tail = config.reasoning_tail
        self.numbers = config.numbers

    def pooled(
        self,
        hidden_BLV: Tensor,
        valid_BL: Tensor,
        image_BIV: Tensor | None = None,
        numbers_BM: Tensor | None = None,
    ) -> Tensor:
        """Return r, shape (B, D), of the valid tokens, and of image and numbers where the config asks for them.

        Raises ValueError where it asks for numbers and none are given, not even missing ones.
        """
        read_BX = self.dropout(self.read(hidden_BLV, valid_BL))
        squeezed_BX = self.squeeze(read_BX)
        if self.look is not None:
            assert image_BIV is not None
            squeezed_BX = torch.cat([squeezed_BX, self.look(image_BIV, read_BX)], dim=-1)
        if self.numbers:
            squeezed_BX = torch.cat([squeezed_BX, self.values(numbers_BM, squeezed_BX)], dim=-1)
        return self.mixed(squeezed_BX)

    def values(self, numbers_BM: Tensor | None, like: Tensor) -> Tensor:
        """Return the numbers read, -1 to 1, and 1 for each that the text states, else 0 for both."""
        if numbers_BM is None:
            raise ValueError("the action expert reads the numbers that a reasoning states; give its text's numbers")
        read_BN = numbers_BM[:, -self.numbers :]
        stated_BN = ~read_BN.isnan()
        values_BN = torch.where(stated_BN, 2 * read_BN - 1, 0.0)
        return torch.cat([values_BN, stated_BN], dim=-1).to(like.dtype)

    def read(self, hidden_BLV: Tensor, valid_BL: Tensor) -> Tensor:
        """Return the mean of the valid tokens, which stand first, or the last few side by side, shape (B, X).

        Zeros stand for tokens that a row lacks.
        """
        lengths_B1 = valid_BL.sum(1, keepdim=True)
        if not self.tail:
            total_BV = torch.einsum("bl,blv->bv", valid_BL.to(hidden_BLV.dtype), hidden_BLV)
            return total_BV / lengths_B1.clamp(min=1)
        places_BK = lengths_B1 - self.tail + torch.arange(self.tail, device=valid_BL.device)
        index_BKV = places_BK.clamp(min=0)[..., None].expand(-1, -1, hidden_BLV.shape[-1])
        last_BKV = hidden_BLV.gather(1, index_BKV) * (places_BK >= 0)[..., None]
        return last_BKV.flatten(1)
