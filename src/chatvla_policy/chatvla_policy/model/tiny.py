# SPDX-License-Identifier: Apache-2.0
"""Make tiny random Qwen2-VL folders in the hub's own layout: weights, config, tokenizer, image processor.

For tests, and as the start of the shipped tiny model. The tokenizer is Qwen2's own kind (byte-level pairs, every digit
a token of its own) with a few hundred tokens learned from the sentences that the benches use, and the special tokens
of Qwen2-VL behind them.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

import torch
from tokenizers import Regex, Tokenizer, models, pre_tokenizers, trainers
from transformers import Qwen2Tokenizer, Qwen2VLConfig
from transformers.models.qwen2.tokenization_qwen2 import PRETOKENIZE_REGEX

from chatvla_policy.model.backbone import build_backbone, save_backbone
from chatvla_policy.model.moe.config import MoeConfig
from chatvla_policy.model.sizes import qwen2vl_config

__all__ = ["SENTENCES", "SPECIAL_TOKENS", "make_tiny_folder", "make_tiny_tokenizer", "tiny_config"]

SPECIAL_TOKENS = (
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|object_ref_start|>",
    "<|object_ref_end|>",
    "<|box_start|>",
    "<|box_end|>",
    "<|quad_start|>",
    "<|quad_end|>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|vision_pad|>",
    "<|image_pad|>",
    "<|video_pad|>",
)
TINY_VOCABULARY = 512
# 320 x 240 becomes 224 x 168: 48 image tokens.
IMAGE_PIXELS = {"shortest_edge": 56 * 56, "longest_edge": 224 * 168}
SENTENCES = (
    "Answer the question and pick the card with the correct answer.",
    "Solve the equation on the whiteboard, then pick up the card with the right number and place it on the board.",
    "On the whiteboard is 0+3. 0+3=3. There are: 3 (left), 1 (middle), and 2 (right). I should pick left card.",
    "On the whiteboard is 12 - 4. 12 - 4 = 8. There are: 9 (far left), 8 (left), 7 (right), and 6 (far right).",
    "The board shows 2 x 9 = 18. The cards are 18, 20 and 16. The answer 18 is on the far left card.",
    "What is written on the whiteboard? What number is on the left card? Where is the card with 5?",
    "List the cards from left to right. How many cards are there? Which card should I pick? Read the equation.",
    "I see the equation 7 + 6. The result is 13. The middle card shows 13, so I pick the middle card.",
    "Put the toy to the left of the cup. Put the toy to the right of the box. Put the toy in front of the bowl.",
    "Put the duck behind the bottle. Put the bear on top of the block. Put the toy at the bottom of the plate.",
    "The toy is at <box>. I should move the toy to the left of the red cup. The robot arm should grasp the blue toy.",
    "system user assistant You are a helpful assistant. Answer based on question. Predict robot action. yes no",
    "zero one two three four five six seven eight nine ten red green blue yellow white black",
)
CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n"
    "{% if message['content'] is string %}{{ message['content'] }}{% else %}{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}<|vision_start|><|image_pad|><|vision_end|>{% else %}{{ part['text'] }}"
    "{% endif %}{% endfor %}{% endif %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def make_tiny_tokenizer(sentences: Iterable[str] = SENTENCES, *, size: int = TINY_VOCABULARY) -> Qwen2Tokenizer:
    """Return a byte-level tokenizer of at most `size` tokens learned from `sentences`; any text comes back whole."""
    learner = Tokenizer(models.BPE())
    learner.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(PRETOKENIZE_REGEX), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    trainer = trainers.BpeTrainer(
        vocab_size=size - len(SPECIAL_TOKENS),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    learner.train_from_iterator(list(sentences), trainer)
    model = json.loads(learner.to_str())["model"]
    tokenizer = Qwen2Tokenizer(
        vocab=model["vocab"],
        merges=[tuple(pair) for pair in model["merges"]],
        additional_special_tokens=list(SPECIAL_TOKENS[1:]),
        eos_token="<|im_end|>",
        chat_template=CHAT_TEMPLATE,
    )
    tokenizer.add_special_tokens({"additional_special_tokens": list(SPECIAL_TOKENS[1:])})
    return tokenizer


def tiny_config(tokenizer: Qwen2Tokenizer, *, size: str = "micro", layers: int | None = None) -> Qwen2VLConfig:
    """Return a config of `size` whose vocabulary and special token ids are `tokenizer`'s."""
    ids = {
        "image_token_id": "<|image_pad|>",
        "video_token_id": "<|video_pad|>",
        "vision_start_token_id": "<|vision_start|>",
        "vision_end_token_id": "<|vision_end|>",
    }
    numbers = {key: int(tokenizer.convert_tokens_to_ids(token)) for key, token in ids.items()}  # pyright: ignore
    return qwen2vl_config(size, layers=layers, vocabulary=len(tokenizer), **numbers)


def make_tiny_folder(
    folder: str | Path,
    *,
    size: str = "micro",
    moe: MoeConfig | None = None,
    layers: int | None = None,
    seed: int = 0,
    dtype: torch.dtype = torch.float32,
    shard_bytes: int = 4 * 10**9,
) -> Path:
    """Write a random checkpoint of `size` in the hub's layout, dense unless `moe` is given; return the folder."""
    path = Path(folder)
    tokenizer = make_tiny_tokenizer()
    config = tiny_config(tokenizer, size=size, layers=layers)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        backbone = build_backbone(config, moe).to(dtype)
    save_backbone(backbone, path, shard_bytes=shard_bytes)
    tokenizer.save_pretrained(path)
    write_image_processor(path)
    return path


def write_image_processor(folder: Path) -> None:
    """Write preprocessor_config.json: Qwen2-VL's own values with the tiny model's image size."""
    values = {
        "image_processor_type": "Qwen2VLImageProcessor",
        "do_convert_rgb": True,
        "do_normalize": True,
        "do_rescale": True,
        "do_resize": True,
        "image_mean": [0.48145466, 0.4578275, 0.40821073],
        "image_std": [0.26862954, 0.26130258, 0.27577711],
        "merge_size": 2,
        "patch_size": 14,
        "temporal_patch_size": 2,
        "resample": 3,
        "rescale_factor": 1 / 255,
        "size": IMAGE_PIXELS,
        "min_pixels": IMAGE_PIXELS["shortest_edge"],
        "max_pixels": IMAGE_PIXELS["longest_edge"],
    }
    (folder / "preprocessor_config.json").write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")
