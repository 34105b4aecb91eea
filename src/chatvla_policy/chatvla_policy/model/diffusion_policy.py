# SPDX-License-Identifier: Apache-2.0
"""Diffusion policy without language: pictures and joints condition the same DiT that ChatVLA-2's action expert is.

Departures from Chi et al. 2023: one observation instead of two; the denoiser is ScaleDP's DiT, so that the only
difference to the other systems is what stands before the action head. An instruction is not read.
Tensors: B samples, N views, H, W pixels, V encoder width, T chunk steps, A action dims, Z state dims.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from chatvla_policy.model.action import ActionExpert, ReasoningTokens
from chatvla_policy.model.action.conditioning import LayerConditions
from chatvla_policy.model.action.config import ActionConfig
from chatvla_policy.model.pixels import GROUP, PictureEncoder
from chatvla_policy.processing.images import LARGEST_SIDE
from chatvla_policy.strict_json import from_plain

__all__ = ["DiffusionPolicyConfig", "DiffusionPolicyModel"]


@dataclass(frozen=True, kw_only=True)
class DiffusionPolicyConfig:
    """One diffusion policy."""

    action: ActionConfig
    """`conditioning` is none; `queries` is the number of views."""
    image_width: int = 160
    image_height: int = 120
    channels: tuple[int, ...] = (64, 128, 256, 512)
    """Widths of the encoder's stages; with two blocks a stage these are ResNet-18's."""
    blocks: int = 2
    keypoints: int = 32
    width: int = 256
    """Width of a view's vector."""
    system: str = "diffusion_policy"

    def __post_init__(self) -> None:
        """Raise ValueError where the action head would wait for a reasoning, and for sizes that cannot be built."""
        if self.action.conditioning != "none":
            raise ValueError(f"a diffusion policy conditions on no reasoning, not {self.action.conditioning!r}")
        if not self.channels or any(channels < 1 or channels % GROUP for channels in self.channels):
            raise ValueError(f"the encoder's channels are {self.channels}, must be multiples of {GROUP}")
        for name in ("image_width", "image_height", "blocks", "keypoints", "width"):
            if not 1 <= getattr(self, name) <= LARGEST_SIDE:
                raise ValueError(f"the encoder's {name} is {getattr(self, name)}, must lie in 1..{LARGEST_SIDE}")

    @classmethod
    def from_plain(cls, data: Any) -> DiffusionPolicyConfig:
        """Return the config of parsed JSON. Raises StrictJsonError naming the first field that does not fit."""
        return from_plain(cls, data, where="config")


class DiffusionPolicyModel(nn.Module):
    """Encoder and action head."""

    def __init__(self, config: DiffusionPolicyConfig) -> None:
        """Build with random weights."""
        super().__init__()
        self.config = config
        self.encoder = PictureEncoder(
            channels=config.channels, blocks=config.blocks, keypoints=config.keypoints, width=config.width
        )
        self.expert = ActionExpert(config.action, config.width)

    def condition(self, robot: str, pictures_BNHW3: Tensor, state_BZ: Tensor) -> LayerConditions:
        """Return what each layer is conditioned on; pictures are uint8 RGB at the config's size."""
        batch, views = pictures_BNHW3.shape[:2]
        pixels = pictures_BNHW3.flatten(0, 1).permute(0, 3, 1, 2).to(self.expert.dtype) / 255
        tokens_BNV = self.encoder(pixels).view(batch, views, -1)
        nothing = ReasoningTokens(hidden_BLV=tokens_BNV[:, :0], valid_BL=torch.zeros(batch, 0, dtype=torch.bool))
        return self.expert.condition(robot, tokens_BNV, state_BZ, nothing)
