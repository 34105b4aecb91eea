# SPDX-License-Identifier: Apache-2.0
"""Name the backbone's sizes: tiny ones that train on a CPU, and the published Qwen2-VL ones."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from transformers import Qwen2VLConfig

__all__ = ["SIZES", "qwen2vl_config"]

_TINY_ROPE = {"rope_type": "default", "rope_theta": 1e4}
_HUB_ROPE = {"rope_type": "default", "rope_theta": 1e6, "mrope_section": [16, 24, 24]}

SIZES: Mapping[str, tuple[dict[str, Any], dict[str, Any]]] = MappingProxyType(
    {
        # For tests: every mechanism, hardly any weights. Head width 16, so M-RoPE's sections sum to 8.
        "micro": (
            {
                "hidden_size": 64,
                "intermediate_size": 96,
                "num_hidden_layers": 2,
                "num_attention_heads": 4,
                "num_key_value_heads": 2,
                "rope_parameters": {**_TINY_ROPE, "mrope_section": [2, 3, 3]},
            },
            {"depth": 1, "embed_dim": 32, "num_heads": 2},
        ),
        # The shipped size: learns to read, solve and point in core-minutes.
        "tiny": (
            {
                "hidden_size": 192,
                "intermediate_size": 512,
                "num_hidden_layers": 4,
                "num_attention_heads": 6,
                # As many as query heads, and slow rotations: finding a number among others takes most of a head.
                "num_key_value_heads": 6,
                "rope_parameters": {**_TINY_ROPE, "rope_theta": 1e6, "mrope_section": [4, 6, 6]},
            },
            {"depth": 4, "embed_dim": 160, "num_heads": 4},
        ),
        "qwen2vl_2b": (
            {
                "hidden_size": 1536,
                "intermediate_size": 8960,
                "num_hidden_layers": 28,
                "num_attention_heads": 12,
                "num_key_value_heads": 2,
                "rope_parameters": _HUB_ROPE,
            },
            {"depth": 32, "embed_dim": 1280, "num_heads": 16},
        ),
        "qwen2vl_7b": (
            {
                "hidden_size": 3584,
                "intermediate_size": 18944,
                "num_hidden_layers": 28,
                "num_attention_heads": 28,
                "num_key_value_heads": 4,
                "rope_parameters": _HUB_ROPE,
            },
            {"depth": 32, "embed_dim": 1280, "num_heads": 16},
        ),
    }
)
_VOCABULARY = {"qwen2vl_2b": 151936, "qwen2vl_7b": 152064}


def qwen2vl_config(
    size: str, *, layers: int | None = None, vocabulary: int | None = None, **tokens: int
) -> Qwen2VLConfig:
    """Return the Qwen2-VL config of a named size.

    `layers` cuts both the language and the vision model down to so many. `vocabulary` and special token ids
    (`image_token_id` and its siblings) come from the tokenizer for the tiny sizes; the published sizes bring their own.
    Raises KeyError naming the known sizes.
    """
    if size not in SIZES:
        raise KeyError(f"size {size!r} is unknown; known sizes: {', '.join(SIZES)}")
    text, vision = (dict(part) for part in SIZES[size])
    if layers is not None:
        text["num_hidden_layers"] = layers
        vision["depth"] = min(layers, vision["depth"])
    text["vocab_size"] = vocabulary or _VOCABULARY.get(size, 512)
    text["rms_norm_eps"] = 1e-6
    if size in _VOCABULARY:
        text |= {"bos_token_id": 151643, "eos_token_id": 151645}
    else:
        text |= {"bos_token_id": None, "eos_token_id": None, "max_position_embeddings": 4096}
    vision["hidden_size"] = text["hidden_size"]
    return Qwen2VLConfig(text_config=text, vision_config=vision, tie_word_embeddings=size != "qwen2vl_7b", **tokens)
