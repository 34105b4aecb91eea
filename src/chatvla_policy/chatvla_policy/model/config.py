# SPDX-License-Identifier: Apache-2.0
"""Say all of a ChatVLA-2 model: language model, mixture of experts, action expert, images. Stored in the checkpoint.

Sizes (model/sizes.py): `tiny` trains on a CPU; `qwen2vl_2b` and `qwen2vl_7b` are the real Qwen2-VL.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import Any

from transformers import Qwen2VLConfig

from chatvla_policy.model.action.config import ActionConfig, Embodiment, action_size
from chatvla_policy.model.moe.config import MoeConfig
from chatvla_policy.model.sizes import qwen2vl_config
from chatvla_policy.processing.images import LARGEST_SIDE, VARIANTS, ImageConfig
from chatvla_policy.processing.tokens import TextCodec
from chatvla_policy.strict_json import added, dump_json, from_plain

__all__ = ["BackboneConfig", "ChatVLA2Config", "TextConfig", "VisionConfig", "chatvla2_config"]

_LARGEST = {
    **dict.fromkeys(("depth", "heads", "kv_heads", "mlp_ratio"), 1024),
    **dict.fromkeys(("width", "mlp_width"), 2**18),
    **dict.fromkeys(("patch_size", "merge_size", "temporal_patch_size"), LARGEST_SIDE),
    "vocabulary": 2**22,
    "max_positions": 2**30,
}
"""Largest size that is supported, by field of the language model and the vision tower."""


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

    def __post_init__(self) -> None:
        """Raise ValueError for sizes that cannot be built."""
        _check_sizes("vision tower", self)
        if self.width % (4 * self.heads):
            raise ValueError(
                f"the vision tower's width is {self.width}, must be a multiple of four times its {self.heads} heads"
            )


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
        _check_sizes("language model", self)
        if self.width % self.heads or self.heads % self.kv_heads:
            raise ValueError(
                f"width {self.width}, heads {self.heads} and kv_heads {self.kv_heads} do not divide each other"
            )
        if min(self.mrope_section) < 0 or sum(self.mrope_section) * 2 != self.width // self.heads:
            raise ValueError(
                f"mrope_section {self.mrope_section} sums to {sum(self.mrope_section)}, "
                f"must be half the head width {self.width // self.heads}"
            )


def _check_sizes(part: str, config: VisionConfig | TextConfig) -> None:
    """Raise ValueError for the first size that is not positive, or beyond any that is supported."""
    for item in fields(config):
        size, largest = getattr(config, item.name), _LARGEST.get(item.name)
        if largest is not None and not 1 <= size <= largest:
            raise ValueError(f"the {part}'s {item.name} is {size}, must lie in 1..{largest}")


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
    readings: int = added(1)
    """How often the images are read where a text is written: once, and as copies that are a little larger or smaller.

    The next token is chosen by the mean of the readings' log-probabilities (test-time augmentation); 1 is the papers'.
    """
    text_age_s: float = added(0.0)
    """How old the texts were, at most, that it learned to act on [s]: it writes a new one as often; 0: not said."""
    openings: tuple[int, ...] = added(())
    """Tokens that begin the texts of the robot data, by number; a policy's own text begins with one of them.

    Fine-tuned on image-text data beside robot data, a small model may meet an unknown instruction with an answer in the
    words of the former. Empty: any token.
    """
    action_loss_weight: float = 1.0
    """w in language loss + w * action loss. The papers do not give it."""

    def __post_init__(self) -> None:
        """Raise ValueError when the image preparation and the vision tower differ."""
        vision, images = self.backbone.vision, self.images
        ours = (images.patch_size, images.merge_size, images.temporal_patch_size)
        theirs = (vision.patch_size, vision.merge_size, vision.temporal_patch_size)
        if ours != theirs:
            raise ValueError(f"images are cut as {ours} (patch, merge, temporal), the vision tower takes {theirs}")
        if not 1 <= self.readings <= 1 + len(VARIANTS):
            raise ValueError(f"readings are {self.readings}, must lie in 1..{1 + len(VARIANTS)}")
        words = self.backbone.text.vocabulary
        if any(not 0 <= token < words for token in self.openings):
            raise ValueError(f"openings are {self.openings}, must be tokens of the vocabulary's {words}")

    def to_json(self) -> str:
        """Return the config as JSON text."""
        return dump_json(self)

    @classmethod
    def from_plain(cls, data: Any) -> ChatVLA2Config:
        """Return the config of parsed JSON. Raises StrictJsonError naming the first field that does not fit."""
        return from_plain(cls, data, where="config")


_ACTION_SIZES = {"micro": "tiny", "tiny": "tiny", "qwen2vl_2b": "H", "qwen2vl_7b": "H"}
_SMALL_IMAGES = ImageConfig(width=224, height=168)
"""48 image tokens a view instead of 99: what a CPU trains in minutes."""


def chatvla2_config(
    size: str,
    *,
    embodiments: tuple[Embodiment, ...],
    codec: TextCodec | None = None,
    moe: MoeConfig | None = None,
    action: str | None = None,
    layers: int | None = None,
    **action_fields: object,
) -> ChatVLA2Config:
    """Return the config of a whole model.

    `size` is one of sizes.SIZES; the paper's model is `qwen2vl_2b` with 8 experts, top-2 (the default `moe`) and
    action size H. The small sizes take vocabulary and token ids from `codec`. `action` names another action size,
    `action_fields` set fields of ActionConfig. Raises ValueError for names that do not exist.
    """
    tokens: dict[str, int] = {}
    if codec is not None:
        tokens = {
            "vocabulary": codec.size(),
            "image_token_id": codec.image_id,
            "video_token_id": codec.control("<|video_pad|>"),
            "vision_start_token_id": codec.control("<|vision_start|>"),
            "vision_end_token_id": codec.control("<|vision_end|>"),
        }
    backbone = BackboneConfig.from_transformers(qwen2vl_config(size, layers=layers, **tokens))
    return ChatVLA2Config(
        backbone=backbone,
        action=action_size(action or _ACTION_SIZES[size], embodiments=embodiments, **action_fields),
        moe=moe or MoeConfig(),
        images=_SMALL_IMAGES if size in ("micro", "tiny") else ImageConfig(),
    )
