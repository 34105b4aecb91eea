# SPDX-License-Identifier: Apache-2.0
"""Say which object each part of the picture shows, by rays from the camera: what an arm hides is not seen. No OpenGL.

For training labels and tests; a policy never gets it. Pixels: x right, y down, the first pixel's middle at (0.5, 0.5).
"""

from __future__ import annotations

import mujoco
import numpy as np
from numpy.typing import NDArray

from chatvla_sim.camera import PinholeCamera

__all__ = ["STEP_PX", "seen_things"]

STEP_PX = 4
"""Rays are this far apart."""
SEEN_GROUPS = (1, 1, 0, 0, 0, 0)
"""Groups of shapes that a picture shows: 0 and 1; what collides unseen is in group 3."""


def seen_things(model: mujoco.MjModel, data: mujoco.MjData, camera: PinholeCamera, count: int) -> NDArray[np.uint8]:
    """Return 0, or 1 + the number of the thing that is seen there, shape (H / STEP_PX, W / STEP_PX).

    Cell (row, column) is looked at in its middle. `count` things are bodies `thing_<k>`; `data` needs its kinematics.
    """
    rows, columns = camera.height // STEP_PX, camera.width // STEP_PX
    y, x = (np.indices((rows, columns)).reshape(2, -1) + 0.5) * STEP_PX
    local = np.column_stack([x - camera.width / 2, y - camera.height / 2, np.full(len(x), camera.focal_px)])
    rays = local / np.linalg.norm(local, axis=1, keepdims=True) @ camera.axes
    geoms, distances = np.zeros(len(rays), np.int32), np.zeros(len(rays))
    mujoco.mj_multiRay(
        model,
        data,
        np.array(camera.position),
        rays.reshape(-1),
        np.array(SEEN_GROUPS, np.uint8),
        True,
        -1,
        geoms,
        distances,
        None,
        len(rays),
        10.0,
    )
    of_body = np.zeros(model.nbody, np.uint8)
    for number in range(count):
        of_body[model.body(f"thing_{number}").id] = 1 + number
    found = np.where(geoms >= 0, of_body[model.geom_bodyid[np.maximum(geoms, 0)]], 0)
    return found.reshape(rows, columns).astype(np.uint8)
