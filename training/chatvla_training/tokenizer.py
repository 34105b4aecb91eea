# SPDX-License-Identifier: Apache-2.0
"""Make the small byte-level vocabulary of the tiny model, in Qwen2-VL's own format. No ROS, no torch.

Same algorithm, splitting rule and special tokens as Qwen2-VL's tokenizer, so that all of the code that reads one reads
the other; every digit is a token of its own, and any text in any script can be written (byte fallback).
"""

from __future__ import annotations

from collections.abc import Iterable

from tokenizers import AddedToken, Regex, Tokenizer, decoders, normalizers, pre_tokenizers
from tokenizers.models import BPE
from tokenizers.trainers import BpeTrainer

__all__ = ["QWEN2_SPLIT", "SPECIAL_TOKENS", "train_tokenizer"]

SPECIAL_TOKENS = (
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|object_ref_start|>",
    "<|object_ref_end|>",
    "<|box_start|>",
    "<|box_end|>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|vision_pad|>",
    "<|image_pad|>",
    "<|video_pad|>",
)
"""Qwen2-VL's special tokens that this project uses."""

QWEN2_SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
"""Qwen2's pre-tokenizer rule: single digits, words with their leading space, runs of punctuation."""


def train_tokenizer(texts: Iterable[str], *, size: int = 512) -> Tokenizer:
    """Return a byte-level BPE tokenizer of `size` tokens (256 bytes and the special tokens among them).

    Raises ValueError when `size` leaves no room for merges.
    """
    smallest = 256 + len(SPECIAL_TOKENS)
    if size < smallest:
        raise ValueError(f"vocabulary of {size} tokens is too small: bytes and special tokens alone are {smallest}")
    tokenizer = Tokenizer(BPE(byte_fallback=False))
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(QWEN2_SPLIT), behavior="isolated"),
            pre_tokenizers.Split(Regex(r"[(),.+\-=:?<>]"), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = BpeTrainer(
        vocab_size=size - len(SPECIAL_TOKENS),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        special_tokens=[],
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in SPECIAL_TOKENS])
    return tokenizer
