# SPDX-License-Identifier: Apache-2.0
"""A camera of a real one's lens and shape, put where the simulator's stands: the policy's part of it shows the same."""

from __future__ import annotations

import math

import numpy as np
import pytest
from numpy.typing import NDArray

from chatvla_policy.processing.images import ImageConfig, ImagePreparer
from chatvla_policy.runtime.view_window import Lens, Window, central_window
from chatvla_sim.benches import make_bench


def rendered(task: str, view: str, size: tuple[int, int], height_deg: float | None = None) -> NDArray[np.uint8]:
    """Return the picture of a trial, (height, width) as `size`, by the simulator's lens or by one `height_deg` high."""
    bench = make_bench(task, width=size[1], height=size[0])
    try:
        bench.reset(split="in_domain", seed=3)
        if height_deg is not None:
            bench.model.camera(view).fovy = height_deg
        return bench.render(view)
    finally:
        bench.close()


@pytest.mark.parametrize(
    ("task", "view", "angle_deg", "camera", "camera_deg"),
    [("toy_placement", "right", 38.0, (360, 640), 68.4), ("math_match", "top", 27.0, (480, 640), 43.0)],
)
def test_part_of_a_wider_camera_is_what_the_simulators_camera_shows(
    task: str, view: str, angle_deg: float, camera: tuple[int, int], camera_deg: float
) -> None:
    preparer = ImagePreparer(ImageConfig(width=336, height=252))
    trained_on, _ = preparer.place(rendered(task, view, (240, 320)))
    whole = rendered(task, view, camera, camera_deg)
    lens = Lens(camera, camera[0] / 2 / math.tan(math.radians(camera_deg) / 2))

    def difference(window: Window) -> float:
        seen, _ = preparer.place(window.cut(whole))
        return float(np.abs(seen.astype(float) - trained_on).mean())

    cut = difference(central_window(camera, model_size=(252, 336), height_deg=angle_deg, lens=lens))
    # Edges differ by how they are sampled, no more; the same things at another size or place differ by far more.
    assert cut < 4.0
    for wrong_deg in (0.9 * angle_deg, 1.1 * angle_deg):
        assert difference(central_window(camera, model_size=(252, 336), height_deg=wrong_deg, lens=lens)) > 4 * cut
    assert difference(central_window(camera, model_size=(252, 336))) > 8 * cut
