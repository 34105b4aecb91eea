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

from collections.abc import Callable, Collection

import torch
import torch.nn.functional as F
from torch import Tensor

from chatvla_policy.model.backbone import Backbone
from chatvla_policy.model.cached_forward import CachedForward
from chatvla_policy.model.decode_state import DecodeError, DecodeState, Generated

__all__ = ["DecodeError", "DecodeState", "Decoder", "Generated", "agreed"]


class Decoder:
    """Prefill, generate, teacher-force and continue with embeddings, over a backbone's own weights."""

    def __init__(self, backbone: Backbone) -> None:
        """Keep the backbone; its weights are read at each call, never copied."""
        self.backbone = backbone
        self.language = backbone.model.language_model
        self.forward = CachedForward(self.language)

    @torch.no_grad()
    def prefill(
        self,
        input_ids_BT: Tensor,
        *,
        attention_mask_BT: Tensor | None = None,
        pixel_values: Tensor | None = None,
        image_grid_thw: Tensor | None = None,
        tail_BND: Tensor | None = None,
        room: int = 256,
        pause: Callable[[], None] | None = None,
    ) -> DecodeState:
        """Return the state after a prompt; `room` columns stay free for what follows.

        With `pause` the images of each row pass the tower apart, and it is called before each row's and after the last.

        `tail_BND` are embeddings, such as action queries, that pass behind the prompt in the same forward and count
        as part of it.
        """
        valid_BT = None if attention_mask_BT is None else attention_mask_BT.bool()
        if valid_BT is not None and bool(valid_BT.all()):
            valid_BT = None
        embeds_BTD = self._embed(input_ids_BT, pixel_values, image_grid_thw, pause)
        positions_3BT, next_B = self._positions(input_ids_BT, image_grid_thw, valid_BT)
        if tail_BND is not None:
            tail_positions_BN = next_B[:, None] + torch.arange(tail_BND.shape[1], device=next_B.device)
            positions_3BT = torch.cat([positions_3BT, tail_positions_BN.expand(3, -1, -1)], -1)
            embeds_BTD = torch.cat([embeds_BTD, tail_BND.to(embeds_BTD.dtype)], 1)
            valid_BT = None if valid_BT is None else F.pad(valid_BT, (0, tail_BND.shape[1]), value=True)
            next_B = next_B + tail_BND.shape[1]
        batch, tokens, _ = embeds_BTD.shape
        shape = (len(self.language.layers), batch, self.forward.groups, tokens + room, self.forward.width)
        state = DecodeState(
            keys_LBGSH=embeds_BTD.new_empty(shape),
            values_LBGSH=embeds_BTD.new_empty(shape),
            prompt_embeds_BTD=embeds_BTD,
            prompt_hidden_BTD=embeds_BTD,
            hidden_BD=embeds_BTD[:, -1],
            prompt_length=tokens,
            next_position_B=next_B,
            shared_position=int(next_B[0]) if valid_BT is None and bool((next_B == next_B[0]).all()) else None,
            valid_BS=None if valid_BT is None else F.pad(valid_BT, (0, room), value=True),
        )
        rotation = self.forward.turned(embeds_BTD, positions_3BT)
        state.prompt_hidden_BTD = self.forward(state, embeds_BTD, rotation, valid_BT)
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
            if state.valid_BS is None:
                state.valid_BS = valid_BN.new_ones(len(valid_BN), state.capacity, dtype=torch.bool)
            state.valid_BS[:, state.length : state.length + tokens] = valid_BN
        elif state.valid_BS is not None:
            state.valid_BS[:, state.length : state.length + tokens] = True
        return self.forward(state, embeds_BND, self.forward.rotation(state, tokens), valid_BN)

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
        agree: bool = False,
        openings: Collection[int] = (),
        pause: Callable[[], None] = lambda: None,
    ) -> Generated:
        """Append tokens until each row has said a stop token or `max_new_tokens` are made; greedy at temperature 0.

        With `agree` all rows write one text: each token is chosen by the mean of their log-probabilities. The first
        token is one of `openings`, where there are any. `pause` is called before each token.
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
            pause()
            logits_BV = self.logits(state.hidden_BD)
            if openings and not tokens:
                logits_BV = _among(openings, logits_BV)
            token_B = _draw(agreed(logits_BV) if agree else logits_BV, temperature, top_p, generator).expand(batch)
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
        self,
        state: DecodeState,
        draft_1N: Tensor,
        *,
        max_new_tokens: int,
        stop_ids: Collection[int],
        openings: Collection[int] = (),
        pause: Callable[[], None] = lambda: None,
    ) -> Generated:
        """Return what greedy `generate` of rows that agree would, using a draft.

        One forward passes all of the draft; where the model differs, it goes on by itself. The previous frame's text
        is a good draft. Lossless: a draft token stays where it is the model's own choice.
        """
        if draft_1N.shape[0] != 1:
            raise DecodeError(f"draft has {draft_1N.shape[0]} rows; speculative decoding knows 1")
        ids = draft_1N[0, :max_new_tokens].tolist()
        stop_at = next((place for place, token in enumerate(ids) if token in stop_ids), len(ids) - 1)
        draft_1N = draft_1N[:, : stop_at + 1] if ids else draft_1N[:, :0]
        count = draft_1N.shape[1]
        if not count:
            return self.generate(
                state, max_new_tokens=max_new_tokens, stop_ids=stop_ids, agree=True, openings=openings, pause=pause
            )
        length, before_BD = state.mark()
        draft_BN = draft_1N.expand(len(before_BD), -1)
        hidden_BND = self.forward_text(state, draft_BN)
        likely_NV = agreed(self.logits(torch.cat([before_BD[:, None], hidden_BND[:, :-1]], 1)))[0]
        if openings:
            likely_NV[:1] = _among(openings, likely_NV[:1])
        own_N = likely_NV.argmax(-1)
        accepted = int((own_N == draft_1N[0]).long().cumprod(0).sum())
        last_BD = hidden_BND[:, accepted - 1] if accepted else before_BD
        state.rewind((length + accepted, last_BD))
        done = accepted == max_new_tokens or (accepted == count and ids[count - 1] in stop_ids)
        left = 0 if done else max_new_tokens - accepted
        begin = () if accepted else openings
        rest = self.generate(state, max_new_tokens=left, stop_ids=stop_ids, agree=True, openings=begin, pause=pause)
        return Generated(
            tokens_BN=torch.cat([draft_BN[:, :accepted], rest.tokens_BN], 1),
            lengths_B=rest.lengths_B + accepted,
            hidden_BND=torch.cat([hidden_BND[:, :accepted], rest.hidden_BND], 1),
            accepted=accepted,
        )

    def _embed(
        self,
        input_ids_BT: Tensor,
        pixel_values: Tensor | None,
        image_grid_thw: Tensor | None,
        pause: Callable[[], None] | None,
    ) -> Tensor:
        """Return the prompt's embeddings with the images' features in the places of their tokens."""
        embeds_BTD = self.language.embed_tokens(input_ids_BT)
        if pixel_values is None or image_grid_thw is None:
            return embeds_BTD
        image_BT = input_ids_BT == self.backbone.config.image_token_id
        parts = 1 if pause is None else len(input_ids_BT)
        grids = image_grid_thw.chunk(parts)
        pixels = pixel_values.split([int(grid_N3.prod(-1).sum()) for grid_N3 in grids])
        seen: list[Tensor] = []
        for pixels_PX, grid_N3 in zip(pixels, grids, strict=True):
            if pause is not None:
                pause()
            seen += self.backbone.model.get_image_features(pixels_PX, grid_N3).pooler_output
        if pause is not None:
            pause()
        features = torch.cat(seen)
        if int(image_BT.sum()) != len(features):
            raise DecodeError(f"prompt has {int(image_BT.sum())} image tokens; the images give {len(features)}")
        return embeds_BTD.masked_scatter(image_BT[..., None], features.to(embeds_BTD.dtype))

    def _positions(
        self, input_ids_BT: Tensor, image_grid_thw: Tensor | None, valid_BT: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """Return M-RoPE positions, shape (3, B, T), and each row's next position, shape (B,)."""
        if image_grid_thw is not None:
            image_BT = (input_ids_BT == self.backbone.config.image_token_id).int()
            positions_3BT, _ = self.backbone.model.get_rope_index(
                input_ids_BT, image_BT, image_grid_thw=image_grid_thw, attention_mask=valid_BT
            )
        else:
            columns_BT = torch.ones_like(input_ids_BT) if valid_BT is None else valid_BT.long()
            positions_3BT = (columns_BT.cumsum(-1) - 1).clamp_min(0).expand(3, -1, -1)
        return positions_3BT, positions_3BT.amax(dim=(0, 2)) + 1


def agreed(logits: Tensor) -> Tensor:
    """Return the mean log-probabilities of all rows, shape (1, ...), or a single row's logits as they are."""
    return logits if len(logits) == 1 else logits.float().log_softmax(-1).mean(0, keepdim=True)


def _among(tokens: Collection[int], logits_BV: Tensor) -> Tensor:
    """Return the logits with all tokens but these ruled out."""
    only = sorted(tokens)
    ruled_BV = torch.full_like(logits_BV, -torch.inf)
    ruled_BV[:, only] = logits_BV[:, only]
    return ruled_BV


def _draw(logits_BV: Tensor, temperature: float, top_p: float, generator: torch.Generator | None) -> Tensor:
    """Return one token per row: the likeliest at temperature 0, else drawn from the smallest set of mass `top_p`."""
    if temperature <= 0.0:
        return logits_BV.argmax(-1)
    share_BV, order_BV = (logits_BV.float() / temperature).softmax(-1).sort(-1, descending=True)
    share_BV = share_BV * (share_BV.cumsum(-1) - share_BV < top_p)
    return order_BV.gather(-1, torch.multinomial(share_BV, 1, generator=generator))[:, 0]
