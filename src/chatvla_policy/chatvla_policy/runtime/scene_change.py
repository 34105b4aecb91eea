# SPDX-License-Identifier: Apache-2.0
"""Tell a scene that has changed from noise and from a passing arm: a share of coarse blocks differs. No ROS."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

__all__ = ["SceneMemory", "blocks"]

ROWS, COLUMNS = 12, 16
_DIFFERENT = 24.0


def blocks(image: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Return mean brightness of coarse blocks, shape (12, 16), 0 .. 255, from about every fourth pixel."""
    height, width = image.shape[0] // ROWS * ROWS, image.shape[1] // COLUMNS * COLUMNS
    step = max(1, min(4, height // ROWS, width // COLUMNS))
    grey = image[:height:step, :width:step, 1].astype(np.float32)
    return _means(grey.shape[0], ROWS).T @ grey @ _means(grey.shape[1], COLUMNS)


@lru_cache(maxsize=8)
def _means(pixels: int, count: int) -> NDArray[np.float32]:
    """Return the matrix, shape (pixels, count), that takes the means of `count` runs of pixels."""
    place = np.arange(pixels) * count // pixels
    member = (place[:, None] == np.arange(count)).astype(np.float32)
    return member / member.sum(axis=0)


class SceneMemory:
    """What the views looked like when the last text was written."""

    def __init__(self) -> None:
        self._seen: dict[str, NDArray[np.float32]] = {}

    def remember(self, images: Mapping[str, NDArray[np.uint8]]) -> None:
        """Take `images`, each (H, W, 3), as the scene the text is about."""
        self._seen = {view: blocks(image) for view, image in images.items()}

    def forget(self) -> None:
        """Forget the scene: nothing counts as changed."""
        self._seen = {}

    def changed_share(self, images: Mapping[str, NDArray[np.uint8]]) -> float:
        """Return the largest share of blocks of one view that differ from what was remembered, 0 .. 1."""
        shares = [
            float((np.abs(blocks(image) - self._seen[view]) > _DIFFERENT).mean())
            for view, image in images.items()
            if view in self._seen
        ]
        return max(shares, default=0.0)
