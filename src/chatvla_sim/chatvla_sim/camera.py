# SPDX-License-Identifier: Apache-2.0
"""A pinhole camera: pose, intrinsics, projection of points and boxes. No simulator, no ROS.

Optical frame: x right, y down, z forward. Pixels: x right, y down, the first pixel's centre at (0.5, 0.5). Units m, px.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["PinholeCamera", "box_corners"]

Array = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class PinholeCamera:
    """A camera that looks from `position` at `target` [m], with the world's z up in the image."""

    position: tuple[float, float, float]
    target: tuple[float, float, float]
    fovy_deg: float
    """Vertical field of view."""
    width: int = 320
    height: int = 240

    @property
    def axes(self) -> Array:
        """World directions of the optical frame's x, y, z, one per row, shape (3, 3)."""
        forward = np.subtract(self.target, self.position)
        forward = forward / np.linalg.norm(forward)
        right = np.cross(forward, [0.0, 0.0, 1.0])
        right = right / np.linalg.norm(right)
        return np.array([right, np.cross(forward, right), forward])

    @property
    def focal_px(self) -> float:
        """Focal length, equal in x and y."""
        return self.height / 2 / np.tan(np.radians(self.fovy_deg) / 2)

    @property
    def intrinsics(self) -> Array:
        """Matrix K as in sensor_msgs/CameraInfo, shape (3, 3)."""
        focal = self.focal_px
        return np.array([[focal, 0, self.width / 2], [0, focal, self.height / 2], [0, 0, 1.0]])

    def project(self, points_N3: Array) -> Array:
        """Return pixels, shape (N, 2); NaN for points behind the camera."""
        local = (points_N3 - np.array(self.position)) @ self.axes.T
        depth = np.where(local[:, 2] > 1e-6, local[:, 2], np.nan)
        return local[:, :2] / depth[:, None] * self.focal_px + np.array([self.width / 2, self.height / 2])

    def box(self, points_N3: Array) -> tuple[float, float, float, float] | None:
        """Return x_min, y_min, x_max, y_max of the points, clipped to the image; None when none of it is in view."""
        pixels = self.project(points_N3)
        if not np.isfinite(pixels).all():
            return None
        low = np.clip(pixels.min(axis=0), 0, [self.width, self.height])
        high = np.clip(pixels.max(axis=0), 0, [self.width, self.height])
        if (high - low).min() < 1.0:
            return None
        return (float(low[0]), float(low[1]), float(high[0]), float(high[1]))


def box_corners(pose: Array, size: tuple[float, float, float]) -> Array:
    """Return the corners [m], shape (8, 3), of a box with edge lengths `size` at `pose` (4, 4)."""
    signs = np.array([[x, y, z] for x in (-1, 1) for y in (-1, 1) for z in (-1, 1)])
    return (signs * np.array(size) / 2) @ pose[:3, :3].T + pose[:3, 3]
