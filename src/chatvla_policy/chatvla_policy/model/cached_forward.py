# SPDX-License-Identifier: Apache-2.0
"""One forward of new tokens over a preallocated key-value cache, with the backbone's own modules.

It calls the modules that transformers' Qwen2-VL calls, in the same order; only masks, positions and the cache are
ours: computed once per forward or looked up, never per layer. Tests hold it equal to transformers' forward.

Legend: B batch, N new tokens, S cache columns, D width, L layers, G key-value heads, H head width, Q query heads.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers.models.qwen2_vl.modeling_qwen2_vl import Qwen2VLTextModel

from chatvla_policy.model.decode_state import DecodeError, DecodeState
from chatvla_policy.model.moe.routing import narrowed

__all__ = ["CachedForward"]

Rotation = tuple[Tensor, Tensor]


class CachedForward:
    """Runs a language model's layers on new tokens behind those in a cache. Weights are read at each call."""

    def __init__(self, language: Qwen2VLTextModel) -> None:
        """Keep `language`; raises DecodeError for sliding-window attention."""
        self.language = language
        self.groups = language.config.num_key_value_heads or language.config.num_attention_heads
        self.width = language.config.hidden_size // language.config.num_attention_heads
        if "sliding_attention" in (language.config.layer_types or ()):
            raise DecodeError("the model uses sliding-window attention; this decoder knows full attention only")
        self._table: Rotation | None = None

    def __call__(
        self, state: DecodeState, hidden_BND: Tensor, rotation: Rotation, valid_BN: Tensor | None = None
    ) -> Tensor:
        """Append embeddings at `state.length`; return their hidden states after the final norm."""
        start, tokens = state.length, hidden_BND.shape[1]
        mask = self._mask(state, tokens)
        state.length = start + tokens
        with narrowed(valid_BN):
            for index, layer in enumerate(self.language.layers):
                attended = self._attend(state, index, layer.input_layernorm(hidden_BND), start, rotation, mask)
                hidden_BND = hidden_BND + attended
                hidden_BND = hidden_BND + layer.mlp(layer.post_attention_layernorm(hidden_BND))
        hidden_BND = self.language.norm(hidden_BND)
        state.hidden_BD = _last_valid(hidden_BND, valid_BN, state.hidden_BD)
        return hidden_BND

    def _attend(
        self,
        state: DecodeState,
        index: int,
        hidden_BND: Tensor,
        start: int,
        rotation: Rotation,
        mask: Tensor | None,
    ) -> Tensor:
        """Return layer `index`'s attention output, shape (B, N, D), and put the new keys and values in the cache."""
        batch, tokens, _ = hidden_BND.shape
        attention = self.language.layers[index].self_attn
        end, shape = start + tokens, (batch, tokens, -1, self.width)
        # Queries and keys turn together: half the small operations.
        both = torch.cat([attention.q_proj(hidden_BND), attention.k_proj(hidden_BND)], -1)
        both = _rotate(both.view(shape).transpose(1, 2), rotation)
        query = both[:, : -self.groups]
        keys, values = state.keys_LBGSH[index], state.values_LBGSH[index]
        keys[:, :, start:end] = both[:, -self.groups :]
        values[:, :, start:end] = attention.v_proj(hidden_BND).view(shape).transpose(1, 2)
        keys, values = keys[:, :, :end], values[:, :, :end]
        if tokens == 1:
            # The query heads of one key-value head become rows of one product: nothing is repeated.
            query = query.reshape(batch, self.groups, -1, self.width)
            output = F.scaled_dot_product_attention(query, keys, values, attn_mask=mask)
        else:
            causal = mask is None
            output = F.scaled_dot_product_attention(
                query, keys, values, attn_mask=mask, is_causal=causal, enable_gqa=True
            ).transpose(1, 2)
        return attention.o_proj(output.reshape(batch, tokens, -1))

    def _mask(self, state: DecodeState, tokens: int) -> Tensor | None:
        """Return who sees whom among the next `tokens`, True where seen; None when the kernel knows it by itself."""
        start, end = state.length, state.length + tokens
        if state.valid_BS is None:
            if tokens == 1 or start == 0:
                return None
            row_N = torch.arange(start, end, device=state.hidden_BD.device)
            return torch.arange(end, device=row_N.device) <= row_N[:, None]
        seen_B11S = state.valid_BS[:, None, None, :end]
        if tokens == 1:
            return seen_B11S
        row_N1 = torch.arange(start, end, device=seen_B11S.device)[:, None]
        column_S = torch.arange(end, device=seen_B11S.device)
        # Padding sees itself: a row that sees nothing would be undefined, and poison the cache.
        return ((column_S <= row_N1) & seen_B11S) | (column_S == row_N1)

    def rotation(self, state: DecodeState, tokens: int) -> Rotation:
        """Return cosines and signed sines for the next `tokens`, shapes that broadcast to (B, heads, N, H)."""
        cos_SH, sin_SH = self._rotary_table(state.capacity + 1)
        done = state.length - state.prompt_length
        if state.valid_BS is None and state.shared_position is not None:
            first = state.shared_position + done
            return cos_SH[first : first + tokens], sin_SH[first : first + tokens]
        first_B = state.next_position_B + done
        if state.valid_BS is not None:
            after_BS = state.valid_BS[:, state.prompt_length : state.length + tokens].long()
            place_BN = (state.next_position_B[:, None] + after_BS.cumsum(-1) - after_BS)[:, done:]
        else:
            place_BN = first_B[:, None] + torch.arange(tokens, device=first_B.device)
        return cos_SH[place_BN][:, None], sin_SH[place_BN][:, None]

    def turned(self, embeds_BND: Tensor, positions_3BN: Tensor) -> Rotation:
        """Return the rotation of explicit M-RoPE positions, shapes that broadcast to (B, heads, N, H)."""
        cos_BNH, sin_BNH = self.language.rotary_emb(embeds_BND, positions_3BN)
        return cos_BNH[:, None], _signed(sin_BNH)[:, None]

    def _rotary_table(self, positions: int) -> Rotation:
        """Return the rotation of text positions 0, 1, ..., each shape (S, H); made once, enlarged when needed."""
        weight, table = self.language.norm.weight, self._table
        if (
            table is None
            or len(table[0]) < positions
            or (table[0].dtype, table[0].device) != (weight.dtype, weight.device)
        ):
            place_31S = torch.arange(2 ** (positions - 1).bit_length(), device=weight.device).expand(3, 1, -1)
            cos_1SH, sin_1SH = self.language.rotary_emb(weight, place_31S)
            table = self._table = (cos_1SH[0], _signed(sin_1SH[0]))
        return table


def _signed(sin: Tensor) -> Tensor:
    """Return sines whose first half is negated: rotating then needs no negation of its own."""
    return torch.cat([-sin[..., : sin.shape[-1] // 2], sin[..., sin.shape[-1] // 2 :]], -1)


def _rotate(states: Tensor, rotation: Rotation) -> Tensor:
    """Return `states` turned by their positions, as transformers' apply_rotary_pos_emb does."""
    cos, signed_sin = rotation
    half = states.shape[-1] // 2
    swapped = torch.cat([states[..., half:], states[..., :half]], -1)
    return states * cos + swapped * signed_sin


def _last_valid(hidden_BND: Tensor, valid_BN: Tensor | None, before_BD: Tensor) -> Tensor:
    """Return each row's last valid hidden state; a row without one keeps what it had."""
    if valid_BN is None:
        return hidden_BND[:, -1]
    order_N = torch.arange(1, valid_BN.shape[1] + 1, device=valid_BN.device)
    last_B = (valid_BN * order_N).amax(-1)
    rows = torch.arange(len(last_B), device=last_B.device)
    return torch.where((last_B > 0)[:, None], hidden_BND[rows, (last_B - 1).clamp_min(0)], before_BD)
