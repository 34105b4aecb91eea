# SPDX-License-Identifier: Apache-2.0
"""Run a backbone token by token on a key-value cache of our own, and return hidden states with the tokens.

transformers' `generate` builds masks, positions and cache objects anew for each token, drops the hidden state of the
last token, and can't go on with embeddings. This forward calls the same modules with the same weights in the same
order, on preallocated buffers; tests hold it equal to transformers' logits. Inference only: its outputs carry no
gradient. Padding may stand on either side of a prompt.
The cache holds every token that has a hidden state, the last generated one too: whatever follows sees the whole text.

Legend: B batch, T prompt tokens, N new tokens, S cache columns, D width, L layers, G key-value heads, Q query heads
per key-value head, H head width, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from chatvla_policy.model.backbone import Backbone
from chatvla_policy.model.moe.routing import narrowed

__all__ = ["DecodeError", "DecodeState", "Decoder", "Generated"]


class DecodeError(ValueError):
    """Tokens that don't fit the cache or the model; the message names both."""


@dataclass(kw_only=True)
class DecodeState:
    """A prompt and all that followed it, as the cache holds it."""

    keys_LBGSH: Tensor
    values_LBGSH: Tensor
    prompt_hidden_BTD: Tensor
    """Hidden states of the prompt after the final norm."""
    hidden_BD: Tensor
    """Hidden state of each row's last token after the final norm: the next token's logits come from it."""
    prompt_length: int
    """Columns of the prompt, T."""
    next_position_B: Tensor
    """Rotary position of the first token after the prompt."""
    shared_position: int | None
    """The same as a number when all rows agree."""
    valid_BS: Tensor | None
    """False in columns of padding; None when there are none."""
    length: int = 0
    """Columns in use."""

    @property
    def capacity(self) -> int:
        """Columns in all, S."""
        return self.keys_LBGSH.shape[3]

    def fork(self) -> DecodeState:
        """Return an independent copy, to follow two continuations of one prompt."""
        valid = None if self.valid_BS is None else self.valid_BS.clone()
        return replace(
            self, keys_LBGSH=self.keys_LBGSH.clone(), values_LBGSH=self.values_LBGSH.clone(), valid_BS=valid
        )

    def mark(self) -> tuple[int, Tensor]:
        """Return a bookmark for `rewind`."""
        return self.length, self.hidden_BD

    def rewind(self, mark: tuple[int, Tensor]) -> None:
        """Forget every token after `mark`; the buffers stay."""
        length, hidden_BD = mark
        if not self.prompt_length <= length <= self.length:
            raise DecodeError(f"mark is at token {length}; the cache spans {self.prompt_length}..{self.length}")
        self.length, self.hidden_BD = length, hidden_BD


@dataclass(frozen=True, kw_only=True)
class Generated:
    """New tokens with the hidden state of every one of them."""

    tokens_BN: Tensor
    """Token ids; a row that stopped early is filled up with its stop token."""
    lengths_B: Tensor
    """Tokens of each row, its stop token counted."""
    hidden_BND: Tensor
    """Hidden states after the final norm, at the tokens' own positions."""
    accepted: int = 0
    """How many tokens came from a draft."""


class Decoder:
    """Prefill, generate, teacher-force and continue with embeddings, over a backbone's own weights."""

    def __init__(self, backbone: Backbone) -> None:
        """Keep the backbone; its weights are read at each call, never copied."""
        self.backbone = backbone
        self.language = backbone.model.language_model
        text = self.language.config
        self.heads = text.num_attention_heads
        self.groups = text.num_key_value_heads
        self.width = text.hidden_size // self.heads
        if "sliding_attention" in text.layer_types:
            raise DecodeError("the model uses sliding-window attention; this decoder knows full attention only")
        self._rotary: tuple[Tensor, Tensor] | None = None

    @torch.no_grad()
    def prefill(
        self,
        input_ids_BT: Tensor,
        *,
        attention_mask_BT: Tensor | None = None,
        pixel_values: Tensor | None = None,
        image_grid_thw: Tensor | None = None,
        room: int = 256,
    ) -> DecodeState:
        """Return the state after a prompt; `room` columns stay free for what follows."""
        batch, tokens = input_ids_BT.shape
        model = self.backbone.model
        embeds_BTD = self.language.embed_tokens(input_ids_BT)
        image_BT = input_ids_BT == self.backbone.config.image_token_id
        if pixel_values is not None:
            features = torch.cat(model.get_image_features(pixel_values, image_grid_thw).pooler_output)
            if int(image_BT.sum()) != len(features):
                raise DecodeError(f"prompt has {int(image_BT.sum())} image tokens; the images give {len(features)}")
            embeds_BTD = embeds_BTD.masked_scatter(image_BT[..., None], features.to(embeds_BTD.dtype))
        valid_BT = None if attention_mask_BT is None else attention_mask_BT.bool()
        if valid_BT is not None and bool(valid_BT.all()):
            valid_BT = None
        if image_grid_thw is not None:
            positions_3BT, _ = model.get_rope_index(
                input_ids_BT, image_BT.int(), image_grid_thw=image_grid_thw, attention_mask=valid_BT
            )
        else:
            columns_BT = torch.ones_like(input_ids_BT) if valid_BT is None else valid_BT.long()
            positions_3BT = (columns_BT.cumsum(-1) - 1).clamp_min(0).expand(3, batch, tokens)
        next_B = positions_3BT.amax(dim=(0, 2)) + 1
        shape = (len(self.language.layers), batch, self.groups, tokens + room, self.width)
        state = DecodeState(
            keys_LBGSH=embeds_BTD.new_empty(shape),
            values_LBGSH=embeds_BTD.new_empty(shape),
            prompt_hidden_BTD=embeds_BTD,
            hidden_BD=embeds_BTD[:, -1],
            prompt_length=tokens,
            next_position_B=next_B,
            shared_position=int(next_B[0]) if valid_BT is None and bool((next_B == next_B[0]).all()) else None,
            valid_BS=None if valid_BT is None else F.pad(valid_BT, (0, room), value=True),
        )
        cos, sin = self.language.rotary_emb(embeds_BTD, positions_3BT)
        state.prompt_hidden_BTD = self._forward(state, embeds_BTD, (cos[:, None], _signed(sin)[:, None]), valid_BT)
        return state

    @torch.no_grad()
    def forward_text(self, state: DecodeState, ids_BN: Tensor, valid_BN: Tensor | None = None) -> Tensor:
        """Append given tokens in one forward (teacher forcing); return their hidden states, shape (B, N, D)."""
        return self.forward_embeds(state, self.language.embed_tokens(ids_BN), valid_BN)

    @torch.no_grad()
    def forward_embeds(self, state: DecodeState, embeds_BND: Tensor, valid_BN: Tensor | None = None) -> Tensor:
        """Append given embeddings, such as action queries; return their hidden states, shape (B, N, D)."""
        tokens = embeds_BND.shape[1]
        if state.length + tokens > state.capacity:
            raise DecodeError(
                f"cache has {state.capacity} columns, {state.length} in use, {tokens} more asked for; "
                "give prefill more room"
            )
        if valid_BN is not None:
            state.valid_BS = self._all_valid(state) if state.valid_BS is None else state.valid_BS
            state.valid_BS[:, state.length : state.length + tokens] = valid_BN
        elif state.valid_BS is not None:
            state.valid_BS[:, state.length : state.length + tokens] = True
        return self._forward(state, embeds_BND, self._rotation(state, tokens), valid_BN)

    def logits(self, hidden: Tensor) -> Tensor:
        """Return the next token's logits, shape (..., V), for hidden states after the final norm."""
        return self.backbone.lm_head(hidden)

    @torch.no_grad()
    def generate(
        self,
        state: DecodeState,
        *,
        max_new_tokens: int,
        stop_ids: Collection[int],
        temperature: float = 0.0,
        top_p: float = 1.0,
        generator: torch.Generator | None = None,
    ) -> Generated:
        """Append tokens until each row has said a stop token or `max_new_tokens` are made; greedy at temperature 0.

        Every token, the last one too, has passed the model: its hidden state is returned and its keys are cached.
        """
        batch = len(state.hidden_BD)
        device = state.hidden_BD.device
        going_B = torch.ones(batch, dtype=torch.bool, device=device)
        lengths_B = torch.zeros(batch, dtype=torch.long, device=device)
        tokens: list[Tensor] = []
        hidden: list[Tensor] = []
        stops = torch.tensor(sorted(stop_ids), dtype=torch.long, device=device)
        for _ in range(max_new_tokens):
            token_B = _draw(self.logits(state.hidden_BD), temperature, top_p, generator)
            if batch == 1:
                hidden.append(self.forward_text(state, token_B[:, None]))
                tokens.append(token_B)
                if int(token_B) in stop_ids:
                    break
                continue
            token_B = torch.where(going_B, token_B, tokens[-1]) if tokens else token_B
            hidden.append(self.forward_text(state, token_B[:, None], None if bool(going_B.all()) else going_B[:, None]))
            tokens.append(token_B)
            lengths_B += going_B
            going_B &= ~torch.isin(token_B, stops)
            if not bool(going_B.any()):
                break
        if not tokens:
            empty = state.hidden_BD[:, None][:, :0]
            return Generated(tokens_BN=lengths_B[:, None][:, :0], lengths_B=lengths_B, hidden_BND=empty)
        if batch == 1:
            lengths_B += len(tokens)
        return Generated(tokens_BN=torch.stack(tokens, 1), lengths_B=lengths_B, hidden_BND=torch.cat(hidden, 1))

    @torch.no_grad()
    def verify(
        self, state: DecodeState, draft_1N: Tensor, *, max_new_tokens: int, stop_ids: Collection[int]
    ) -> Generated:
        """Return what greedy `generate` would, using a draft: one forward for all of it, then go on where it differs.

        The previous frame's text is a good draft. Lossless: a draft token stays only where it is the model's own choice.
        """
        if draft_1N.shape[0] != 1:
            raise DecodeError(f"draft has {draft_1N.shape[0]} rows; speculative decoding knows 1")
        ids = draft_1N[0, :max_new_tokens].tolist()
        stop_at = next((place for place, token in enumerate(ids) if token in stop_ids), len(ids) - 1)
        draft_1N = draft_1N[:, : stop_at + 1] if ids else draft_1N[:, :0]
        count = draft_1N.shape[1]
        if not count:
            return self.generate(state, max_new_tokens=max_new_tokens, stop_ids=stop_ids)
        length, before_BD = state.mark()
        hidden_1ND = self.forward_text(state, draft_1N)
        own_N = self.logits(torch.cat([before_BD, hidden_1ND[0, :-1]])).argmax(-1)
        accepted = int((own_N == draft_1N[0]).long().cumprod(0).sum())
        last_BD = hidden_1ND[:, accepted - 1] if accepted else before_BD
        state.rewind((length + accepted, last_BD))
        done = accepted == max_new_tokens or (accepted == count and ids[count - 1] in stop_ids)
        left = 0 if done else max_new_tokens - accepted
        rest = self.generate(state, max_new_tokens=left, stop_ids=stop_ids)
        return Generated(
            tokens_BN=torch.cat([draft_1N[:, :accepted], rest.tokens_BN], 1),
            lengths_B=rest.lengths_B + accepted,
            hidden_BND=torch.cat([hidden_1ND[:, :accepted], rest.hidden_BND], 1),
            accepted=accepted,
        )

    def _forward(
        self, state: DecodeState, hidden_BND: Tensor, rotation: tuple[Tensor, Tensor], valid_BN: Tensor | None
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
        rotation: tuple[Tensor, Tensor],
        mask: Tensor | None,
    ) -> Tensor:
        """Return layer `index`'s attention output, shape (B, N, D), and put the new keys and values in the cache."""
        batch, tokens, _ = hidden_BND.shape
        attention = self.language.layers[index].self_attn
        end, shape = start + tokens, (batch, tokens, -1, self.width)
        query_BHNW = _rotate(attention.q_proj(hidden_BND).view(shape).transpose(1, 2), rotation)
        keys, values = state.keys_LBGSH[index], state.values_LBGSH[index]
        keys[:, :, start:end] = _rotate(attention.k_proj(hidden_BND).view(shape).transpose(1, 2), rotation)
        values[:, :, start:end] = attention.v_proj(hidden_BND).view(shape).transpose(1, 2)
        keys, values = keys[:, :, :end], values[:, :, :end]
        if tokens == 1:
            # The query heads of one key-value head become rows of one product: nothing is repeated.
            query = query_BHNW.reshape(batch, self.groups, -1, self.width)
            output = F.scaled_dot_product_attention(query, keys, values, attn_mask=mask)
        else:
            causal = mask is None
            output = F.scaled_dot_product_attention(
                query_BHNW, keys, values, attn_mask=mask, is_causal=causal, enable_gqa=True
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

    def _rotation(self, state: DecodeState, tokens: int) -> tuple[Tensor, Tensor]:
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

    def _rotary_table(self, positions: int) -> tuple[Tensor, Tensor]:
        weight = self.language.norm.weight
        table = self._rotary
        if table is None or len(table[0]) < positions or table[0].dtype != weight.dtype or table[0].device != weight.device:
            place_31S = torch.arange(2 ** (positions - 1).bit_length(), device=weight.device).expand(3, 1, -1)
            cos, sin = self.language.rotary_emb(weight, place_31S)
            table = self._rotary = (cos[0], _signed(sin[0]))
        return table

    def _all_valid(self, state: DecodeState) -> Tensor:
        return torch.ones(len(state.hidden_BD), state.capacity, dtype=torch.bool, device=state.hidden_BD.device)


def _signed(sin: Tensor) -> Tensor:
    """Return sines whose first half is negated: rotating then needs no negation of its own."""
    return torch.cat([-sin[..., : sin.shape[-1] // 2], sin[..., sin.shape[-1] // 2 :]], -1)


def _rotate(states: Tensor, rotation: tuple[Tensor, Tensor]) -> Tensor:
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


def _draw(logits_BV: Tensor, temperature: float, top_p: float, generator: torch.Generator | None) -> Tensor:
    """Return one token per row: the likeliest at temperature 0, else drawn from the smallest set of mass `top_p`."""
    if temperature <= 0.0:
        return logits_BV.argmax(-1)
    share_BV, order_BV = (logits_BV.float() / temperature).softmax(-1).sort(-1, descending=True)
    share_BV = share_BV * (share_BV.cumsum(-1) - share_BV < top_p)
    return order_BV.gather(-1, torch.multinomial(share_BV, 1, generator=generator))[:, 0]
