# SPDX-License-Identifier: Apache-2.0
"""The parser reads paraphrases of right and wrong reasoning, and survives hostile text."""

import time

import pytest

from chatvla_eval.reasoning_text import CardChoice, ParsedReasoning, parse_reasoning
from chatvla_eval.reasoning_text.tokens import MAX_CHARACTERS

EQUATIONS = [
    ("On the whiteboard is 0+3.", (0, "+", 3)),
    ("The board shows 3 + 4 = ?", (3, "+", 4)),
    ("The equation is three plus four.", (3, "+", 4)),
    ("I see 3 × 4 on the board.", (3, "x", 4)),
    ("I see 3x4 on the board.", (3, "x", 4)),
    ("It reads 3 X 4.", (3, "x", 4)),
    ("3*4 is written on the whiteboard.", (3, "x", 4)),
    ("The problem says 3 times 4.", (3, "x", 4)),
    ("On the board, 3 multiplied by 4.", (3, "x", 4)),
    ("The board asks for 12 − 5.", (12, "-", 5)),
    ("The board asks for 12 – 5.", (12, "-", 5)),
    ("The whiteboard reads twelve minus five.", (12, "-", 5)),
    ("The sum of 3 and 4 is wanted.", (3, "+", 4)),
    ("We need the product of 6 and 7.", (6, "x", 7)),
    ("The difference between 9 and 4 is asked.", (9, "-", 4)),
    ("I have to subtract 4 from 9.", (9, "-", 4)),
    ("Take 4 from 9.", (9, "-", 4)),
    ("Multiply 3 by 4.", (3, "x", 4)),
    ("The handwritten numbers are 3 and 4. The operator is a plus sign.", (3, "+", 4)),
    ("The numbers on the board are 3 and 4, the sign is -.", (3, "-", 4)),
    ("The first number is 3, the second number is 4, the operation is multiplication.", (3, "x", 4)),
    ("The board shows twenty-one minus nineteen.", (21, "-", 19)),
    ("７＋８ is on the board.", (7, "+", 8)),
    ("On the left of the whiteboard is 3+4. The cards are white.", (3, "+", 4)),
]

ANSWERS = [
    ("0+3=3.", 3),
    ("3 + 4 equals 7.", 7),
    ("Three plus four is seven.", 7),
    ("3 times 4 makes 12.", 12),
    ("3+4, which is 7.", 7),
    ("3+4 -> 7", 7),
    ("3+4. The answer is 7.", 7),
    ("3+4. Answer: 7", 7),
    ("7 = 3 + 4", 7),
    ("The sum of 3 and 4 is 7.", 7),
    ("Adding 3 and 4 gives 7.", 7),
    ("3 plus 4. That makes 7.", 7),
    ("The answer to 3+4 is 7.", 7),
    ("The board reads 3+4, so 7 is the right answer.", 7),
    ("The result of the equation is the number 42.", 42),
    ("3+4=7, 3 is on the left.", 7),
    ("3+4=7, 3 (left), 1 (middle).", 7),
    ("The answer is 7 and 3 is on the left.", 7),
    ("3+4=7 or, in words, seven.", 7),
    ("7 times 8 is fifty-six.", 56),
    ("10 x 10 = one hundred", 100),
]

THREE = {("left", 3), ("middle", 1), ("right", 2)}
CARDS = [
    ("There are: 3 (left), 1 (middle), and 2 (right).", THREE),
    ("There are: 2 (right), 3 (left), 1 (middle).", THREE),
    ("Left: 3, middle: 1, right: 2.", THREE),
    ("left 3 middle 1 right 2", THREE),
    ("3 left, 1 middle, 2 right", THREE),
    ("- 3 (left)\n- 1 (centre)\n- 2 (right)", THREE),
    ("Left - 3; center - 1; right - 2", THREE),
    ("The card on the left shows 3, the middle card shows 1 and the card on the right shows 2.", THREE),
    ("The left card has 3, the middle one 1, the right one 2.", THREE),
    ("I see a three on the left, a one in the middle and a two on the right.", THREE),
    ("3 is on the left, 1 is in the center, and 2 is on the right-hand side.", THREE),
    ("The left, middle and right cards show 3, 1 and 2.", THREE),
    ("3, 1 and 2 are on the left, middle and right respectively.", THREE),
    ("The three cards are 3 (left), 1 (middle) and 2 (right).", THREE),
    ("On the left there is a 3. In the middle there is a 1. On the right there is a 2.", THREE),
    ("From left to right: 3, 1, 2.", {("1 from left", 3), ("2 from left", 1), ("3 from left", 2)}),
    ("The cards from right to left are 2, 1 and 3.", {("1 from right", 2), ("2 from right", 1), ("3 from right", 3)}),
    (
        "9 (far left), 3 (left), 2 (right) and 1 (far right)",
        {("far left", 9), ("left", 3), ("right", 2), ("far right", 1)},
    ),
    ("The left card is 3, the middle card is 1, the right card is 2.", THREE),
    ("The leftmost card is 9, the far-right card is 1.", {("1 from left", 9), ("far right", 1)}),
    ("The first card from the left is 9, the second card is 4.", {("1 from left", 9), ("2 from left", 4)}),
]

CHOICES = [
    ("I should pick left card.", "left", None),
    ("I should pick the right card.", "right", None),
    ("So pick up the card in the middle.", "middle", None),
    ("I will choose the card with 7.", None, 7),
    ("I will grab the 7 on the left.", "left", 7),
    ("Let me take card 7 (far right) and place it on the right of the board.", "far right", 7),
    ("The card on the left should be picked.", "left", None),
    ("The card showing seven must be chosen.", None, 7),
    ("The correct card is the left one.", "left", None),
    ("The left card is the correct one.", "left", None),
    ("The answer is on the left card.", "left", None),
    ("The right card is the left card.", "left", None),
    ("The right card is on the far right.", "far right", None),
    ("The card picked is the rightmost.", "1 from right", None),
    ("I should pick the left card with the right arm.", "left", None),
    ("I should pick the left card, not the right card.", "left", None),
    ("I should not pick the right card. I should pick the left card.", "left", None),
    ("Pick the left card instead of the right one.", "left", None),
    ("I should pick the left card, the right card shows 3.", "left", None),
    ("I should pick the left card and the right card stays.", "left", None),
    ("I should pick the left card, 3 (right), 1 (middle), 7 (left).", "left", None),
    ("I should pick the left card, 3, 1 and 7 are the numbers.", "left", None),
    ("I see 3 on the right, 1 in the middle, and the left card should be picked.", "left", None),
    ("Pick the leftmost card, the left one.", "1 from left", None),
    ("I choose 7, the one on the left.", "left", 7),
]


@pytest.mark.parametrize(("text", "expected"), EQUATIONS)
def test_reads_the_equation(text, expected):
    parsed = parse_reasoning(text)
    assert (parsed.operands, parsed.operator) == ((expected[0], expected[2]), expected[1])


@pytest.mark.parametrize(("text", "expected"), ANSWERS)
def test_reads_the_stated_answer(text, expected):
    assert parse_reasoning(text).answer == expected


@pytest.mark.parametrize(("text", "expected"), CARDS)
def test_reads_card_values_with_places(text, expected):
    assert set(parse_reasoning(text).cards) == expected


@pytest.mark.parametrize(("text", "place", "value"), CHOICES)
def test_reads_the_chosen_card(text, place, value):
    assert parse_reasoning(text).choice == CardChoice(place=place, value=value)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "I am a robot and I like cards.",
        "The board is white. There are three cards.",
        "Answer the question and pick the card with the correct answer.",
        "On the left one of the cards is upside down.",
    ],
)
def test_claims_nothing_where_nothing_is_claimed(text):
    assert parse_reasoning(text) == ParsedReasoning()


@pytest.mark.parametrize(
    ("text", "field"),
    [
        ("The board shows 3+4. The board shows 3-4.", "operator"),
        ("It is 3+4 or 3x4.", "operator"),
        ("1+2+3 is on the board.", "operands"),
        ("The board does not show 3+4.", "operands"),
        ("3+4=7. The answer is 8.", "answer"),
        ("3+4 is not 7.", "answer"),
        ("3+4=?", "answer"),
        ("The answer is 6, 7 or 8. The answer is 7.", "answer"),
        ("The answer is 7 or 8 or 9.", "answer"),
        ("The answer is 7, 8, 9.", "answer"),
        ("The board shows 3+4=7 or 8 or 9.", "answer"),
        ("The sum of 3 and 4 is 7, 8 or maybe 9.", "answer"),
        ("3+4=7. Or 8.", "answer"),
        ("3+4=7 or 8. The answer is 7.", "answer"),
        ("3+4. 7 or 8 is the result.", "answer"),
        ("Pick the left card. Pick the right card.", "choice"),
        ("Pick the left or the right card.", "choice"),
        ("I should pick the left card, the middle card, or the right card.", "choice"),
        ("I should pick the right card and the left card.", "choice"),
        ("I should pick the right card, maybe the left card too.", "choice"),
        ("I should pick the left card, the middle card and the right card, because one of them is right.", "choice"),
        ("I should pick the 7 on the left, the 3 on the right, and the 1 in the middle.", "choice"),
        ("Pick the card with 7, 3 or 1.", "choice"),
        ("Pick the right card. Or the left card.", "choice"),
        ("The left card and the right card should be picked.", "choice"),
        ("The correct card is the left one, the middle one or the right one.", "choice"),
        ("The left, middle and right cards are correct.", "choice"),
        ("Should I pick the left card?", "choice"),
        ("I should not pick the left card.", "choice"),
        ("Never choose the 7.", "choice"),
    ],
)
def test_contradictions_negations_and_questions_claim_nothing(text, field):
    assert getattr(parse_reasoning(text), field) is None


@pytest.mark.parametrize("text", ["3, 1 (left), 2", "The cards left and right show 3, 1 and 2.", "left middle right 3"])
def test_values_and_places_that_cannot_be_matched_give_no_cards(text):
    assert parse_reasoning(text).cards == ()


def test_decimals_and_negatives_are_not_the_whole_number_in_them():
    assert parse_reasoning("3+4. The answer is 7.5").answer != 7
    assert parse_reasoning("3+4. The answer is -7").answer != 7


@pytest.mark.parametrize(
    "unit",
    ["3+", "(", "left ", "9", "not pick left card ", "add 3 and ", "handwritten ", "\ufdfa", "answer ", "3 number ",
     "from left to ", "correct is left ", "picked ", " ", "\n", "one hundred ", "3 = ", "\x00", "𝟛", "the "],
)  # fmt: skip
def test_huge_hostile_text_takes_bounded_time(unit):
    text = unit * (2_000_000 // len(unit))
    started = time.perf_counter()
    parse_reasoning(text)
    assert time.perf_counter() - started < 2.0


def test_only_the_first_characters_count():
    assert parse_reasoning("a " * (MAX_CHARACTERS // 2) + "3+4=7").answer is None
