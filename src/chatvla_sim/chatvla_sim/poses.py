# SPDX-License-Identifier: Apache-2.0
"""Turn the contracts' poses (position, quaternion x y z w) into homogeneous matrices. No simulator, no ROS."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from chatvla_control.kinematics import pose_matrix
from chatvla_control.scene import Pose

__all__ = ["matrix_of"]


def matrix_of(pose: Pose) -> NDArray[np.float64]:
    """Return the homogeneous matrix (4, 4) of a Pose."""
    x, y, z, w = pose.quaternion
    rotation = np.array(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
            [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
            [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
        ]
    )
    return pose_matrix(rotation, np.array(pose.position))
