# SPDX-License-Identifier: Apache-2.0
"""Draw small sheets covered with handwritten numbers, each patch labelled: what teaches a new vision tower to see ink.

A patch of PATCH_PX is labelled with the character whose middle lies nearest to its own, where that is near enough.
Only handwriting that image-text data may show (`trials.HANDWRITING_PARTS`).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from chatvla_sim.math_match.handwriting import CELL, Glyph, draw_style, write
from chatvla_training.synthetic.trials import HANDWRITING_PARTS

__all__ = ["CHARACTERS", "PATCH_PX", "Sheet", "draw_sheet", "patch_characters"]

DIGITS = "0123456789"
CHARACTERS = DIGITS + "+-x"
PATCH_PX = 14
SIZE_PX = 112
HEIGHT_PX = ((9.0, 20.0), (20.0, 42.0))
"""Height of a line's digits: as on cards, and as on the board."""
INK_PX = 40
HANDS = 600
"""Hands that the sheets are written in; each is drawn once in a process."""
MORE_HANDS = 2000
"""The same for sheets shown beside scenes: by then the tower knows HANDS by heart."""


@dataclass(frozen=True, kw_only=True)
class Sheet:
    """An image (H, W, 3) uint8 RGB, and per patch 0 for none or 1 + index in CHARACTERS, shape (H/14, W/14)."""

    id: str
    image: NDArray[np.uint8]
    characters: NDArray[np.int64]


@lru_cache(maxsize=MORE_HANDS)
def hand(number: int) -> dict[str, NDArray[np.uint8]]:
    """Return how hand `number` writes each character, as ink at the scale where digits are INK_PX high."""
    rng = np.random.default_rng([number, 7302])
    style = draw_style(rng, HANDWRITING_PARTS[number % len(HANDWRITING_PARTS)])
    found = {}
    for character in CHARACTERS:
        ink = write(character, style, rng).ink
        scale = INK_PX / CELL
        size = (max(2, round(ink.shape[1] * scale)), max(2, round(ink.shape[0] * scale)))
        found[character] = np.asarray(Image.fromarray(ink).resize(size, Image.Resampling.LANCZOS))
    return found


def draw_sheet(identity: str, rng: np.random.Generator, hands: int = HANDS) -> Sheet:
    """Return a sheet of lines of random digits and signs, each line in one of so many hands, dark on light."""
    paper = rng.uniform(0.55, 1.0, 3)
    colour = rng.uniform(0.0, 0.45, 3) * rng.uniform(0.1, 1.0)
    cover = Image.new("L", (SIZE_PX, SIZE_PX))
    glyphs: list[Glyph] = []
    heights: list[float] = []
    top = rng.uniform(-4, 8)
    while top < SIZE_PX - 8:
        height = float(rng.uniform(*HEIGHT_PX[int(rng.random() < 0.35)]))
        inks = hand(int(rng.integers(hands)))
        x = float(rng.uniform(-6, 30))
        gap = float(rng.uniform(0.08, 0.5))
        while x < SIZE_PX:
            character = (CHARACTERS + DIGITS)[int(rng.integers(len(CHARACTERS + DIGITS)))]
            ink = inks[character]
            scale = height / INK_PX * rng.uniform(0.9, 1.1)
            width, tall = max(2, round(ink.shape[1] * scale)), max(2, round(ink.shape[0] * scale))
            drawn = Image.fromarray(ink).resize((width, tall), Image.Resampling.BILINEAR, reducing_gap=2.0)
            middle = top + height / 2 + rng.normal(0, 0.05) * height
            cover.paste(255, (round(x), round(middle - tall / 2)), drawn)
            glyphs.append(Glyph(character=character, x=x + width / 2, y=middle))
            heights.append(height)
            x += width + height * gap * rng.uniform(0.6, 1.4) + (rng.random() < 0.15) * height
        top += height * rng.uniform(1.1, 1.7)
    share = np.asarray(cover, np.float64)[..., None] / 255
    image = (paper + share * (colour - paper)) * 255 + rng.normal(0, rng.uniform(0, 8), (SIZE_PX, SIZE_PX, 3))
    return Sheet(
        id=identity,
        image=np.clip(image, 0, 255).astype(np.uint8),
        characters=patch_characters(glyphs, heights, SIZE_PX // PATCH_PX, SIZE_PX // PATCH_PX),
    )


def patch_characters(glyphs: list[Glyph], heights_px: list[float], rows: int, columns: int) -> NDArray[np.int64]:
    """Return per patch 0 or 1 + index in CHARACTERS of the nearest character, shape (rows, columns)."""
    labels = np.zeros((rows, columns), np.int64)
    best = np.full((rows, columns), np.inf)
    middle_y, middle_x = np.meshgrid(
        (np.arange(rows) + 0.5) * PATCH_PX, (np.arange(columns) + 0.5) * PATCH_PX, indexing="ij"
    )
    for glyph, height in zip(glyphs, heights_px, strict=True):
        across = np.abs(glyph.x - middle_x) / max(0.62 * PATCH_PX, 0.34 * height)
        along = np.abs(glyph.y - middle_y) / max(0.62 * PATCH_PX, 0.5 * height)
        distance = across**2 + along**2
        nearer = (across <= 1) & (along <= 1) & (distance < best)
        best[nearer] = distance[nearer]
        labels[nearer] = 1 + CHARACTERS.index(glyph.character)
    return labels
