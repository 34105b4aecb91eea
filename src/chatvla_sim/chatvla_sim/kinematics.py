# SPDX-License-Identifier: Apache-2.0
"""Forward and inverse kinematics of a serial arm of rotary joints. No simulator, no ROS.

Units rad and m. J joints; poses are 4x4 homogeneous matrices `base_from_tool`.
Inverse: damped least squares, dq = J^T (J J^T + damping^2 I)^-1 error. (Wampler 1986; Nakamura and Hanafusa 1986)
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["Chain", "IkError", "Link", "pose_matrix", "rotation_xyz"]

Array = NDArray[np.float64]


class IkError(ValueError):
    """No joint positions within limits reach the pose; the message says how near they came."""


@dataclass(frozen=True, kw_only=True)
class Link:
    """Where one joint sits in its parent's frame, and its axis there."""

    offset: tuple[float, float, float]
    """m."""
    axis: tuple[float, float, float]
    """Unit vector of rotation in the joint's own frame."""
    roll_pitch_yaw: tuple[float, float, float] = (0.0, 0.0, 0.0)
    """rad, fixed-axis x then y then z, as in URDF."""


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
    # Half a turn: the skew part vanishes, the axis is in the symmetric part.
    return angle * np.sqrt(np.clip((np.diag(rotation) + 1) / 2, 0, 1))


class Chain:
    """A serial arm from base to tool."""

    def __init__(self, *, base: Array, links: tuple[Link, ...], tool: Array, lower: Array, upper: Array) -> None:
        """`base`: world_from_base, `tool`: last_link_from_tool, both (4, 4); limits [rad], shape (J,)."""
        self._base, self._tool = base, tool
        self._lower, self._upper = lower, upper
        self._fixed = [pose_matrix(rotation_xyz(*link.roll_pitch_yaw), np.array(link.offset)) for link in links]
        self._axes = [np.array(link.axis, dtype=np.float64) for link in links]

    def forward(self, positions: Array) -> Array:
        """Return world_from_tool, shape (4, 4), for joint positions [rad], shape (J,)."""
        return self._walk(positions)[0]

    def jacobian(self, positions: Array) -> Array:
        """Return d(tool position, rotation)/d(positions) in world axes, shape (6, J)."""
        return self._walk(positions)[1]

    def _walk(self, positions: Array) -> tuple[Array, Array]:
        pose = self._base
        axes, origins = [], []
        for fixed, axis, angle in zip(self._fixed, self._axes, positions, strict=True):
            pose = pose @ fixed
            axes.append(pose[:3, :3] @ axis)
            origins.append(pose[:3, 3])
            pose = pose.copy()
            pose[:3, :3] = pose[:3, :3] @ axis_rotation(axis, float(angle))
        pose = pose @ self._tool
        axes_J3, origins_J3 = np.array(axes), np.array(origins)
        linear = np.cross(axes_J3, pose[:3, 3] - origins_J3)
        return pose, np.vstack([linear.T, axes_J3.T])

    def inverse(
        self,
        target: Array,
        start: Array,
        *,
        position_tolerance_m: float = 5e-4,
        rotation_tolerance_rad: float = 5e-3,
        iterations: int = 50,
        damping: float = 0.02,
        max_step_rad: float = 0.3,
    ) -> Array:
        """Return joint positions [rad], shape (J,), near `start`, whose tool pose is `target`.

        Raises IkError when none within the limits is found.
        """
        positions = np.clip(start, self._lower, self._upper)
        error = np.full(6, np.inf)
        for _ in range(iterations):
            pose, jacobian = self._walk(positions)
            error = np.concatenate([target[:3, 3] - pose[:3, 3], rotation_vector(target[:3, :3] @ pose[:3, :3].T)])
            near = np.linalg.norm(error[:3]) < position_tolerance_m
            if near and np.linalg.norm(error[3:]) < rotation_tolerance_rad:
                return positions
            step = jacobian.T @ np.linalg.solve(jacobian @ jacobian.T + damping**2 * np.eye(6), error)
            step *= min(1.0, max_step_rad / max(float(np.abs(step).max()), 1e-12))
            positions = np.clip(positions + step, self._lower, self._upper)
        millimetres, degrees = 1000 * np.linalg.norm(error[:3]), np.degrees(np.linalg.norm(error[3:]))
        raise IkError(
            f"pose at {np.round(target[:3, 3], 3).tolist()} m is out of reach: "
            f"the nearest pose within limits is off by "
            f"{millimetres:.1f} mm and {degrees:.1f} deg"
        )
