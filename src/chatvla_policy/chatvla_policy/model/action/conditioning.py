# SPDX-License-Identifier: Apache-2.0
"""Say how observation and reasoning condition the layers of the action expert. One class per variant.

AdaLN layer i of N computes (gamma_i(t, c_i) + 1) x + beta_i(t, c_i). A variant chooses c_i, and may add tokens:
  latter_half      c_i = o for i < N/2, r for i >= N/2: the paper's reasoning-following module (section 3.2)
  all              c_i = r in every layer                       (Table 6, "full-layer injection")
  former_half      c_i = r for i < N/2, o for i >= N/2          (Table 6, "former-half-layer injection")
  film             c_i = (1 + g(r)) o + b(r)                    (DexVLA's FiLM, "without the module")
  concat           c_i = o; the reasoning tokens join the chunk's tokens in self-attention
  cross_attention  c_i = o; every layer attends to the reasoning tokens
  none             c_i = o; reasoning reaches the actions through the action tokens only
The output layer counts as layer N. A new variant is one class here and one line in VARIANTS.
Tensors: B batch, L reasoning tokens, M stated numbers, I image tokens, Z state dims, V language width, D width of the
action expert.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from chatvla_policy.model.action.config import ActionConfig
from chatvla_policy.model.action.embeddings import PooledReasoning, ReasoningEmbedding

__all__ = ["VARIANTS", "ConditioningVariant", "LayerConditions", "ReasoningTokens", "make_conditioning"]


@dataclass(frozen=True, kw_only=True)
class ReasoningTokens:
    """Hidden states of the reasoning text, end token included."""

    hidden_BLV: Tensor
    valid_BL: Tensor
    """False where a row is padded."""
    numbers_BM: Tensor | None = None
    """The last numbers of the text as values, the last one last, NaN where it lacks them; None where nobody asks."""


@dataclass(frozen=True, kw_only=True)
class LayerConditions:
    """What each layer is conditioned on."""

    embeddings: tuple[Tensor, ...]
    """c_i per layer and for the output layer, N + 1 tensors of shape (B, D)."""
    prefix_BLD: Tensor | None = None
    """Tokens that join the chunk in self-attention."""
    memory_BLD: Tensor | None = None
    """Tokens that every layer attends to."""
    valid_BL: Tensor | None = None
    """Which prefix or memory tokens are real."""
    base_BTA: Tensor | None = None
    """What state and keyframe say of the chunk by themselves; the trunk's output is added to it."""
    keyframe_BZ: Tensor | None = None
    """The guessed keyframe, normalised; None for an expert that guesses none."""
    guide_B1D: Tensor | None = None
    """The keyframe, embedded: it is added to every token of the chunk."""


class ConditioningVariant(nn.Module):
    """Base of the variants."""

    cross_attends = False
    embedding: type[ReasoningEmbedding] = ReasoningEmbedding

    def __init__(self, config: ActionConfig, language_width: int) -> None:
        """Build for the expert of `config` and hidden states of `language_width`."""
        super().__init__()
        self.depth, self.width = config.depth, config.width
        self.embed = self.embedding(language_width, config)

    def forward(
        self, observation_BD: Tensor, reasoning: ReasoningTokens, image_BIV: Tensor | None = None
    ) -> LayerConditions:
        """Return what each layer is conditioned on; `image` holds the image tokens, for an expert that looks."""
        raise NotImplementedError


class LatterHalf(ConditioningVariant):
    """Reasoning replaces the observation in the latter half of the layers: the paper's method."""

    embedding = PooledReasoning

    def reads_reasoning(self, layer: int) -> bool:
        """Return whether `layer` (0 to N, N is the output layer) is conditioned on r."""
        return layer >= self.depth / 2

    def forward(
        self, observation_BD: Tensor, reasoning: ReasoningTokens, image_BIV: Tensor | None = None
    ) -> LayerConditions:
        """Return o or r per layer."""
        r_BD = self.embed.pooled(reasoning.hidden_BLV, reasoning.valid_BL, image_BIV, reasoning.numbers_BM)
        return LayerConditions(
            embeddings=tuple(r_BD if self.reads_reasoning(layer) else observation_BD for layer in range(self.depth + 1))
        )


class AllLayers(LatterHalf):
    """Reasoning replaces the observation in all layers."""

    def reads_reasoning(self, layer: int) -> bool:
        """Return True."""
        return True


class FormerHalf(LatterHalf):
    """Reasoning replaces the observation in the former half of the layers."""

    def reads_reasoning(self, layer: int) -> bool:
        """Return whether `layer` lies in the former half."""
        return layer < self.depth / 2


class Film(ConditioningVariant):
    """The observation embedding, scaled and shifted by the reasoning embedding (DexVLA)."""

    embedding = PooledReasoning

    def __init__(self, config: ActionConfig, language_width: int) -> None:
        """Build; the modulation starts at identity."""
        super().__init__(config, language_width)
        self.scale_shift = nn.Linear(config.width, 2 * config.width)
        nn.init.zeros_(self.scale_shift.weight)
        nn.init.zeros_(self.scale_shift.bias)

    def forward(
        self, observation_BD: Tensor, reasoning: ReasoningTokens, image_BIV: Tensor | None = None
    ) -> LayerConditions:
        """Return the modulated observation for every layer."""
        scale_BD, shift_BD = self.scale_shift(
            self.embed.pooled(reasoning.hidden_BLV, reasoning.valid_BL, image_BIV, reasoning.numbers_BM)
        ).chunk(2, dim=-1)
        return LayerConditions(embeddings=(observation_BD * (1 + scale_BD) + shift_BD,) * (self.depth + 1))


class Concat(ConditioningVariant):
    """The reasoning tokens stand before the chunk's tokens; marked by a learned vector."""

    def __init__(self, config: ActionConfig, language_width: int) -> None:
        """Build."""
        super().__init__(config, language_width)
        self.mark_D = nn.Parameter(torch.zeros(config.width))

    def forward(
        self, observation_BD: Tensor, reasoning: ReasoningTokens, image_BIV: Tensor | None = None
    ) -> LayerConditions:
        """Return o for every layer, and the reasoning tokens as prefix."""
        return LayerConditions(
            embeddings=(observation_BD,) * (self.depth + 1),
            prefix_BLD=self.embed(reasoning.hidden_BLV) + self.mark_D,
            valid_BL=reasoning.valid_BL,
        )


class CrossAttention(ConditioningVariant):
    """Every layer attends to the reasoning tokens."""

    cross_attends = True

    def forward(
        self, observation_BD: Tensor, reasoning: ReasoningTokens, image_BIV: Tensor | None = None
    ) -> LayerConditions:
        """Return o for every layer, and the reasoning tokens as memory."""
        return LayerConditions(
            embeddings=(observation_BD,) * (self.depth + 1),
            memory_BLD=self.embed(reasoning.hidden_BLV),
            valid_BL=reasoning.valid_BL,
        )


class NoReasoning(ConditioningVariant):
    """The observation alone."""

    def __init__(self, config: ActionConfig, language_width: int) -> None:
        """Build without a reasoning embedding."""
        super().__init__(config, language_width)
        del self.embed

    def forward(
        self, observation_BD: Tensor, reasoning: ReasoningTokens, image_BIV: Tensor | None = None
    ) -> LayerConditions:
        """Return o for every layer."""
        return LayerConditions(embeddings=(observation_BD,) * (self.depth + 1))


VARIANTS: dict[str, type[ConditioningVariant]] = {
    "latter_half": LatterHalf,
    "all": AllLayers,
    "former_half": FormerHalf,
    "film": Film,
    "concat": Concat,
    "cross_attention": CrossAttention,
    "none": NoReasoning,
}
"""Variants by the name that ActionConfig gives."""


def make_conditioning(config: ActionConfig, language_width: int) -> ConditioningVariant:
    """Return the variant that `config` names. Raises ValueError, listing those that exist."""
    if config.conditioning not in VARIANTS:
        raise ValueError(f"no conditioning {config.conditioning!r}; there are: {', '.join(VARIANTS)}")
    return VARIANTS[config.conditioning](config, language_width)
