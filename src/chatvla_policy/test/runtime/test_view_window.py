# SPDX-License-Identifier: Apache-2.0
"""Which part of a camera's image is taken: the stated angle in the model's shape, or a sentence why there is none."""

from __future__ import annotations

import math

import numpy as np
import pytest

from chatvla_policy.runtime.view_window import Lens, WindowError, central_window

from .swinging import picture

MATH, TOYS = (224, 308), (252, 336)
ZED2 = Lens((480, 853), 352.0)


def lens(size: tuple[int, int], height_deg: float) -> Lens:
    return Lens(size, size[0] / 2 / math.tan(math.radians(height_deg) / 2))


@pytest.mark.parametrize("model_size", [MATH, TOYS, None])
@pytest.mark.parametrize("height_deg", [0.0, 27.0, 38.0])
def test_image_of_the_models_shape_and_angle_is_taken_as_it_is(
    model_size: tuple[int, int] | None, height_deg: float
) -> None:
    seen = lens((240, 320), height_deg) if height_deg else None
    window = central_window((240, 320), model_size=model_size, height_deg=height_deg, lens=seen)
    image = picture()
    assert window.whole
    assert window.cut(image) is image


def test_angle_is_that_of_the_part_whatever_the_camera() -> None:
    for camera in (ZED2, lens((480, 640), 43.0), lens((1080, 1920), 54.0)):
        window = central_window(camera.size, model_size=TOYS, height_deg=38.0, lens=camera)
        assert Lens(window.size, camera.focal_y).height_deg == pytest.approx(38.0, abs=0.15)
        assert window.size[1] / window.size[0] == pytest.approx(4 / 3, abs=0.01)
    top = central_window((480, 640), model_size=MATH, height_deg=27.0, lens=lens((480, 640), 43.0))
    # Without the cut, letters are this much smaller than in training.
    assert top.size[0] / 480 == pytest.approx(math.tan(math.radians(13.5)) / math.tan(math.radians(21.5)), abs=0.002)


def test_part_is_the_middle() -> None:
    window = central_window(ZED2.size, model_size=TOYS, height_deg=38.0, lens=ZED2)
    assert (window.size, window.top, window.left) == ((242, 323), 119, 265)
    image = picture(size=ZED2.size)
    part = window.cut(image)
    np.testing.assert_array_equal(part, image[119:361, 265:588])
    assert not np.shares_memory(part, image)


@pytest.mark.parametrize(
    ("source", "size"),
    [((188, 336), (188, 251)), ((720, 1280), (720, 960)), ((1000, 1000), (750, 1000)), ((480, 640), (480, 640))],
)
def test_without_an_angle_the_largest_part_of_the_models_shape(source: tuple[int, int], size: tuple[int, int]) -> None:
    assert central_window(source, model_size=TOYS).size == size


@pytest.mark.parametrize(
    ("source", "height_deg", "seen", "clause"),
    [
        ((320, 240), 0.0, None, "the model sees 336x252: upright against lying"),
        ((120, 160), 0.0, None, "120 rows of them for the 252 that the model sees"),
        ((240, 426), 20.0, lens((240, 426), 60.0), "73 rows of them for the 252"),
        ((480, 640), 38.0, lens((480, 640), 30.0), "30.0 degrees high, 38 are asked for"),
        ((480, 500), 38.0, lens((480, 500), 38.0), "38 degrees high in the model's shape are 640x480"),
        ((480, 640), 38.0, None, "nothing tells how many degrees they show"),
        ((480, 640), 38.0, ZED2, "its camera_info is for 853x480"),
        ((480, 640), 38.0, Lens((480, 640), 0.0), "the focal length 0; calibrate the camera"),
        ((480, 640), 38.0, Lens((480, 640), math.nan), "the focal length nan"),
    ],
)
def test_what_cannot_be_right_is_refused(
    source: tuple[int, int], height_deg: float, seen: Lens | None, clause: str
) -> None:
    with pytest.raises(WindowError) as caught:
        central_window(source, model_size=TOYS, height_deg=height_deg, lens=seen)
    assert clause in str(caught.value)
