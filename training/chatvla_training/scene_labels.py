# SPDX-License-Identifier: Apache-2.0
"""Say what each patch of a math scene shows: character, card place, number, row and column, and where the card lies.

Shapes: P patches of one picture, in the processor's order; M image tokens, of 2 x 2 patches each.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from chatvla_policy.processing.images import Placement
from chatvla_sim.math_match.equations import Equation
from chatvla_sim.math_match.handwriting import Glyph
from chatvla_training.synthetic.pool import Scene
from chatvla_training.synthetic.sheets import PATCH_PX, patch_characters
from chatvla_training.tied_words import PLACES, TENS

__all__ = ["TURN_RAD", "SceneLabels", "merge_order", "scene_labels", "token_aims"]

BOARD_GLYPH_PX, CARD_GLYPH_PX = 33.0, 15.0
"""Height of a digit on the board and on a card in the camera's image, roughly; how far its label reaches."""
TURN_RAD = 0.1
"""Unit of a card's turn."""


@dataclass(frozen=True, kw_only=True)
class SceneLabels:
    """Labels of one picture's patches; -1 or NaN where a label says nothing."""

    characters_P: Tensor
    """0, or 1 + the character's number in CHARACTERS."""
    places_P: Tensor
    """0, or 1 + the card's number in PLACES."""
    tens_P: Tensor
    units_P: Tensor
    rows_P: Tensor
    columns_P: Tensor
    aims_P3: Tensor
    """Right and down to the middle of the card on which a patch lies [patches], and its turn [TURN_RAD]."""
    lying_M3: Tensor
    """Of image tokens: where that middle lies, right and down from the picture's [patches], and the turn [TURN_RAD]."""


def scene_labels(scene: Scene, at: Placement, grid: Sequence[int]) -> SceneLabels:
    """Return what the patches of `scene` show; `grid` holds its images, rows and columns of patches."""
    rows, columns = grid[1], grid[2]
    aside, down = at.offset_x, at.offset_y
    marks = [replace(glyph, x=glyph.x * at.scale + aside, y=glyph.y * at.scale + down) for glyph in scene.glyphs]
    on_board = len(scene.trial.equation.text)
    heights = [(BOARD_GLYPH_PX if index < on_board else CARD_GLYPH_PX) * at.scale for index in range(len(marks))]
    characters = patch_characters(marks, heights, rows, columns)
    places = np.zeros((rows, columns), np.int64)
    tens, units = np.full((rows, columns), -1), np.full((rows, columns), -1)
    aims = np.full((rows, columns, 3), np.nan, np.float32)
    row_index, column_index = np.indices((rows, columns))
    for card, box in zip(scene.trial.cards, scene.card_boxes, strict=True):
        left, right = ((value * at.scale + aside) / PATCH_PX for value in box[0::2])
        top, bottom = ((value * at.scale + down) / PATCH_PX for value in box[1::2])
        inner = slice(max(0, round(top)), max(0, round(bottom))), slice(max(0, round(left)), max(0, round(right)))
        places[inner] = 1 + PLACES.index(card.place)
        tens[inner] = card.value // 10 if card.value > 9 else TENS - 1
        units[inner] = card.value % 10
        down_P = ((top + bottom) / 2 - 0.5) - row_index
        aside_P = ((left + right) / 2 - 0.5) - column_index
        on_card = (np.abs(down_P) <= (bottom - top) / 2) & (np.abs(aside_P) <= (right - left) / 2)
        turn_P = np.full_like(down_P, card.yaw_rad / TURN_RAD)
        aims[on_card] = np.stack([aside_P, down_P, turn_P], axis=-1)[on_card]
    for number, inner in operands(marks[:on_board], scene.trial.equation, BOARD_GLYPH_PX * at.scale):
        tens[inner] = number // 10 if number > 9 else TENS - 1
        units[inner] = number % 10
    aims_P3 = merge_order(aims)
    return SceneLabels(
        characters_P=merge_order(characters),
        places_P=merge_order(places),
        tens_P=merge_order(tens),
        units_P=merge_order(units),
        rows_P=merge_order(row_index.astype(np.int64)),
        columns_P=merge_order(column_index.astype(np.int64)),
        aims_P3=aims_P3,
        lying_M3=_lying(aims_P3, rows // 2, columns // 2),
    )


def operands(marks: Sequence[Glyph], equation: Equation, height_px: float) -> list[tuple[int, tuple[slice, slice]]]:
    """Return the numbers of an equation with the patches (rows, columns) that they stand on.

    `marks` are the glyphs of the equation's text where they are in the picture, pixels; `height_px` of a digit.
    """
    left = len(str(equation.left))
    found = []
    for number, glyphs in ((equation.left, marks[:left]), (equation.right, marks[left + 1 :])):
        xs, ys = [glyph.x for glyph in glyphs], [glyph.y for glyph in glyphs]
        edges = (min(ys) - height_px / 2, max(ys) + height_px / 2, min(xs) - height_px / 3, max(xs) + height_px / 3)
        top, bottom, first, last = (max(0, round(edge / PATCH_PX)) for edge in edges)
        found.append((number, (slice(top, bottom), slice(first, last))))
    return found


def token_aims(aims_P3: Tensor) -> Tensor:
    """Return the aims of image tokens, shape (M, 3), seen from their middles: the mean over their patches on a card."""
    aside_43 = torch.tensor([[-0.5, -0.5, 0], [0.5, -0.5, 0], [-0.5, 0.5, 0], [0.5, 0.5, 0]], device=aims_P3.device)
    return (aims_P3.view(-1, 4, 3) + aside_43).nanmean(1)


def _lying(aims_P3: Tensor, rows: int, columns: int) -> Tensor:
    """Return `token_aims` of one picture of so many tokens, seen from the picture's middle."""
    row_M, column_M = torch.from_numpy(np.indices((rows, columns)).reshape(2, -1)).float()
    middle_M3 = torch.stack([2 * column_M + 1 - columns, 2 * row_M + 1 - rows, torch.zeros_like(row_M)], dim=1)
    return token_aims(aims_P3) + middle_M3


def merge_order(labels: np.ndarray[Any, Any]) -> Tensor:
    """Return labels of patches, shape (rows, columns, ...), in the processor's order: the four of a token together."""
    rows, columns, *rest = labels.shape
    blocks = labels.reshape(rows // 2, 2, columns // 2, 2, *rest).swapaxes(1, 2)
    return torch.from_numpy(np.ascontiguousarray(blocks).reshape(rows * columns, *rest))
