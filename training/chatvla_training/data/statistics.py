# SPDX-License-Identifier: Apache-2.0
"""Sum up numbers and images of a data set the way LeRobot's meta/stats.json does.

Shapes: N rows; D columns.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["QUANTILES", "ImageStatistics", "column_statistics"]

QUANTILES = (0.01, 0.10, 0.50, 0.90, 0.99)


def column_statistics(values_ND: NDArray[Any]) -> dict[str, list[float]]:
    """Return min, max, mean, std, count and quantiles per column; a 1-D array counts as one column."""
    values = np.asarray(values_ND, np.float64)
    values = values[:, None] if values.ndim == 1 else values
    found = {
        "min": values.min(0).tolist(),
        "max": values.max(0).tolist(),
        "mean": values.mean(0).tolist(),
        "std": values.std(0).tolist(),
        "count": [len(values)],
    }
    for quantile, row in zip(QUANTILES, np.quantile(values, QUANTILES, axis=0), strict=True):
        found[f"q{round(quantile * 100):02d}"] = row.tolist()
    return found


class ImageStatistics:
    """Running colour statistics of images, in 0 to 1, per channel."""

    def __init__(self) -> None:
        self._histogram = np.zeros((3, 256), np.int64)
        self._images = 0

    def update(self, images: Iterable[NDArray[np.uint8]]) -> None:
        """Count the pixels of RGB images (H, W, 3)."""
        for image in images:
            for channel in range(3):
                self._histogram[channel] += np.bincount(image[..., channel].ravel(), minlength=256)
            self._images += 1

    def summary(self) -> dict[str, Any]:
        """Return LeRobot's entry: values of shape (3, 1, 1), count of images."""
        levels = np.arange(256) / 255.0
        shares = self._histogram / np.maximum(self._histogram.sum(1, keepdims=True), 1)
        mean = shares @ levels
        std = np.sqrt(np.maximum(shares @ levels**2 - mean**2, 0))
        cumulative = shares.cumsum(1)
        present = self._histogram > 0

        def column(values: NDArray[np.float64]) -> list[Any]:
            return values.reshape(3, 1, 1).tolist()

        found: dict[str, Any] = {
            "min": column(levels[present.argmax(1)]),
            "max": column(levels[255 - present[:, ::-1].argmax(1)]),
            "mean": column(mean),
            "std": column(std),
            "count": [self._images],
        }
        for quantile in QUANTILES:
            found[f"q{round(quantile * 100):02d}"] = column(levels[(cumulative >= quantile - 1e-12).argmax(1)])
        return found
