# SPDX-License-Identifier: Apache-2.0
"""Handwriting: parts that share nothing, every glyph drawn, errors that name the remedy."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest

from chatvla_sim.math_match import fonts
from chatvla_sim.math_match.fonts import PARTS, MissingHandwritingError, digit_images, font_files
from chatvla_sim.math_match.handwriting import Style, draw_style, write


def test_parts_share_no_font_file() -> None:
    files = [set(font_files(part)) for part in PARTS]
    assert all(files)
    assert all(a.isdisjoint(b) for a, b in itertools.combinations(files, 2))


def test_parts_share_no_digit_image_and_hold_all_digits() -> None:
    seen: set[bytes] = set()
    total = 0
    for part in PARTS:
        images = digit_images(part)
        assert sorted(images) == list(range(10))
        assert all(len(group) > 20 for group in images.values())
        own = {image.tobytes() for group in images.values() for image in group}
        assert not own & seen
        seen |= own
        total += sum(len(group) for group in images.values())
    assert total == 5000


@pytest.mark.parametrize("part", PARTS)
def test_every_font_of_a_part_writes_every_sign(part: str) -> None:
    for font in (*font_files(part), None):
        style = Style(font=font, part=part, slant=0.1, thickness_px=2, jitter=0.5, spacing=0.15)
        for text in ("0123456789", "+", "-", "x"):
            ink = write(text, style, np.random.default_rng(0)).ink
            assert ink.max() == 255, f"{font} leaves {text!r} blank"
            assert min(ink.shape) >= 4


def test_same_generator_writes_the_same_ink() -> None:
    style = draw_style(np.random.default_rng(3), "robot")
    first, second = (write("12+7", style, np.random.default_rng(9)).ink for _ in range(2))
    assert (first == second).all()


def test_given_fonts_replace_the_parts_own() -> None:
    font = font_files("held_out")[0]
    assert {draw_style(np.random.default_rng(seed), "robot", [font]).font for seed in range(20)} == {font}


def test_missing_fonts_name_the_apt_package(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(fonts, "FONT_FOLDER", tmp_path)
    font_files.cache_clear()
    try:
        with pytest.raises(MissingHandwritingError, match=r"apt-get install .*fonts-dkg-handwriting"):
            font_files("robot")
    finally:
        font_files.cache_clear()


def test_file_that_is_no_font_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "broken.ttf"
    path.write_bytes(b"not a font")
    with pytest.raises(MissingHandwritingError, match=r"broken\.ttf"):
        write("1", draw_style(np.random.default_rng(0), "robot", [path]), np.random.default_rng(0))


def test_says_where_each_character_is() -> None:
    """The ink around a glyph's middle is the character's: the middles lie inside, in reading order, over ink."""
    style = draw_style(np.random.default_rng(3), "robot")
    writing = write("12+7", style, np.random.default_rng(9))
    assert "".join(glyph.character for glyph in writing.glyphs) == "12+7"
    columns = [glyph.x for glyph in writing.glyphs]
    assert columns == sorted(columns)
    height, width = writing.ink.shape
    for glyph in writing.glyphs:
        assert 0 < glyph.x < width
        assert 0 < glyph.y < height
        around = writing.ink[:, max(0, int(glyph.x) - 20) : int(glyph.x) + 20]
        assert around.max() > 200
