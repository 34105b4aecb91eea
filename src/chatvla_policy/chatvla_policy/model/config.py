# SPDX-License-Identifier: Apache-2.0
"""Say all of a ChatVLA-2 model: language model, mixture of experts, action expert, images. Stored in the checkpoint.

Sizes: `tiny` trains on a CPU; `qwen2vl_2b` and `qwen2vl_7b` are the real Qwen2-VL.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

from transformers import Qwen2VLConfig

from chatvla_policy.model.action.config import ActionConfig, Embodiment, action_size
from chatvla_policy.model.moe.config import MoeConfig
from chatvla_policy.processing.images import ImageConfig
from chatvla_policy.strict_json import dump_json, from_plain

__all__ = ["SIZES", "BackboneConfig", "ChatVLA2Config", "TextConfig", "VisionConfig", "chatvla2_size"]


@dataclass(frozen=True, kw_only=True)
class VisionConfig:
    """Qwen2-VL's vision tower."""

    depth: int
    width: int
    heads: int
    mlp_ratio: int = 4
    patch_size: int = 14
    merge_size: int = 2
    temporal_patch_size: int = 2


@dataclass(frozen=True, kw_only=True)
class TextConfig:
    """Qwen2-VL's language model."""

    vocabulary: int
    depth: int
    width: int
    mlp_width: int
    heads: int
    kv_heads: int
    mrope_section: tuple[int, int, int]
    """Rotary pairs for time, height, width; they sum to half a head's width."""
    rope_theta: float = 1_000_000.0
    rms_norm_eps: float = 1e-6
    max_positions: int = 32768
    tied_embeddings: bool = True

    def __post_init__(self) -> None:
        """Raise ValueError for sizes that cannot be built."""
        if self.width % self.heads or self.heads % self.kv_heads:
            raise ValueError(
                f"width {self.width}, heads {self.heads} and kv_heads {self.kv_heads} do not divide each other"
            )
        if sum(self.mrope_section) * 2 != self.width // self.heads:
            raise ValueError(
                f"mrope_section {self.mrope_section} sums to {sum(self.mrope_section)}, "
                f"must be half the head width {self.width // self.heads}"
            )


@dataclass(frozen=True, kw_only=True)
class BackboneConfig:
    """A Qwen2-VL, in the terms of this package; `to_transformers` gives the library's own config."""

    text: TextConfig
    vision: VisionConfig
    image_token: int = 151655
    video_token: int = 151656
    vision_start_token: int = 151652
    vision_end_token: int = 151653

    def to_transformers(self) -> Qwen2VLConfig:
        """Return transformers' config of the same model."""
        text, vision = self.text, self.vision
        return Qwen2VLConfig(
            text_config={
                "vocab_size": text.vocabulary,
                "hidden_size": text.width,
                "intermediate_size": text.mlp_width,
                "num_hidden_layers": text.depth,
                "num_attention_heads": text.heads,
                "num_key_value_heads": text.kv_heads,
                "rms_norm_eps": text.rms_norm_eps,
                "max_position_embeddings": text.max_positions,
                "rope_parameters": {
                    "rope_type": "default",
                    "rope_theta": text.rope_theta,
                    "mrope_section": list(text.mrope_section),
                },
                "bos_token_id": None,
                "eos_token_id": None,
            },
            vision_config={
                "depth": vision.depth,
                "embed_dim": vision.width,
                "num_heads": vision.heads,
                "mlp_ratio": vision.mlp_ratio,
                "hidden_size": text.width,
                "patch_size": vision.patch_size,
                "spatial_merge_size": vision.merge_size,
                "temporal_patch_size": vision.temporal_patch_size,
            },
            image_token_id=self.image_token,
            video_token_id=self.video_token,
            vision_start_token_id=self.vision_start_token,
            vision_end_token_id=self.vision_end_token,
            tie_word_embeddings=text.tied_embeddings,
        )

    @classmethod
    def from_transformers(cls, config: Qwen2VLConfig) -> BackboneConfig:
        """Return the config of a loaded Qwen2-VL. Raises ValueError for what this package does not build."""
        text, vision = config.text_config, config.vision_config
        if text.hidden_act != "silu" or vision.hidden_act != "quick_gelu" or text.use_sliding_window:
            raise ValueError("this Qwen2-VL has other activations or a sliding window, which is not supported")
        rope = text.rope_parameters
        return cls(
            text=TextConfig(
                vocabulary=text.vocab_size,
                depth=text.num_hidden_layers,
                width=text.hidden_size,
                mlp_width=text.intermediate_size,
                heads=text.num_attention_heads,
                kv_heads=text.num_key_value_heads,
                mrope_section=tuple(rope["mrope_section"]),
                rope_theta=float(rope["rope_theta"]),
                rms_norm_eps=float(text.rms_norm_eps),
                max_positions=text.max_position_embeddings,
                tied_embeddings=bool(config.tie_word_embeddings),
            ),
            vision=VisionConfig(
                depth=vision.depth,
                width=vision.embed_dim,
                heads=vision.num_heads,
                mlp_ratio=vision.mlp_ratio,
                patch_size=vision.patch_size,
                merge_size=vision.spatial_merge_size,
                temporal_patch_size=vision.temporal_patch_size,
            ),
            image_token=config.image_token_id,
            video_token=config.video_token_id,
            vision_start_token=config.vision_start_token_id,
            vision_end_token=config.vision_end_token_id,
        )


@dataclass(frozen=True, kw_only=True)
class ChatVLA2Config:
    """One ChatVLA-2 model. Fields that a checkpoint does not know are refused."""

    backbone: BackboneConfig
    action: ActionConfig
    moe: MoeConfig = field(default_factory=MoeConfig)
    images: ImageConfig = field(default_factory=ImageConfig)
    system: str = "chatvla2"
    """Which policy class runs it (systems/__init__.py)."""
    max_reasoning_tokens: int = 96
    """Longest reasoning the policy writes or is forced to."""
    action_loss_weight: float = 1.0
    """w in language loss + w * action loss. The papers do not give it."""

    def __post_init__(self) -> None:
        """Raise ValueError when the image preparation and the vision tower differ."""
        vision, images = self.backbone.vision, self.images
        ours = (images.patch_size, images.merge_size, images.temporal_patch_size)
        theirs = (vision.patch_size, vision.merge_size, vision.temporal_patch_size)
        if ours != theirs:
            raise ValueError(f"images are cut as {ours} (patch, merge, temporal), the vision tower takes {theirs}")

    def to_json(self) -> str:
        """Return the config as JSON text."""
        return dump_json(self)

    @classmethod
    def from_plain(cls, data: Any) -> ChatVLA2Config:  # noqa: ANN401
        """Return the config of parsed JSON. Raises StrictJsonError naming the first field that does not fit."""
        return from_plain(cls, data, where="config")


def _tiny(embodiments: tuple[Embodiment, ...]) -> ChatVLA2Config:
    """About 3M parameters dense; trains on a CPU. Token ids are those of the shipped tiny tokenizer."""
    return ChatVLA2Config(
        backbone=BackboneConfig(
            text=TextConfig(
                vocabulary=400,
                depth=4,
                width=192,
                mlp_width=512,
                heads=6,
                kv_heads=2,
                mrope_section=(4, 6, 6),
                rope_theta=10_000.0,
                max_positions=4096,
            ),
            vision=VisionConfig(depth=3, width=128, heads=4),
            image_token=9,
            video_token=10,
            vision_start_token=7,
            vision_end_token=8,
        ),
        action=action_size("tiny", embodiments=embodiments),
    )


def _qwen2vl_2b(embodiments: tuple[Embodiment, ...]) -> ChatVLA2Config:
    """The paper's model: Qwen2-VL-2B with 8 experts and the 1B action expert."""
    return ChatVLA2Config(
        backbone=BackboneConfig(
            text=TextConfig(
                vocabulary=151936,
                depth=28,
                width=1536,
                mlp_width=8960,
                heads=12,
                kv_heads=2,
                mrope_section=(16, 24, 24),
            ),
            vision=VisionConfig(depth=32, width=1280, heads=16),
        ),
        action=action_size("H", embodiments=embodiments),
    )


def _qwen2vl_7b(embodiments: tuple[Embodiment, ...]) -> ChatVLA2Config:
    """Qwen2-VL-7B; dense, it is the paper's "7B dense model" (Table 3)."""
    small = _qwen2vl_2b(embodiments)
    text = TextConfig(
        vocabulary=152064,
        depth=28,
        width=3584,
        mlp_width=18944,
        heads=28,
        kv_heads=4,
        mrope_section=(16, 24, 24),
        tied_embeddings=False,
    )
    return replace(small, backbone=replace(small.backbone, text=text))


SIZES: dict[str, Callable[[tuple[Embodiment, ...]], ChatVLA2Config]] = {
    "tiny": _tiny,
    "qwen2vl_2b": _qwen2vl_2b,
    "qwen2vl_7b": _qwen2vl_7b,
}
"""Whole models by name."""


def chatvla2_size(name: str, *, embodiments: tuple[Embodiment, ...]) -> ChatVLA2Config:
    """Return the config of size `name` for the given robots. Raises ValueError, listing the sizes."""
    if name not in SIZES:
        raise ValueError(f"no model size {name!r}; there are: {', '.join(SIZES)}")
    return SIZES[name](embodiments)
