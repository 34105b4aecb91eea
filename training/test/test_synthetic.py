# SPDX-License-Identifier: Apache-2.0
"""Image-text scenes show only what they may, and say truly where things are."""

import numpy as np

from chatvla_control.contracts import BoundingBox
from chatvla_sim.math_match.equations import all_equations, equation_split
from chatvla_sim.math_match.fonts import font_files
from chatvla_training.synthetic.compose import compose
from chatvla_training.synthetic.trials import image_text_equations, image_text_trial


def test_no_equation_of_a_held_out_pair_is_ever_drawn() -> None:
    shown = set(image_text_equations())
    held_out = {e.pair for e in all_equations() if equation_split(e) == "held_out"}
    assert held_out
    assert not held_out & {e.pair for e in shown}
    assert all(image_text_trial(seed).equation in shown for seed in range(300))


def test_no_held_out_hand_is_ever_drawn() -> None:
    forbidden = set(font_files("held_out"))
    for seed in range(300):
        trial = image_text_trial(seed)
        for style in (trial.board_style, trial.card_style):
            assert style.font not in forbidden
            assert style.part != "held_out"


def test_the_answer_lies_among_the_cards() -> None:
    for seed in range(100):
        trial = image_text_trial(seed)
        assert trial.equation.result in [card.value for card in trial.cards]


def test_glyphs_are_where_the_picture_has_ink() -> None:
    trial = image_text_trial(5)
    view = compose(trial, np.random.default_rng(1), camera_jitter_m=0.0)
    assert view.image.shape == (240, 320, 3)
    text = trial.equation.text + "".join(str(card.value) for card in trial.cards)
    assert "".join(glyph.character for glyph in view.glyphs) == text
    grey = view.image.astype(float).mean(axis=2)
    for glyph in view.glyphs:
        x, y = round(glyph.x), round(glyph.y)
        around = grey[max(0, y - 8) : y + 8, max(0, x - 8) : x + 8]
        assert np.ptp(around) > 40, f"no stroke around {glyph}"


def test_card_boxes_hold_their_numbers() -> None:
    trial = image_text_trial(11)
    view = compose(trial, np.random.default_rng(2))
    digits = view.glyphs[len(trial.equation.text) :]
    boxes = [
        BoundingBox(label=str(card.value), view="top", x_min=b[0], y_min=b[1], x_max=b[2], y_max=b[3])
        for card, b in zip(trial.cards, view.card_boxes, strict=True)
    ]
    inside = [
        sum(box.x_min < glyph.x < box.x_max and box.y_min < glyph.y < box.y_max for glyph in digits) for box in boxes
    ]
    assert inside == [len(box.label) for box in boxes]
