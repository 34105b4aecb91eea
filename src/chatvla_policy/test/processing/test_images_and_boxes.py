# SPDX-License-Identifier: Apache-2.0
"""Images as transformers prepares them, and boxes between camera pixels and text."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

from chatvla_control.contracts import BoundingBox
from chatvla_policy.processing.boxes import MAX_BOXES, box_text, parse_boxes, without_box_marks
from chatvla_policy.processing.images import VARIANTS, ImageConfig, ImageError, ImagePreparer, _varied

CONFIG = ImageConfig()
GOOD = "<|object_ref_start|>card 3<|object_ref_end|><|box_start|>(100,200),(300,400)<|box_end|>"


@pytest.fixture(scope="module")
def preparer() -> ImagePreparer:
    return ImagePreparer(CONFIG)


def image(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 255, (height, width, 3), dtype=np.uint8)


def test_views_are_prepared_as_transformers_does_and_follow_each_other(preparer: ImagePreparer) -> None:
    views = [image(240, 320), image(240, 320)[::-1].copy()]
    prepared = preparer(views)
    expected = Qwen2VLImageProcessorPil()(views, return_tensors="pt")
    assert torch.equal(prepared.pixel_values_PX, expected["pixel_values"].float())
    assert prepared.grid_thw_N3.tolist() == expected["image_grid_thw"].tolist() == [[1, 18, 22], [1, 18, 22]]
    assert prepared.tokens == (99, 99)


def test_further_readings_are_the_same_image_a_little_larger_or_smaller(preparer: ImagePreparer) -> None:
    view = np.full((240, 320, 3), 90, np.uint8)
    view[60:81, 60:101] = 255
    middle, square = np.array([160.0, 120.0]), np.array([80.5, 70.5])
    readings = list(preparer.variants([view], len(VARIANTS)))
    for reading, (zoom, right, down) in zip(readings, VARIANTS, strict=True):
        varied = _varied(view, zoom, right, down)
        assert torch.equal(reading.pixel_values_PX, preparer([varied]).pixel_values_PX)
        assert reading.placements == preparer([view]).placements
        bright = varied[..., 0] > 170
        assert bright.sum() == pytest.approx(21 * 41 * zoom**2, rel=0.05)
        rows, columns = np.nonzero(bright)
        there = middle + (square - middle) * zoom + (right, down)
        assert (columns.mean() + 0.5, rows.mean() + 0.5) == pytest.approx(there, abs=0.6)
        assert (varied[[0, -1]] == 90).all(), "what comes in at the edges is the edges repeated"
        assert (varied[:, [0, -1]] == 90).all()
    assert list(preparer.variants([view], 0)) == []


@pytest.mark.parametrize(("height", "width"), [(480, 640), (720, 1280), (240, 240), (100, 37)])
def test_any_camera_size_is_placed_without_distortion(preparer: ImagePreparer, height: int, width: int) -> None:
    placed, placement = preparer.place(image(height, width))
    assert placed.shape == (240, 320, 3)
    assert placement.scale == min(320 / width, 240 / height)
    right, bottom = width * placement.scale + placement.offset_x, height * placement.scale + placement.offset_y
    assert placement.offset_x == pytest.approx(320 - right, abs=1.51)
    assert placement.offset_y == pytest.approx(240 - bottom, abs=1.51)


@pytest.mark.parametrize(
    "wrong",
    [np.zeros((4, 4), np.uint8), np.zeros((4, 4, 4), np.uint8), np.zeros((4, 4, 3)), np.zeros((0, 4, 3), np.uint8)],
)
def test_anything_but_rgb8_is_refused(preparer: ImagePreparer, wrong: np.ndarray) -> None:
    with pytest.raises(ImageError, match=r"expected \(H, W, 3\) uint8 RGB"):
        preparer([wrong])


@pytest.mark.parametrize(("height", "width"), [(240, 320), (720, 1280), (600, 400)])
def test_box_returns_to_its_pixels(preparer: ImagePreparer, height: int, width: int) -> None:
    _, placement = preparer.place(image(height, width))
    box = BoundingBox(label="duck", view="top", x_min=20, y_min=30, x_max=width * 0.6, y_max=height * 0.7)
    (back,) = parse_boxes("see " + box_text(box, placement, CONFIG), "top", placement, CONFIG)
    slack = 1e-3 * max(CONFIG.width, CONFIG.height) / placement.scale
    assert (back.label, back.view) == ("duck", "top")
    assert np.allclose(
        [back.x_min, back.y_min, back.x_max, back.y_max], [20, 30, width * 0.6, height * 0.7], atol=slack
    )


@pytest.mark.parametrize(
    "hostile",
    [
        GOOD.replace("(100,200)", "(300,200)"),
        GOOD.replace("400", "1001"),
        GOOD.replace("100", "-100"),
        GOOD.replace("100", "1e2"),
        GOOD.replace("100", "99999999999999999999"),
        GOOD.replace("100", "١٠٠"),
        GOOD.replace("card 3", ""),
        GOOD.replace("card 3", "x" * 121),
        GOOD.replace("card 3", "<|box_start|>"),
        GOOD.replace("<|box_end|>", ""),
        GOOD.replace(",", ", "),
        GOOD[: len(GOOD) // 2],
    ],
)
def test_malformed_box_is_left_out(preparer: ImagePreparer, hostile: str) -> None:
    _, placement = preparer.place(image(240, 320))
    assert parse_boxes(hostile, "top", placement, CONFIG) == ()
    assert len(parse_boxes(hostile + GOOD, "top", placement, CONFIG)) == 1


def test_no_more_boxes_than_the_limit(preparer: ImagePreparer) -> None:
    _, placement = preparer.place(image(240, 320))
    assert len(parse_boxes(GOOD * 1000, "top", placement, CONFIG)) == MAX_BOXES


@settings(max_examples=100, deadline=None)
@given(parts=st.lists(st.sampled_from([*"(),01 9", "<|box_start|>", "<|box_end|>", "<|object_ref_start|>", "a"])))
def test_parsing_never_fails(preparer: ImagePreparer, parts: list[str]) -> None:
    text = "".join(parts)
    _, placement = preparer.place(image(240, 320))
    parse_boxes(text, "top", placement, CONFIG)
    assert "<|" not in without_box_marks(text)


def test_text_without_marks_reads_as_a_sentence() -> None:
    assert without_box_marks(f"Pick {GOOD} now.") == "Pick card 3 now."
