# SPDX-License-Identifier: Apache-2.0
"""Bring the base model into transformers' own layout: a pretrained tiny VLM of ours becomes a folder like the hub's.

Its chat template writes what it was pretrained on (processing/prompts.py), token for token.
"""

from __future__ import annotations

import json
from pathlib import Path

import torch
from tokenizers import Tokenizer
from transformers import PreTrainedTokenizerFast

from chatvla_control.contracts import InputKind
from chatvla_policy.checkpoint import load_checkpoint
from chatvla_policy.model.backbone import save_backbone
from chatvla_policy.model.moe import MoeKind
from chatvla_policy.processing.prompts import SYSTEM_PROMPTS
from chatvla_training.recipe import RecipeError

__all__ = ["CHAT_TEMPLATE", "export_base"]

CHAT_TEMPLATE = (
    "{% if messages[0]['role'] != 'system' %}<|im_start|>system\n"
    + SYSTEM_PROMPTS[InputKind.UNDERSTANDING]
    + "<|im_end|>\n{% endif %}"
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n"
    "{% if message['content'] is string %}{{ message['content'] }}{% else %}{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}<|vision_start|><|image_pad|><|vision_end|>{% else %}{{ part['text'] }}"
    "{% endif %}{% endfor %}{% endif %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def export_base(checkpoint: Path, folder: Path, *, dtype: torch.dtype = torch.bfloat16) -> tuple[int, int]:
    """Write the dense VLM of a checkpoint of ours as `folder`; return width and height [px] of its pictures.

    Raises RecipeError for a checkpoint with experts: no other program knows them.
    """
    loaded = load_checkpoint(checkpoint)
    kind = loaded.model.config.moe.kind
    if kind is not MoeKind.DENSE:
        raise RecipeError(f"{checkpoint} is a mixture of kind {kind}; VLM2VLA starts from a dense VLM")
    save_backbone(loaded.model.backbone.to(dtype), folder)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(loaded.codec.to_json()),
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        chat_template=CHAT_TEMPLATE,
    )
    tokenizer.save_pretrained(folder)
    images = loaded.model.config.images
    values = {
        "image_processor_type": "Qwen2VLImageProcessor",
        "patch_size": images.patch_size,
        "merge_size": images.merge_size,
        "temporal_patch_size": images.temporal_patch_size,
        "min_pixels": images.min_pixels,
        "max_pixels": images.max_pixels,
        "image_mean": images.mean,
        "image_std": images.std,
    }
    (folder / "preprocessor_config.json").write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")
    return images.width, images.height
