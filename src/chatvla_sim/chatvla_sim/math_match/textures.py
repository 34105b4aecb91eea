# SPDX-License-Identifier: Apache-2.0
"""Draw the pictures on board and cards, and say where each character is.

Images are uint8 RGB (H, W, 3), top row first.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from chatvla_sim.math_match.geometry import BOARD_SIZE_M, CARD_SIZE_M
from chatvla_sim.math_match.handwriting import Glyph, Writing, write
from chatvla_sim.math_match.trial import Trial

__all__ = ["BOARD_TEXTURE", "CARD_TEXTURE", "Picture", "board_picture", "card_picture"]

PX_PER_M = 1500
BOARD_TEXTURE = (round(BOARD_SIZE_M[0] * PX_PER_M), round(BOARD_SIZE_M[1] * PX_PER_M))
"""Width and height [px]."""
CARD_TEXTURE = (round(CARD_SIZE_M[0] * PX_PER_M), round(CARD_SIZE_M[1] * PX_PER_M))
EQUATION_HEIGHT_M = (0.056, 0.072)
EQUATION_WIDTH_M = 0.36
EQUATION_CENTRE_M = 0.139
"""Up the slope from the lip."""
SLOT_MARGIN_M = 0.005
CARD_DIGIT_M = (0.036, 0.044)

Image3 = NDArray[np.uint8]


@dataclass(frozen=True, kw_only=True)
class Picture:
    """A picture and its characters, in the order of the text; the turn of a text is too small to count."""

    image: Image3
    glyphs: tuple[Glyph, ...]


def paint(
    image: NDArray[np.float64], ink: NDArray[np.uint8], centre: tuple[float, float], colour: NDArray[np.float64]
) -> tuple[int, int]:
    """Blend `ink` in `colour` into `image`, in place, with its middle at `centre` (x, y) px; return its left top."""
    height, width = ink.shape
    left, top = round(centre[0] - width / 2), round(centre[1] - height / 2)
    left, top = max(0, min(left, image.shape[1] - width)), max(0, min(top, image.shape[0] - height))
    region = image[top : top + height, left : left + width]
    cover = ink[: region.shape[0], : region.shape[1], None] / 255.0
    region += cover * (colour - region)
    return left, top


def placed(writing: Writing, drawn: NDArray[np.uint8], corner: tuple[int, int]) -> tuple[Glyph, ...]:
    """Glyphs of `writing` after it was scaled to `drawn` and painted with its left top at `corner`."""
    scale_y, scale_x = np.divide(drawn.shape, writing.ink.shape).tolist()
    return tuple(
        Glyph(character=glyph.character, x=corner[0] + glyph.x * scale_x, y=corner[1] + glyph.y * scale_y)
        for glyph in writing.glyphs
    )


def fit(ink: NDArray[np.uint8], height: float, width: float, turn_deg: float = 0.0) -> NDArray[np.uint8]:
    """Return `ink` turned and scaled to at most `height` by `width` px."""
    image = Image.fromarray(ink)
    if turn_deg:
        image = image.rotate(turn_deg, Image.Resampling.BICUBIC, expand=True)
    scale = min(height / ink.shape[0], width / image.width)
    size = (max(2, round(image.width * scale)), max(2, round(image.height * scale)))
    return np.asarray(image.resize(size, Image.Resampling.LANCZOS))


def board_picture(trial: Trial) -> Picture:
    """Return the board's picture: the equation, and the outline of the slot where the card belongs."""
    rng = np.random.default_rng([trial.drawing_seed, 100])
    width, height = BOARD_TEXTURE
    image = np.ones((height, width, 3)) * np.array(trial.look.board)
    slot_w, slot_h = ((CARD_SIZE_M[0] + 2 * SLOT_MARGIN_M) * PX_PER_M, (CARD_SIZE_M[1] + SLOT_MARGIN_M) * PX_PER_M)
    left, right, top = round((width - slot_w) / 2), round((width + slot_w) / 2), round(height - slot_h)
    line = 3
    outline = np.zeros((height, width), bool)
    outline[top:, left : right + 1] = True
    outline[top + line :, left + line : right + 1 - line] = False
    image[outline] = (0.15, 0.35, 0.75)
    writing = write(trial.equation.text, trial.board_style, rng)
    letter = rng.uniform(*EQUATION_HEIGHT_M) * PX_PER_M
    ink = fit(writing.ink, letter, EQUATION_WIDTH_M * PX_PER_M, float(rng.normal(0, 1.2)))
    room = (width - ink.shape[1]) / 2
    x = width / 2 + float(np.clip(rng.normal(0, 0.02) * PX_PER_M, -room, room))
    y = height - (EQUATION_CENTRE_M + float(rng.uniform(-0.006, 0.006))) * PX_PER_M
    corner = paint(image, ink, (x, y), np.array(trial.look.board_ink))
    return Picture(image=(image * 255).astype(np.uint8), glyphs=placed(writing, ink, corner))


def card_picture(trial: Trial, index: int) -> Picture:
    """Return the picture on top of card `index`: its value."""
    # Seeded by the value, not the place: a swapped card keeps its strokes.
    value = trial.cards[index].value
    rng = np.random.default_rng([trial.drawing_seed, value])
    width, height = CARD_TEXTURE
    image = np.ones((height, width, 3)) * np.array(trial.look.card)
    border = 3
    frame = np.ones((height, width), bool)
    frame[border:-border, border:-border] = False
    image[frame] *= 0.72
    writing = write(str(value), trial.card_style, rng)
    ink = fit(writing.ink, rng.uniform(*CARD_DIGIT_M) * PX_PER_M, 0.84 * width)
    shift = rng.uniform(-0.03, 0.03, 2) * width
    corner = paint(image, ink, (width / 2 + shift[0], height / 2 + shift[1]), np.array(trial.look.card_ink))
    return Picture(image=(image * 255).astype(np.uint8), glyphs=placed(writing, ink, corner))
