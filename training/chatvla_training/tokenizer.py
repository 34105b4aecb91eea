# SPDX-License-Identifier: Apache-2.0
"""Make the small byte-level vocabulary of the tiny model, in Qwen2-VL's own format. No ROS, no torch.

Same algorithm, splitting rule and special tokens as Qwen2-VL's tokenizer, so that all of the code that reads one reads
the other; any text in any script can be written (byte fallback). Every digit is a token of its own, or whole numbers
are: to find a number of two tokens among others and say what stands beside it is what a small model finds hard.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import chain

from tokenizers import AddedToken, Regex, Tokenizer, decoders, normalizers, pre_tokenizers
from tokenizers.models import BPE
from tokenizers.trainers import BpeTrainer

__all__ = ["QWEN2_SPLIT", "SPECIAL_TOKENS", "WHOLE_NUMBERS", "train_tokenizer"]

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

WHOLE_NUMBERS = tuple(str(number) for number in range(10, 100))
"""Numbers of two digits, for vocabularies in which they are one token."""
_OFTEN = 900_000


def train_tokenizer(texts: Iterable[str], *, size: int = 512, whole_numbers: Sequence[str] = ()) -> Tokenizer:
    """Return a byte-level BPE tokenizer of `size` tokens (256 bytes and the special tokens among them).

    Each of `whole_numbers` is one token, and digits go by as many as the first of them has: with WHOLE_NUMBERS "70" is
    one token, "100" is "10" and "0".

    Raises ValueError when `size` leaves no room for merges.
    """
    smallest = 256 + len(SPECIAL_TOKENS)
    if size < smallest:
        raise ValueError(f"vocabulary of {size} tokens is too small: bytes and special tokens alone are {smallest}")
    digits = len(whole_numbers[0]) if whole_numbers else 1
    split = QWEN2_SPLIT.replace(r"|\p{N}|", rf"|\p{{N}}{{1,{digits}}}|") if whole_numbers else QWEN2_SPLIT
    tokenizer = Tokenizer(BPE(byte_fallback=False))
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(split), behavior="isolated"),
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
    if whole_numbers:
        # As often as it takes for each of them to become a token before any word does.
        texts = chain(texts, (" ".join(whole_numbers) for _ in range(_OFTEN // len(whole_numbers))))
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in SPECIAL_TOKENS])
    return tokenizer
