# SPDX-License-Identifier: Apache-2.0
"""Rotations as matrices, axis times angle, and the 6 numbers of CARTESIAN_POSE chunks. No ROS.

Units rad and m. 6D rotation: the first column of the matrix, then the second. (Zhou et al. 2019, "On the Continuity of
Rotation Representations in Neural Networks"). slerp turns at constant speed about a fixed axis. (Shoemake 1985)
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "axis_rotation",
    "matrix_from_six",
    "pose_matrix",
    "rotation_angle",
    "rotation_vector",
    "rotation_xyz",
    "six_from_matrix",
    "slerp",
]

Array = NDArray[np.float64]


def rotation_xyz(roll: float, pitch: float, yaw: float) -> Array:
    """Return the rotation matrix of fixed-axis roll, pitch, yaw [rad], shape (3, 3)."""
    (cr, cp, cy), (sr, sp, sy) = np.cos([roll, pitch, yaw]), np.sin([roll, pitch, yaw])
    return np.array(
        [
            [cy * cp, cy * sp * sr - sy * cr, cy * sp * cr + sy * sr],
            [sy * cp, sy * sp * sr + cy * cr, sy * sp * cr - cy * sr],
            [-sp, cp * sr, cp * cr],
        ]
    )


def pose_matrix(rotation: Array, position: Array) -> Array:
    """Return the homogeneous matrix, shape (4, 4)."""
    pose = np.eye(4)
    pose[:3, :3] = rotation
    pose[:3, 3] = position
    return pose


def axis_rotation(axis: Array, angle: float) -> Array:
    """Return the rotation matrix, shape (3, 3), of `angle` [rad] about the unit vector `axis`."""
    x, y, z = axis
    c, s = np.cos(angle), np.sin(angle)
    k = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    return np.eye(3) + s * k + (1 - c) * (k @ k)


def rotation_vector(rotation: Array) -> Array:
    """Return axis times angle [rad] of a rotation matrix, shape (3,)."""
    skew = np.array([rotation[2, 1] - rotation[1, 2], rotation[0, 2] - rotation[2, 0], rotation[1, 0] - rotation[0, 1]])
    norm = float(np.linalg.norm(skew))
    # atan2 keeps its precision for small angles, where arccos loses it.
    angle = float(np.arctan2(norm, np.trace(rotation) - 1))
    if norm > 1e-6:
        return angle * skew / norm
    if angle < 1.0:
        return skew / 2
    # Half a turn: the skew part vanishes, the axis is in the symmetric part, its signs in one of that part's columns.
    outer = (rotation + np.eye(3)) / 2
    column = outer[:, int(np.argmax(np.diag(outer)))]
    return angle * column / float(np.linalg.norm(column))


def rotation_angle(first: Array, second: Array) -> Array:
    """Return the angle [rad] between rotations, shape (...), of matrices (..., 3, 3)."""
    # |A - B|_F = 2 sqrt(2) sin(angle / 2): exact for small angles, where the arccos of the trace is not.
    distance = np.sqrt(((first - second) ** 2).sum((-2, -1)))
    return 2.0 * np.arcsin(np.minimum(distance / (2.0 * np.sqrt(2.0)), 1.0))


def slerp(first: Array, second: Array, share: float) -> Array:
    """Return the rotation, shape (3, 3), that lies `share` (0 .. 1) of the way from `first` to `second`."""
    vector = rotation_vector(first.T @ second)
    angle = float(np.linalg.norm(vector))
    return first if angle < 1e-12 else first @ axis_rotation(vector / angle, share * angle)


def six_from_matrix(rotation: Array) -> Array:
    """Return the 6D rotation, shape (..., 6), of matrices (..., 3, 3)."""
    return np.concatenate([rotation[..., :, 0], rotation[..., :, 1]], axis=-1)


def matrix_from_six(six: Array) -> Array:
    """Return the rotation matrices, shape (..., 3, 3), nearest to 6D rotations (..., 6) by Gram and Schmidt.

    Raises ValueError when two columns do not span a plane.
    """
    first, second = six[..., :3], six[..., 3:]
    length = np.linalg.norm(first, axis=-1, keepdims=True)
    x = first / np.maximum(length, 1e-300)
    rest = second - (x * second).sum(-1, keepdims=True) * x
    width = np.linalg.norm(rest, axis=-1, keepdims=True)
    if not ((length > 1e-6).all() and (width > 1e-6).all()):
        raise ValueError("the two columns of a 6D rotation are zero or parallel; they span no frame")
    y = rest / width
    return np.stack([x, y, np.cross(x, y)], axis=-1)
