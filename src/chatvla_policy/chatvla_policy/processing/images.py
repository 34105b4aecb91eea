# SPDX-License-Identifier: Apache-2.0
"""The one definition of what happens to a camera image before the model sees it.

Any RGB image is first brought to the stored size (320x240 in the paper): scaled without distortion and centred on
black where the shape differs. Then transformers' Qwen2-VL processor (its PIL form, which needs no torchvision)
rounds to whole patches, normalises and cuts. Views follow each other in the checkpoint's camera order; their
embeddings are concatenated in the sequence (ChatVLA-2, section 3.1).
Shapes: H, W pixels; P patches of all images; X values in a patch.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

__all__ = ["LARGEST_SIDE", "VARIANTS", "ImageConfig", "ImageError", "ImagePreparer", "Placement", "PreparedImages"]

CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)
VARIANTS = ((1.06, 0, 0), (0.95, 0, 0), (1.0, -2, 1), (1.0, 2, -1))
"""Zoom about the middle of an image's further readings, and their move right and down [pixels of the prepared one]."""
LARGEST_SIDE = 4096
"""Largest side of an image [pixels]."""


class ImageError(ValueError):
    """The array is no image; the message says what came and what is taken."""


@dataclass(frozen=True, kw_only=True)
class ImageConfig:
    """How images are prepared; part of every checkpoint."""

    width: int = 320
    height: int = 240
    patch_size: int = 14
    merge_size: int = 2
    temporal_patch_size: int = 2
    min_pixels: int = 56 * 56
    max_pixels: int = 28 * 28 * 1280
    mean: tuple[float, float, float] = field(default=CLIP_MEAN)
    std: tuple[float, float, float] = field(default=CLIP_STD)

    def __post_init__(self) -> None:
        """Raise ValueError for images that no camera gives, or that cannot be cut."""
        for name in ("width", "height", "patch_size", "merge_size", "temporal_patch_size"):
            if not 1 <= getattr(self, name) <= LARGEST_SIDE:
                raise ValueError(f"images have {name} {getattr(self, name)}, must lie in 1..{LARGEST_SIDE}")
        if not 1 <= self.min_pixels <= self.max_pixels <= LARGEST_SIDE**2:
            raise ValueError(f"images have {self.min_pixels} to {self.max_pixels} pixels, at most {LARGEST_SIDE**2}")
        if min(self.std) <= 0.0:
            raise ValueError(f"images have std {self.std}, must be positive")


@dataclass(frozen=True, kw_only=True)
class Placement:
    """Where a camera image lies in the prepared one: prepared = source * scale + offset [pixels]."""

    scale: float
    offset_x: float
    offset_y: float
    source_width: int
    source_height: int


@dataclass(frozen=True, kw_only=True)
class PreparedImages:
    """Patches of all views as the vision tower takes them."""

    pixel_values_PX: Tensor
    grid_thw_N3: Tensor
    placements: tuple[Placement, ...]
    tokens: tuple[int, ...]
    """Language-model tokens per image."""


class ImagePreparer:
    """Camera images to patches."""

    def __init__(self, config: ImageConfig) -> None:
        """Build transformers' processor from `config`."""
        self.config = config
        self._processor = Qwen2VLImageProcessorPil(
            patch_size=config.patch_size,
            merge_size=config.merge_size,
            temporal_patch_size=config.temporal_patch_size,
            min_pixels=config.min_pixels,
            max_pixels=config.max_pixels,
            image_mean=list(config.mean),
            image_std=list(config.std),
        )

    def place(self, image: NDArray[np.uint8]) -> tuple[NDArray[np.uint8], Placement]:
        """Return the image at the stored size and where its pixels went. Raises ImageError for anything but RGB8."""
        if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8 or 0 in image.shape:
            raise ImageError(f"image has shape {image.shape} and type {image.dtype}, expected (H, W, 3) uint8 RGB")
        height, width = image.shape[:2]
        target_width, target_height = self.config.width, self.config.height
        scale = min(target_width / width, target_height / height)
        inner_width = min(target_width, max(1, round(width * scale)))
        inner_height = min(target_height, max(1, round(height * scale)))
        left, top = (target_width - inner_width) // 2, (target_height - inner_height) // 2
        placement = Placement(scale=scale, offset_x=left, offset_y=top, source_width=width, source_height=height)
        if (width, height) == (target_width, target_height):
            return image, placement
        scaled = np.asarray(Image.fromarray(image).resize((inner_width, inner_height), Image.Resampling.BICUBIC))
        canvas = np.zeros((target_height, target_width, 3), np.uint8)
        canvas[top : top + inner_height, left : left + inner_width] = scaled
        return canvas, placement

    def __call__(self, images: Sequence[NDArray[np.uint8]]) -> PreparedImages:
        """Return the patches of `images`, in their order. Raises ImageError for an empty sequence."""
        if not images:
            raise ImageError("no image to prepare; give at least one view")
        return self._prepared([self.place(image) for image in images])

    def variants(self, images: Sequence[NDArray[np.uint8]], count: int) -> Iterator[PreparedImages]:
        """Yield `count` further readings of the same images, a little larger or smaller; at most len(VARIANTS).

        They vary as the camera gives them: what is black around a placed image stays where it is.
        """
        for zoom, right, down in VARIANTS[:count]:
            yield self._prepared(
                [self.place(_varied(image, zoom, *self._steps(image, right, down))) for image in images]
            )

    def _steps(self, image: NDArray[np.uint8], right: int, down: int) -> tuple[int, int]:
        """Return a move of the prepared image in pixels of the camera's."""
        scale = max(1.0, image.shape[0] / self.config.height, image.shape[1] / self.config.width)
        return round(right * scale), round(down * scale)

    def _prepared(self, placed: Sequence[tuple[NDArray[np.uint8], Placement]]) -> PreparedImages:
        out = self._processor([image for image, _ in placed], return_tensors="pt", input_data_format="channels_last")
        grid_N3 = out["image_grid_thw"]
        return PreparedImages(
            pixel_values_PX=out["pixel_values"].to(torch.float32),
            grid_thw_N3=grid_N3,
            placements=tuple(placement for _, placement in placed),
            tokens=tuple(math.prod(grid) // self.config.merge_size**2 for grid in grid_N3.tolist()),
        )


def _varied(image: NDArray[np.uint8], zoom: float, right: int, down: int) -> NDArray[np.uint8]:
    """Return the image zoomed about its middle and moved by whole pixels, its edge repeated, shape (H, W, 3)."""
    size = np.array(image.shape[1::-1])
    pad = math.ceil(max(0.0, 1.0 / zoom - 1.0) * size.max() / 2 + max(abs(right), abs(down)) / zoom) + 2
    padded = np.pad(image, ((pad, pad), (pad, pad), (0, 0)), mode="edge")
    middle = size / 2 + pad
    x, y = middle - (middle + np.array([right, down])) / zoom
    back = (1.0 / zoom, 0.0, float(x), 0.0, 1.0 / zoom, float(y))
    wide = (padded.shape[1], padded.shape[0])
    drawn = Image.fromarray(padded).transform(wide, Image.Transform.AFFINE, back, Image.Resampling.BICUBIC)
    return np.asarray(drawn)[pad:-pad, pad:-pad]
