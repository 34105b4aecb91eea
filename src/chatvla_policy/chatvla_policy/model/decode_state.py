# SPDX-License-Identifier: Apache-2.0
"""What a decoder remembers of a prompt and all that followed it, and what it gives back.

Legend: B batch, T prompt tokens, N new tokens, S cache columns, D width, L layers, G key-value heads, H head width.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from torch import Tensor

__all__ = ["DecodeError", "DecodeState", "Generated"]


class DecodeError(ValueError):
    """Tokens that don't fit the cache or the model; the message names both."""


@dataclass(kw_only=True)
class DecodeState:
    """A prompt and all that followed it, as the cache holds it."""

    keys_LBGSH: Tensor
    values_LBGSH: Tensor
    prompt_embeds_BTD: Tensor
    """Embeddings of the prompt; at image tokens what the vision tower saw."""
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
        return replace(self, keys_LBGSH=self.keys_LBGSH.clone(), values_LBGSH=self.values_LBGSH.clone(), valid_BS=valid)

    def first_row(self) -> DecodeState:
        """Return the first row alone, on the same buffers."""
        return replace(
            self,
            keys_LBGSH=self.keys_LBGSH[:, :1],
            values_LBGSH=self.values_LBGSH[:, :1],
            prompt_embeds_BTD=self.prompt_embeds_BTD[:1],
            prompt_hidden_BTD=self.prompt_hidden_BTD[:1],
            hidden_BD=self.hidden_BD[:1],
            next_position_B=self.next_position_B[:1],
            valid_BS=None if self.valid_BS is None else self.valid_BS[:1],
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
