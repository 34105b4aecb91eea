# SPDX-License-Identifier: Apache-2.0
"""Write numbers and equations by hand: with hand-like fonts or with digits that people wrote.

A text becomes an ink mask: uint8 (H, W), 255 where there is ink. Sizes in pixels of that mask.
Each glyph is placed alone, with its own small turn, size and shift, as a hand does.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from chatvla_sim.math_match.fonts import MissingHandwritingError, check_part, digit_images, font_files

__all__ = ["Glyph", "Style", "Writing", "draw_style", "write"]

Mask = NDArray[np.uint8]
CELL = 96
"""Height of a digit before it is scaled to its final size, px."""
MARGIN = 24
DIGITS_SHARE = 0.3
"""Share of scenes written with real handwritten digits instead of a font."""
OPERATOR_GLYPHS = {"+": "+", "-": "-−–", "x": "x×X"}
MISSING_GLYPH = "￿"


@dataclass(frozen=True, kw_only=True)
class Glyph:
    """One character of a picture and its middle, px from the left and from the top."""

    character: str
    x: float
    y: float


@dataclass(frozen=True, kw_only=True)
class Writing:
    """A text as ink, and where its characters are in it."""

    ink: Mask
    glyphs: tuple[Glyph, ...]


@dataclass(frozen=True, kw_only=True)
class Style:
    """How one hand writes."""

    font: Path | None
    """Font file, or None for real handwritten digits."""
    part: str
    """Part of the digit images that `font` None draws from; also the part the style was drawn from."""
    slant: float
    """Shear, px of x per px of height."""
    thickness_px: int
    """Ink added around strokes, px of CELL; negative removes."""
    jitter: float
    """0 none .. 1 most: turn, size and shift of each glyph."""
    spacing: float
    """Gap between glyphs over digit height."""


def draw_style(rng: np.random.Generator, part: str, fonts: Sequence[Path] | None = None) -> Style:
    """Return a random style from one part of the handwriting, or from the given font files.

    Raises MissingHandwritingError when a font file or the digits are not there.
    """
    check_part(part)
    use_digits = rng.random() < DIGITS_SHARE and not fonts
    files = tuple(fonts) if fonts else font_files(part)
    font = files[int(rng.integers(len(files)))]
    if use_digits:
        digit_images(part)
    return Style(
        font=None if use_digits else Path(font),
        part=part,
        slant=float(rng.uniform(-0.08, 0.22)),
        thickness_px=int(rng.integers(1, 5)),
        jitter=float(rng.uniform(0.2, 1.0)),
        spacing=float(rng.uniform(0.10, 0.20)),
    )


@lru_cache(maxsize=64)
def load_font(path: Path, size: int) -> ImageFont.FreeTypeFont:
    try:
        return ImageFont.truetype(str(path), size)
    except OSError as error:
        raise MissingHandwritingError(f"{path} is not a font file that can be read: {error}") from error


@lru_cache(maxsize=64)
def font_size(path: Path) -> int:
    """Font size at which digits are CELL px high."""
    boxes = [load_font(path, 100).getbbox(d) for d in "0123456789"]
    height = float(np.median([box[3] - box[1] for box in boxes]))
    if height < 1:
        raise MissingHandwritingError(f"{path} has no digits")
    return round(100 * CELL / height)


@lru_cache(maxsize=1024)
def font_glyph(path: Path, character: str) -> tuple[Mask, float] | None:
    """Ink of one character and its bottom below the baseline [px]; None when the font lacks it."""
    font = load_font(path, font_size(path))
    box = font.getbbox(character, anchor="ls")
    width, height = int(box[2] - box[0]), int(box[3] - box[1])
    missing = font.getmask(MISSING_GLYPH)
    found = font.getmask(character)
    if width < 2 or height < 2 or (found.size == missing.size and bytes(found) == bytes(missing)):
        return None
    image = Image.new("L", (width, height))
    ImageDraw.Draw(image).text((-box[0], -box[1]), character, font=font, fill=255, anchor="ls")
    ink = np.asarray(image)
    return (ink, float(box[3])) if ink.max() > 0 else None


def pen_operator(operator: str, rng: np.random.Generator) -> Mask:
    """Ink of an operator drawn with a pen, about 0.55 CELL wide."""
    size = int(CELL * rng.uniform(0.5, 0.62))
    strokes = {"+": [(0, 0.5, 1, 0.5), (0.5, 0, 0.5, 1)], "-": [(0, 0.5, 1, 0.5)], "x": [(0, 0, 1, 1), (1, 0, 0, 1)]}
    image = Image.new("L", (size + 2 * MARGIN, size + 2 * MARGIN))
    pen = ImageDraw.Draw(image)
    width = int(CELL * 0.09)
    for stroke in strokes[operator]:
        x0, y0, x1, y1 = MARGIN + size * (np.array(stroke) + rng.uniform(-0.05, 0.05, 4))
        xm, ym = (x0 + x1) / 2 + rng.uniform(-2, 2), (y0 + y1) / 2 + rng.uniform(-2, 2)
        pen.line([(x0, y0), (xm, ym), (x1, y1)], fill=255, width=width, joint="curve")
        for x, y in ((x0, y0), (x1, y1)):
            pen.ellipse([x - width / 2, y - width / 2, x + width / 2, y + width / 2], fill=255)
    return crop(np.asarray(image))


def inked(ink: Mask) -> tuple[slice, slice]:
    """Rows and columns that hold ink."""
    rows, columns = np.flatnonzero(ink.max(axis=1) > 40), np.flatnonzero(ink.max(axis=0) > 40)
    return slice(int(rows[0]), int(rows[-1]) + 1), slice(int(columns[0]), int(columns[-1]) + 1)


def crop(ink: Mask) -> Mask:
    return ink[inked(ink)]


def resize(ink: Mask, height: float, least_width: int = 2) -> Mask:
    scale = height / ink.shape[0]
    size = (max(least_width, round(ink.shape[1] * scale)), max(2, round(height)))
    return np.asarray(Image.fromarray(ink).resize(size, Image.Resampling.BICUBIC))


def operator_glyph(style: Style, operator: str, rng: np.random.Generator) -> Mask:
    for character in OPERATOR_GLYPHS[operator] if style.font else ():
        found = font_glyph(style.font, character) if style.font else None
        if found is not None:
            ink = found[0]
            # Some fonts draw tiny signs: bring them to the size that a hand would give them.
            longest = 0.55 * CELL / max(ink.shape)
            return resize(ink, ink.shape[0] * max(1.0, longest))
    return pen_operator(operator, rng)


def glyph(style: Style, character: str, rng: np.random.Generator) -> tuple[Mask, float]:
    """Ink of one character at CELL size and its bottom below the baseline [px]."""
    if character in OPERATOR_GLYPHS:
        ink = operator_glyph(style, character, rng)
        return ink, -(CELL - ink.shape[0]) / 2
    if style.font is None:
        images = digit_images(style.part)[int(character)]
        ink = crop(images[int(rng.integers(len(images)))])
        large = resize(ink, CELL).astype(np.float32)
        return np.clip((large - 60) * 1.8, 0, 255).astype(np.uint8), 0.0
    found = font_glyph(style.font, character)
    if found is None:
        raise MissingHandwritingError(f"{style.font} has no glyph for {character!r}")
    return found


def thicken(ink: Mask, amount_px: int) -> Mask:
    """Ink with strokes `amount_px` wider."""
    padded = np.pad(ink, MARGIN)
    for _ in range(abs(amount_px)):
        # A cross-shaped neighbourhood keeps corners round.
        around = [np.roll(padded, shift, axis) for axis in (0, 1) for shift in (-1, 1)]
        reduce = np.maximum.reduce if amount_px > 0 else np.minimum.reduce
        padded = reduce([padded, *around])
    return padded


def warp(ink: Mask, style: Style, rng: np.random.Generator) -> Mask:
    """Ink slanted, turned and scaled by the style's jitter."""
    turn = np.radians(rng.normal(0, 3.0) * style.jitter)
    scale = 1 + rng.normal(0, 0.05) * style.jitter
    stretch = 1 + rng.normal(0, 0.05) * style.jitter
    c, s = np.cos(turn), np.sin(turn)
    forward = np.array([[c, -s], [s, c]]) @ np.array([[1, -style.slant], [0, 1]]) @ np.diag([scale * stretch, scale])
    inverse = np.linalg.inv(forward)
    height, width = ink.shape
    centre = np.array([width / 2, height / 2])
    shift = centre - inverse @ centre
    data = (*inverse[0], shift[0], *inverse[1], shift[1])
    return np.asarray(
        Image.fromarray(ink).transform((width, height), Image.Transform.AFFINE, data, Image.Resampling.BICUBIC)
    )


def write(text: str, style: Style, rng: np.random.Generator) -> Writing:
    """Return `text` (digits, + - x) as ink, tightly cropped, digits about CELL px high.

    Raises MissingHandwritingError when the style's font lacks a digit.
    """
    canvas = np.zeros((CELL * 3, CELL * (len(text) + 2) * 2), np.uint8)
    cursor, baseline = float(CELL), 2.0 * CELL
    glyphs: list[Glyph] = []
    for character in text:
        ink, below = glyph(style, character, rng)
        height, width = ink.shape
        drawn = warp(thicken(ink, style.thickness_px), style, rng)
        gap = style.spacing * CELL * (1.5 if character in OPERATOR_GLYPHS else 1.0) * rng.uniform(0.8, 1.2)
        bottom = baseline + below + rng.normal(0, 0.03) * CELL * style.jitter
        top, left = round(bottom - height) - MARGIN, round(cursor + gap / 2) - MARGIN
        region = canvas[top : top + drawn.shape[0], left : left + drawn.shape[1]]
        np.maximum(region, drawn[: region.shape[0], : region.shape[1]], out=region)
        glyphs.append(Glyph(character=character, x=left + MARGIN + width / 2, y=top + MARGIN + height / 2))
        cursor += width + gap
    rows, columns = inked(canvas)
    shifted = tuple(replace(glyph, x=glyph.x - columns.start, y=glyph.y - rows.start) for glyph in glyphs)
    return Writing(ink=canvas[rows, columns], glyphs=shifted)
