# SPDX-License-Identifier: Apache-2.0
"""Turn a picture into one vector by convolutions alone: a ResNet with group norm and a spatial softmax.

  keypoint k: (x, y) = sum over places of softmax(map_k) * (place's x, y in [-1, 1])
The keypoints and the mean of each channel are projected to the output width.
Tensors: B pictures, H, W pixels, C channels, K keypoints, V output width.
(Diffusion Policy, Chi et al. 2023, section IV; spatial softmax: Finn et al. 2016)
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

__all__ = ["GROUP", "PictureEncoder"]

GROUP = 8
"""Channels that are normalised together."""


class _Block(nn.Module):
    """Two 3x3 convolutions beside a shortcut."""

    def __init__(self, inner: int, outer: int, stride: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(inner, outer, 3, stride, 1, bias=False)
        self.first_norm = nn.GroupNorm(outer // GROUP, outer)
        self.second = nn.Conv2d(outer, outer, 3, 1, 1, bias=False)
        self.second_norm = nn.GroupNorm(outer // GROUP, outer)
        self.shortcut = nn.Conv2d(inner, outer, 1, stride, bias=False) if stride > 1 or inner != outer else None

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """Return the block's output; its shape is halved where the stride is 2."""
        inner = functional.relu(self.first_norm(self.first(x_BCHW)))
        inner = self.second_norm(self.second(inner))
        return functional.relu(inner + (x_BCHW if self.shortcut is None else self.shortcut(x_BCHW)))


class PictureEncoder(nn.Module):
    """Pictures (B, 3, H, W), values 0..1, to vectors (B, V)."""

    def __init__(self, *, channels: tuple[int, ...], blocks: int, keypoints: int, width: int) -> None:
        """Build one stage per entry of `channels`, each halving the picture; `blocks` blocks a stage."""
        super().__init__()
        self.stem = nn.Conv2d(3, channels[0], 5, 2, 2, bias=False)
        self.stem_norm = nn.GroupNorm(channels[0] // GROUP, channels[0])
        inner, parts = channels[0], []
        for outer in channels:
            parts += [_Block(inner if n == 0 else outer, outer, 2 if n == 0 else 1) for n in range(blocks)]
            inner = outer
        self.stages = nn.Sequential(*parts)
        self.maps = nn.Conv2d(inner, keypoints, 1)
        self.out = nn.Linear(2 * keypoints + inner, width)

    def forward(self, pictures_B3HW: Tensor) -> Tensor:
        """Return one vector per picture, shape (B, V)."""
        x_BCHW = functional.relu(self.stem_norm(self.stem(2 * pictures_B3HW - 1)))
        x_BCHW = self.stages(x_BCHW)
        share_BKHW = self.maps(x_BCHW).flatten(2).softmax(-1).unflatten(2, x_BCHW.shape[-2:])
        height, width = x_BCHW.shape[-2:]
        across_W = torch.linspace(-1, 1, width, device=x_BCHW.device, dtype=share_BKHW.dtype)
        down_H = torch.linspace(-1, 1, height, device=x_BCHW.device, dtype=share_BKHW.dtype)
        x_BK = (share_BKHW.sum(2) * across_W).sum(-1)
        y_BK = (share_BKHW.sum(3) * down_H).sum(-1)
        return self.out(torch.cat([x_BK, y_BK, x_BCHW.mean((2, 3))], dim=-1))
