# SPDX-License-Identifier: Apache-2.0
"""Predict noise or velocity of a chunk with a diffusion transformer with AdaLN-zero (DiT; ScaleDP).

One block:  x += g1 * attention((s1 + 1) LN(x) + b1);  x += g2 * mlp((s2 + 1) LN(x) + b2)
with (b1, s1, g1, b2, s2, g2) = linear(silu(t + c)), zero at the start of training: every block begins as identity.
All noise levels of a sampling run are known before it starts. `prepare` therefore makes the modulations of all of
them in one product per layer, where a plain DiT reads these weights (a third of the model) again in every step.
Departure: GELU is exact where DiT takes its tanh approximation, which costs five times as much on a CPU in bf16.
Tensors: B batch, K noise levels, T chunk steps, L prefix or memory tokens, S = L + T, D width.
(ChatVLA-2, section 3.2; ScaleDP; Peebles and Xie 2023)
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from chatvla_policy.model.action.conditioning import LayerConditions
from chatvla_policy.model.action.config import ActionConfig

__all__ = ["DenoisingPlan", "DiT", "DiTBlock"]


def _modulated(x_BSD: Tensor, shift_BD: Tensor, scale_BD: Tensor) -> Tensor:
    """Return scale * LN(x) + shift, where `scale` already holds the + 1."""
    width = x_BSD.shape[-1:]
    if x_BSD.shape[0] == 1:
        # One sample: the modulation is LayerNorm's own affine part, one kernel instead of three.
        return functional.layer_norm(x_BSD, width, scale_BD[0], shift_BD[0], eps=1e-6)
    return torch.addcmul(shift_BD[:, None], functional.layer_norm(x_BSD, width, eps=1e-6), scale_BD[:, None])


def _linear(layer: nn.Linear, x_BSX: Tensor) -> Tensor:
    """Return the layer's output; flat rows take a faster way through torch's CPU kernels than a batch does."""
    return layer(x_BSX.flatten(0, 1)).unflatten(0, x_BSX.shape[:2])


def _attention(query_BHSd: Tensor, key_BHLd: Tensor, value_BHLd: Tensor, mask: Tensor | None) -> Tensor:
    """Return softmax(Q K' / sqrt(d)) V; written out at inference on a CPU, as it is faster there."""
    if mask is not None or query_BHSd.device.type != "cpu" or torch.is_grad_enabled():
        return functional.scaled_dot_product_attention(query_BHSd, key_BHLd, value_BHLd, attn_mask=mask)
    scores_BHSL = torch.matmul(query_BHSd * query_BHSd.shape[-1] ** -0.5, key_BHLd.transpose(-1, -2))
    return torch.matmul(scores_BHSL.softmax(-1), value_BHLd)


class Attention(nn.Module):
    """Multi-head attention of the chunk's tokens to themselves, or to a memory of which keys are made once."""

    def __init__(self, width: int, heads: int) -> None:
        """Build with `heads` heads."""
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)

    def _split(self, x_BSX: Tensor, parts: int) -> tuple[Tensor, ...]:
        """Return `parts` tensors of shape (B, heads, S, head width)."""
        batch, length, width = x_BSX.shape
        split = x_BSX.view(batch, length, parts, self.heads, width // parts // self.heads)
        # One copy of all parts costs less than a copy of each inside the products.
        return tuple(split.permute(2, 0, 3, 1, 4).contiguous())

    def _merge(self, mixed_BHSd: Tensor) -> Tensor:
        """Return the heads side by side, projected."""
        return _linear(self.out, mixed_BHSd.transpose(1, 2).flatten(2))

    def forward(self, x_BSD: Tensor, mask_B11S: Tensor | None) -> Tensor:
        """Return self-attention over S tokens; `mask` is False at keys to leave out."""
        query, key, value = self._split(_linear(self.qkv, x_BSD), 3)
        return self._merge(_attention(query, key, value, mask_B11S))

    def memory(self, memory_BLD: Tensor) -> tuple[Tensor, ...]:
        """Return keys and values of a memory, made once per sampling run."""
        width = memory_BLD.shape[-1]
        return self._split(functional.linear(memory_BLD, self.qkv.weight[width:], self.qkv.bias[width:]), 2)

    def attend(self, x_BSD: Tensor, memory: tuple[Tensor, ...], mask_B11L: Tensor | None) -> Tensor:
        """Return attention of S tokens to the memory."""
        width = x_BSD.shape[-1]
        (query,) = self._split(functional.linear(x_BSD, self.qkv.weight[:width], self.qkv.bias[:width]), 1)
        return self._merge(_attention(query, *memory, mask_B11L))


class DiTBlock(nn.Module):
    """One layer: self-attention, optional cross-attention, MLP, all gated by AdaLN-zero."""

    def __init__(self, config: ActionConfig, *, cross_attends: bool) -> None:
        """Build; the modulation starts at zero, so the block starts as identity."""
        super().__init__()
        width = config.width
        self.modulation = nn.Linear(width, 6 * width)
        self.attention = Attention(width, config.heads)
        self.cross = Attention(width, config.heads) if cross_attends else None
        self.mlp_in = nn.Linear(width, config.mlp_ratio * width)
        self.mlp_out = nn.Linear(config.mlp_ratio * width, width)
        nn.init.zeros_(self.modulation.weight)
        nn.init.zeros_(self.modulation.bias)
        if self.cross is not None:
            nn.init.zeros_(self.cross.out.weight)
            nn.init.zeros_(self.cross.out.bias)

    def forward(
        self, x_BSD: Tensor, modulation_6BD: Tensor, mask: Tensor | None, memory: tuple[Tensor, ...] | None
    ) -> Tensor:
        """Return the tokens after this layer."""
        shift1, scale1, gate1, shift2, scale2, gate2 = modulation_6BD.unbind(0)
        attended_BSD = self.attention(_modulated(x_BSD, shift1, scale1), None if memory else mask)
        x_BSD = torch.addcmul(x_BSD, gate1[:, None], attended_BSD)
        if self.cross is not None and memory is not None:
            normed_BSD = functional.layer_norm(x_BSD, x_BSD.shape[-1:], eps=1e-6)
            x_BSD = x_BSD + self.cross.attend(normed_BSD, memory, mask)
        hidden_BSM = functional.gelu(_linear(self.mlp_in, _modulated(x_BSD, shift2, scale2)))
        return torch.addcmul(x_BSD, gate2[:, None], _linear(self.mlp_out, hidden_BSM))


@dataclass(frozen=True, kw_only=True)
class DenoisingPlan:
    """All that a sampling run needs and that does not depend on the chunk."""

    blocks: tuple[Tensor, ...]
    """Modulations per layer, shape (K, 6, B, D); scales hold the + 1."""
    output_K2BD: Tensor
    memories: tuple[tuple[Tensor, ...] | None, ...]
    prefix_BLD: Tensor | None
    mask: Tensor | None
    """Which keys are attended to, shape (B, 1, 1, S or L), or None for all."""
    base_BTA: Tensor | None = None
    guide_B1D: Tensor | None = None
    """What is added to the output."""


class DiT(nn.Module):
    """The trunk between the robots' input and output heads."""

    def __init__(self, config: ActionConfig, *, cross_attends: bool) -> None:
        """Build `config.depth` layers."""
        super().__init__()
        self.blocks = nn.ModuleList(DiTBlock(config, cross_attends=cross_attends) for _ in range(config.depth))
        self.output_modulation = nn.Linear(config.width, 2 * config.width)
        for name, parameter in self.blocks.named_parameters():
            if name.endswith("weight") and "modulation" not in name and "cross.out" not in name:
                nn.init.xavier_uniform_(parameter)
            elif name.endswith("bias"):
                nn.init.zeros_(parameter)
        nn.init.zeros_(self.output_modulation.weight)
        nn.init.zeros_(self.output_modulation.bias)

    def prepare(self, time_KBD: Tensor, conditions: LayerConditions) -> DenoisingPlan:
        """Return the modulations of K noise levels and everything else that stays the same between them.

        `time_KBD` may have B = 1 where all samples share the levels.
        """
        activated: dict[int, Tensor] = {}
        for embedding_BD in conditions.embeddings:
            if id(embedding_BD) not in activated:
                activated[id(embedding_BD)] = functional.silu(time_KBD + embedding_BD)
        *layer_inputs, output_input = (activated[id(embedding)] for embedding in conditions.embeddings)
        blocks = tuple(
            _split_modulation(block.modulation(input_KBD), 6, scales=(1, 4))
            for block, input_KBD in zip(self.blocks, layer_inputs, strict=True)
        )
        memory_BLD = conditions.memory_BLD
        return DenoisingPlan(
            blocks=blocks,
            output_K2BD=_split_modulation(self.output_modulation(output_input), 2, scales=(1,)),
            memories=tuple(None if memory_BLD is None else block.cross.memory(memory_BLD) for block in self.blocks),
            prefix_BLD=conditions.prefix_BLD,
            mask=conditions.valid_BL,
            base_BTA=conditions.base_BTA,
            guide_B1D=conditions.guide_B1D,
        )

    def forward(self, x_BTD: Tensor, plan: DenoisingPlan, level: int) -> Tensor:
        """Return the modulated output tokens, shape (B, T, D), at noise level `level` of the plan."""
        mask_B11S = None
        if plan.mask is not None:
            valid_BS = plan.mask if plan.prefix_BLD is None else functional.pad(plan.mask, (0, x_BTD.shape[1]), value=1)
            mask_B11S = valid_BS[:, None, None, :].bool()
        chunk_steps = x_BTD.shape[1]
        x_BSD = x_BTD if plan.prefix_BLD is None else torch.cat([plan.prefix_BLD, x_BTD], dim=1)
        for block, modulation_K6BD, memory in zip(self.blocks, plan.blocks, plan.memories, strict=True):
            x_BSD = block(x_BSD, modulation_K6BD[level], mask_B11S, memory)
        shift_BD, scale_BD = plan.output_K2BD[level].unbind(0)
        return _modulated(x_BSD[:, -chunk_steps:], shift_BD, scale_BD)


def _split_modulation(flat_KBX: Tensor, parts: int, *, scales: tuple[int, ...]) -> Tensor:
    """Return the parts apart, shape (K, parts, B, D), with 1 added to the scales."""
    levels, batch, total = flat_KBX.shape
    split_KPBD = flat_KBX.view(levels, batch, parts, total // parts).transpose(1, 2)
    one_P11 = torch.zeros(parts, 1, 1, dtype=flat_KBX.dtype, device=flat_KBX.device)
    one_P11[list(scales)] = 1.0
    return split_KPBD + one_P11
