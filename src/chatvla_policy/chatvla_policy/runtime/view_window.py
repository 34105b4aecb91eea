# SPDX-License-Identifier: Apache-2.0
"""Which part of a camera's image a policy sees: the middle, as high as the views it was trained on. No ROS.

Units: degrees, pixels. Sizes are (height, width).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["SAME_SHAPE", "Lens", "Window", "WindowError", "central_window"]

SAME_SHAPE = 0.05
"""How far an image's shape may be from the model's and be taken whole: whole image tokens are 308x224 for a camera of
320x240, and the few rows between are filled up."""
_FEWEST = 0.5
"""Least share of the model's height in pixels of the camera: below, letters cannot be read."""


class WindowError(ValueError):
    """No part of the images can be what the model saw; a clause says why and what to do."""


@dataclass(frozen=True)
class Window:
    """A part of images of one size."""

    source: tuple[int, int]
    size: tuple[int, int]
    top: int = 0
    left: int = 0

    @property
    def whole(self) -> bool:
        """Return whether nothing is cut."""
        return self.size == self.source

    def cut(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Return this part of an image of size `source`: the image itself when nothing is cut, else a copy."""
        if self.whole:
            return image
        (height, width), top, left = self.size, self.top, self.left
        return image[top : top + height, left : left + width].copy()


@dataclass(frozen=True)
class Lens:
    """How much of the world an image of `size` shows, by its focal length [pixels]."""

    size: tuple[int, int]
    focal_y: float

    @property
    def height_deg(self) -> float:
        """Return the angle from the image's upper edge to its lower one."""
        return 2.0 * math.degrees(math.atan(self.size[0] / 2.0 / self.focal_y))

    def rows(self, height_deg: float) -> float:
        """Return how many rows of pixels show `height_deg` about the middle."""
        return 2.0 * self.focal_y * math.tan(math.radians(height_deg) / 2.0)


def central_window(
    source: tuple[int, int],
    *,
    model_size: tuple[int, int] | None,
    height_deg: float = 0.0,
    lens: Lens | None = None,
) -> Window:
    """Return the middle of images of size `source` that the model shall see.

    It is `height_deg` high by `lens`; with 0, as high as the image. Where the image's shape is not the model's, it has
    the model's. Raises WindowError.
    """
    rows, columns = float(source[0]), float(source[1])
    if height_deg:
        rows = min(_rows(source, height_deg, lens), rows)
        columns *= rows / source[0]
    if model_size is not None:
        shape = model_size[1] / model_size[0]
        if (source[0] - source[1]) * (model_size[0] - model_size[1]) < 0:
            raise WindowError(f"the model sees {_text(model_size)}: upright against lying; turn the camera")
        if abs(source[1] / source[0] / shape - 1.0) > SAME_SHAPE:
            if height_deg and rows * shape > source[1] * (1.0 + SAME_SHAPE):
                wanted = _text((round(rows), round(rows * shape)))
                raise WindowError(f"{height_deg:g} degrees high in the model's shape are {wanted}; take a wider one")
            columns = min(rows * shape, float(source[1]))
            rows = rows if height_deg else min(rows, columns / shape)
        if rows < _FEWEST * model_size[0]:
            raise WindowError(
                f"{round(rows)} rows of them for the {model_size[0]} that the model sees, at least half as many are "
                "needed to read letters; choose a camera profile with more pixels"
            )
    size = max(1, round(rows)), max(1, round(columns))
    return Window(source, size, top=(source[0] - size[0]) // 2, left=(source[1] - size[1]) // 2)


def _rows(source: tuple[int, int], height_deg: float, lens: Lens | None) -> float:
    """Return how many rows of an image show `height_deg`. Raises WindowError where it shows less or none can tell."""
    if lens is None:
        raise WindowError("nothing tells how many degrees they show; let the driver send camera_info")
    if lens.size != source:
        raise WindowError(f"its camera_info is for {_text(lens.size)}; let the driver send that of these images")
    if not (math.isfinite(lens.focal_y) and lens.focal_y > 0.0):
        raise WindowError(f"its camera_info has the focal length {lens.focal_y:g}; calibrate the camera")
    rows = lens.rows(height_deg)
    if rows > source[0] * (1.0 + SAME_SHAPE):
        raise WindowError(f"{lens.height_deg:.1f} degrees high, {height_deg:g} are asked for; take a wider lens")
    return rows


def _text(size: tuple[int, int]) -> str:
    return f"{size[1]}x{size[0]}"
