# SPDX-License-Identifier: Apache-2.0
"""Tell a scene that has changed from noise and from a passing arm. No ROS.

Images are compared only where the robot stands as it stood when the text was written: an arm at work covers a quarter
of the image, cards that change places a hundredth of it. What differs in a block is taken less the median over all
blocks, so that a camera that opens its iris changes nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

__all__ = ["SceneMemory", "blocks"]

ROWS, COLUMNS = 24, 32
_DIFFERENT = 24.0
_SAME_POSE = 0.1
"""Joints no further than this [rad, m] from where they were: the arms hide the same of the image."""


def blocks(image: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Return mean brightness of blocks, shape (24, 32), 0 .. 255, from about every fourth pixel."""
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
    """What the views looked like when the last text was written, and where the robot stood."""

    def __init__(self) -> None:
        self._seen: dict[str, NDArray[np.float32]] = {}
        self._joints: NDArray[np.float64] | None = None

    def remember(self, images: Mapping[str, NDArray[np.uint8]], joints: NDArray[np.float64]) -> None:
        """Take `images`, each (H, W, 3), seen at `joints` [rad, m], as the scene the text is about."""
        self._seen = {view: blocks(image) for view, image in images.items()}
        self._joints = joints

    def forget(self) -> None:
        """Forget the scene: nothing counts as changed."""
        self._seen = {}

    def changed_share(self, images: Mapping[str, NDArray[np.uint8]], joints: NDArray[np.float64]) -> float:
        """Return the largest share of one view's blocks that differ from what was remembered, 0 .. 1.

        0 where the robot stands elsewhere: what has changed can't be told then.
        """
        if self._joints is None or np.abs(joints - self._joints).max() > _SAME_POSE:
            return 0.0
        return max((self._share(view, image) for view, image in images.items() if view in self._seen), default=0.0)

    def _share(self, view: str, image: NDArray[np.uint8]) -> float:
        difference = blocks(image) - self._seen[view]
        return float((np.abs(difference - np.median(difference)) > _DIFFERENT).mean())
