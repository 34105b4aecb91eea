# SPDX-License-Identifier: Apache-2.0
"""Turn text into token ids and back, so that no user text can forge a control token.

Reads `tokenizer.json` with the `tokenizers` library: data only, no chat template, no code.
Control tokens (turn marks, image places) come from prompts.py alone. In user text they are spelled out as plain
characters; in reasoning text only the box marks are control tokens (see boxes.py).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from tokenizers import Tokenizer

__all__ = ["BOX_MARKS", "CONTROL_TOKENS", "TextCodec", "TokenizerError"]

BOX_MARKS = ("<|object_ref_start|>", "<|object_ref_end|>", "<|box_start|>", "<|box_end|>")
CONTROL_TOKENS = (
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|image_pad|>",
    "<|video_pad|>",
)
_BOX_PATTERN = re.compile("(" + "|".join(re.escape(mark) for mark in BOX_MARKS) + ")")


class TokenizerError(ValueError):
    """The tokenizer cannot serve; the message says what is missing."""


class TextCodec:
    """Text to ids and back for Qwen2-VL's tokens."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        """Take a tokenizer. Raises TokenizerError when it lacks one of Qwen2-VL's control tokens."""
        tokenizer.encode_special_tokens = True
        tokenizer.no_padding()
        tokenizer.no_truncation()
        self._tokenizer = tokenizer
        self._ids: dict[str, int] = {}
        for token in CONTROL_TOKENS + BOX_MARKS:
            token_id = tokenizer.token_to_id(token)
            if token_id is None:
                raise TokenizerError(f"the tokenizer has no {token}; take tokenizer.json of a Qwen2-VL checkpoint")
            self._ids[token] = token_id
        self._words = {token_id: token.content for token_id, token in tokenizer.get_added_tokens_decoder().items()}

    @classmethod
    def from_file(cls, path: Path) -> TextCodec:
        """Return the codec of a tokenizer.json. Raises TokenizerError when it cannot be read."""
        try:
            return cls(Tokenizer.from_file(str(path)))
        except TokenizerError:
            raise
        except Exception as error:  # the library raises bare Exception
            raise TokenizerError(f"{path.name} is no tokenizer: {error}") from error

    @property
    def end_id(self) -> int:
        """Id of the token that ends a turn."""
        return self._ids["<|im_end|>"]

    @property
    def pad_id(self) -> int:
        """Id that fills rows of a batch."""
        return self._ids["<|endoftext|>"]

    @property
    def image_id(self) -> int:
        """Id of an image place."""
        return self._ids["<|image_pad|>"]

    def size(self) -> int:
        """Return the number of tokens, control tokens included."""
        return self._tokenizer.get_vocab_size(with_added_tokens=True)

    def to_json(self) -> str:
        """Return the tokenizer as the text of a tokenizer.json."""
        return self._tokenizer.to_str()

    def control(self, token: str) -> int:
        """Return the id of a control token."""
        return self._ids[token]

    def plain(self, text: str) -> list[int]:
        """Return ids of text in which nothing is a control token."""
        return self._tokenizer.encode(text, add_special_tokens=False).ids

    def reasoning(self, text: str) -> list[int]:
        """Return ids of reasoning text, in which box marks are control tokens and nothing else is."""
        ids: list[int] = []
        for piece in _BOX_PATTERN.split(text):
            if piece in self._ids:
                ids.append(self._ids[piece])
            elif piece:
                ids.extend(self.plain(piece))
        return ids

    def text(self, ids: Sequence[int]) -> str:
        """Return the text of ids; box marks are kept, other control tokens are dropped."""
        pieces: list[str] = []
        run: list[int] = []
        for token_id in [*ids, None]:
            if token_id is not None and token_id not in self._words:
                run.append(token_id)
                continue
            if run:
                pieces.append(self._tokenizer.decode(run, skip_special_tokens=False))
                run = []
            if token_id is not None and self._words[token_id] in BOX_MARKS:
                pieces.append(self._words[token_id])
        return "".join(pieces)
