# SPDX-License-Identifier: Apache-2.0
"""Image-text scenes show only what they may, and say truly where things are."""

import random
import re

import numpy as np
import pytest

from chatvla_control.contracts import BoundingBox
from chatvla_eval.reasoning_text import parse_reasoning
from chatvla_policy.processing.contradiction import contradicts_itself
from chatvla_sim.math_match.equations import all_equations, equation_split, parse_equation
from chatvla_sim.math_match.fonts import font_files
from chatvla_sim.math_match.trial import INSTRUCTIONS
from chatvla_training.synthetic.compose import compose
from chatvla_training.synthetic.sources import SOURCES, open_source
from chatvla_training.synthetic.trials import image_text_equations, image_text_trial, wider_equations
from chatvla_training.text.math_phrases import Card, MathFacts, reasoning


def test_no_equation_of_a_held_out_pair_is_ever_drawn() -> None:
    shown = set(image_text_equations())
    held_out = {e.pair for e in all_equations() if equation_split(e) == "held_out"}
    assert held_out
    assert not held_out & {e.pair for e in (*shown, *wider_equations())}
    drawn = [image_text_trial(seed).equation for seed in range(300)]
    assert set(drawn) <= shown | set(wider_equations())
    assert any(equation in shown for equation in drawn)


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
        # A wide zero is hollow for 16 px.
        around = grey[max(0, y - 12) : y + 12, max(0, x - 12) : x + 12]
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


@pytest.mark.parametrize("name", sorted(set(SOURCES) - {"sheets", "labelled", "pages"}))
def test_sample_is_a_function_of_seed_index_and_draw(name: str) -> None:
    source = open_source(name, 3)
    first, again, other = source.sample(17, 2), open_source(name, 3).sample(17, 2), source.sample(18, 2)
    assert first.turns == again.turns
    assert all(np.array_equal(a, b) for a, b in zip(first.images, again.images, strict=True))
    assert (first.id, first.turns) != (other.id, other.turns)
    assert 1 <= len(first.turns) <= 5


def test_unknown_source_lists_those_that_exist() -> None:
    with pytest.raises(ValueError, match=r"no synthetic data 'scene'; there are: all, places, words, scenes, renders"):
        open_source("scene", 0)


def test_composed_answers_claim_just_what_is_true() -> None:
    """The parser that scores policies reads equation, answer, cards and choice out of every composed answer."""
    composed = 0
    for index in range(150):
        trial = image_text_trial(index)
        answers = [turn.answer for turn in open_source("scenes", 0).sample(index, 0).turns]
        for answer in (text for text in answers if trial.equation.text in text and "card" in text and len(text) > 60):
            claimed = parse_reasoning(answer)
            composed += 1
            assert claimed.operands == (trial.equation.left, trial.equation.right), answer
            assert claimed.operator == trial.equation.operator
            assert claimed.answer == trial.equation.result
            assert dict(claimed.cards) == {card.place: card.value for card in trial.cards}
            right = next(card.place for card in trial.cards if card.value == trial.equation.result)
            assert claimed.choice is not None
            assert claimed.choice.place == right
    assert composed > 15


def test_sums_come_out_right() -> None:
    allowed = {*image_text_equations(), *wider_equations()}
    for index in range(200):
        for turn in open_source("sums", 0).sample(index, 0).turns:
            asked = [parse_equation(text) for text in re.findall(r"\d+[+x-]\d+", turn.question)]
            assert asked
            assert set(asked) <= allowed
            results = [part.rpartition("=")[2] for part in re.split(r",? and |, ", turn.answer.rstrip("."))]
            assert results == [str(equation.result) for equation in asked]


def test_robot_instructions_are_no_questions() -> None:
    source = open_source("all", 1)
    asked = {turn.question for index in range(120) for turn in source.sample(index, 0).turns}
    assert len(asked) > 20
    assert not asked & set(INSTRUCTIONS)


def test_no_wording_of_a_thought_contradicts_itself_and_a_misread_card_does() -> None:
    """What a policy doubts (second look) is a thought whose chosen card is not the one that it read."""
    places = ("far left", "left", "middle", "right", "far right")
    doubted = 0
    for seed in range(300):
        rng = random.Random(seed)
        left, right = rng.randrange(1, 20), rng.randrange(1, 20)
        values = [left + right, *rng.sample([v for v in range(50) if v != left + right], 4)]
        rng.shuffle(values)
        cards = tuple(Card(value=value, place=place) for value, place in zip(values, places, strict=True))
        facts = MathFacts(left=left, operator="+", right=right, cards=cards)
        text = reasoning(facts, rng)
        assert not contradicts_itself(text), text
        before, last = text.rstrip(".").rsplit(". ", 1)
        # "63" for every answer read on a card: no card shows 63, and no sum is as large.
        misread = re.sub(rf"\b{facts.result}\b(?= \(| on the)|(?<=: ){facts.result}\b", "63", before) + f". {last}."
        doubted += contradicts_itself(misread)
    assert doubted == 300
