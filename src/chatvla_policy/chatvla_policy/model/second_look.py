# SPDX-License-Identifier: Apache-2.0
"""Read again where a written text contradicts itself: a digit or sign that was nearly another one is taken for it.

A model reads one token at a time and never goes back: a 4 taken for a 9 gives a wrong result, and a card that is not
there. The places where another digit or sign was almost as likely are tried in the order of how little was missing,
each continued as the model would; the first text without contradiction stands. Without one the text stays as it was.
Departure: the papers decode greedily and take what comes.
Tensors: B readings, V language width, N tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence

import torch
from torch import Tensor

from chatvla_policy.model.decode import Decoder, DecodeState, agreed
from chatvla_policy.processing.tokens import TextCodec

__all__ = ["SecondLook"]

_SIGNS = frozenset("+-x/*=\u00d7\u00f7")


class SecondLook:
    """Texts other than the likeliest, for one decoder and tokenizer."""

    def __init__(self, decoder: Decoder, codec: TextCodec, *, most: int = 8, gap: float = 4.0) -> None:
        """Try at most `most` other texts, whose first other token is at most `gap` less likely [nats]."""
        self._decoder, self._codec = decoder, codec
        self._most, self._gap = most, gap

    def look(
        self,
        state: DecodeState,
        start: tuple[int, Tensor],
        ids: Sequence[int],
        *,
        doubt: Callable[[str], bool],
        longest: int,
        stop_ids: Collection[int],
        pause: Callable[[], None],
    ) -> tuple[list[int], Tensor]:
        """Return ids without doubt, or `ids` where none are found, with the first row's hidden states, (1, N, V).

        `start` marks the state before the text; the state ends behind the returned one.
        """
        pause()
        hidden_BNV = self._given(state, start, ids)
        before_BNV = torch.cat([start[1][:, None], hidden_BNV[:, :-1]], 1)
        likely_NV = agreed(self._decoder.logits(before_BNV))[0]
        for place, other in self._others(likely_NV, ids):
            pause()
            given = [*ids[:place], other]
            hidden_BNV = self._given(state, start, given)
            rest = self._decoder.generate(
                state, max_new_tokens=longest - len(given), stop_ids=stop_ids, agree=True, pause=pause
            )
            found = [*given, *rest.tokens_BN[0].tolist()]
            if not doubt(self._codec.text(found)):
                return found, torch.cat([hidden_BNV, rest.hidden_BND], 1)[:1]
        pause()
        return list(ids), self._given(state, start, ids)[:1]

    def _given(self, state: DecodeState, start: tuple[int, Tensor], ids: Sequence[int]) -> Tensor:
        """Return the hidden states of `ids` behind `start`, shape (B, N, V)."""
        state.rewind(start)
        ids_1N = torch.tensor([list(ids)], device=start[1].device)
        return self._decoder.forward_text(state, ids_1N.expand(len(start[1]), -1))

    def _others(self, likely_NV: Tensor, ids: Sequence[int]) -> Iterator[tuple[int, int]]:
        """Yield (place, token) of digits and signs in the place of others, the least unlikely first."""
        found: list[tuple[float, int, int]] = []
        for place, token in enumerate(ids):
            if not self._is_figure(token):
                continue
            values, others = likely_NV[place].topk(5)
            for value, other in zip(values.tolist(), others.tolist(), strict=True):
                missing = float(likely_NV[place, token]) - value
                if other != token and missing <= self._gap and self._is_figure(other):
                    found.append((missing, place, other))
        for _, place, other in sorted(found)[: self._most]:
            yield place, other

    def _is_figure(self, token: int) -> bool:
        text = self._codec.text([token]).strip()
        return text.isdigit() or text in _SIGNS
