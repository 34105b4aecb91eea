# SPDX-License-Identifier: Apache-2.0
"""Forward and inverse kinematics of a serial arm of rotary joints. No simulator, no ROS.

Units rad and m. J joints, N poses at once; poses are 4x4 homogeneous matrices `base_from_tool`.
Inverse: damped least squares, dq = J^T (J J^T + damping^2 I)^-1 error. (Wampler 1986; Nakamura and Hanafusa 1986)
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from chatvla_control.rotations import axis_rotation, pose_matrix, rotation_vector, rotation_xyz

__all__ = ["Chain", "IkError", "Link", "axis_rotation", "pose_matrix", "rotation_vector", "rotation_xyz"]

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


class Chain:
    """A serial arm from base to tool."""

    def __init__(self, *, base: Array, links: tuple[Link, ...], tool: Array, lower: Array, upper: Array) -> None:
        """`base`: world_from_base, `tool`: last_link_from_tool, both (4, 4); limits [rad], shape (J,)."""
        self._base, self._tool = base, tool
        self._lower, self._upper = lower, upper
        self._axes = np.array([link.axis for link in links], np.float64)
        # Rodrigues: parent_from_joint(q) = F + sin q (F K) + (1 - cos q) (F K^2), K the cross-product matrix of the
        # axis.
        count = len(links)
        self._fixed, self._sine, self._versine = (np.zeros((count, 4, 4)) for _ in range(3))
        for place, link in enumerate(links):
            turned = rotation_xyz(*link.roll_pitch_yaw)
            cross = np.cross(np.eye(3), self._axes[place])
            self._fixed[place] = pose_matrix(turned, np.array(link.offset))
            self._sine[place, :3, :3] = turned @ cross
            self._versine[place, :3, :3] = turned @ cross @ cross

    def forward(self, positions: Array) -> Array:
        """Return world_from_tool, shape (..., 4, 4), for joint positions [rad], shape (..., J)."""
        flat = positions.reshape(-1, positions.shape[-1])
        return self.walk(flat)[0].reshape(*positions.shape[:-1], 4, 4)

    def jacobian(self, positions: Array) -> Array:
        """Return d(tool position, rotation)/d(positions) in world axes, shape (6, J)."""
        return self._pose_and_jacobian(positions)[1]

    def walk(self, positions_NJ: Array) -> tuple[Array, Array, Array]:
        """Return world_from_tool (N, 4, 4), joint axes (N, J, 3) and joint origins [m] (N, J, 3) in the world."""
        angles = positions_NJ[..., None, None]
        # All joints at once: what remains in the loop is one product per joint.
        turns = self._fixed + np.sin(angles) * self._sine + (1.0 - np.cos(angles)) * self._versine
        pose = self._base
        frames = np.empty_like(turns)
        for joint in range(turns.shape[1]):
            pose = pose @ turns[:, joint]
            frames[:, joint] = pose
        # A joint's axis is not moved by the turn about itself.
        axes = np.matmul(frames[..., :3, :3], self._axes[..., None])[..., 0]
        return pose @ self._tool, axes, frames[..., :3, 3]

    def _pose_and_jacobian(self, positions: Array) -> tuple[Array, Array]:
        poses, axes, origins = self.walk(positions[None])
        (ax, ay, az), (rx, ry, rz) = axes[0].T, (poses[0, :3, 3] - origins[0]).T
        # np.cross takes five times as long for so few joints.
        return poses[0], np.array([ay * rz - az * ry, az * rx - ax * rz, ax * ry - ay * rx, ax, ay, az])

    def nearest(
        self,
        target: Array,
        start: Array,
        *,
        position_tolerance_m: float = 5e-4,
        rotation_tolerance_rad: float = 5e-3,
        iterations: int = 50,
        damping: float = 0.02,
        max_step_rad: float = 0.3,
    ) -> tuple[Array, float, float]:
        """Return joint positions [rad], shape (J,), near `start`, and how far their tool is from `target` [m, rad].

        Stops early inside both tolerances; else the last of `iterations` steps is what comes back.
        """
        positions = np.clip(start, self._lower, self._upper)
        for left in range(iterations, -1, -1):
            pose, jacobian = self._pose_and_jacobian(positions)
            error = np.concatenate([target[:3, 3] - pose[:3, 3], rotation_vector(target[:3, :3] @ pose[:3, :3].T)])
            off_m, off_rad = float(np.linalg.norm(error[:3])), float(np.linalg.norm(error[3:]))
            if left == 0 or (off_m < position_tolerance_m and off_rad < rotation_tolerance_rad):
                break
            step = jacobian.T @ np.linalg.solve(jacobian @ jacobian.T + damping**2 * np.eye(6), error)
            step *= min(1.0, max_step_rad / max(float(np.abs(step).max()), 1e-12))
            positions = np.clip(positions + step, self._lower, self._upper)
        return positions, off_m, off_rad

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
        positions, off_m, off_rad = self.nearest(
            target,
            start,
            position_tolerance_m=position_tolerance_m,
            rotation_tolerance_rad=rotation_tolerance_rad,
            iterations=iterations,
            damping=damping,
            max_step_rad=max_step_rad,
        )
        if off_m < position_tolerance_m and off_rad < rotation_tolerance_rad:
            return positions
        raise IkError(
            f"pose at {np.round(target[:3, 3], 3).tolist()} m is out of reach: "
            f"the nearest pose within limits is off by {1000 * off_m:.1f} mm and {np.degrees(off_rad):.1f} deg"
        )
