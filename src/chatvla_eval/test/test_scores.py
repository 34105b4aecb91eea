# SPDX-License-Identifier: Apache-2.0
"""OCR of 4 and math of 2, each criterion on its own, from the text and the scene's truth."""

import pytest

from chatvla_eval.policies import make_policy
from chatvla_eval.tasks import UnknownTaskError, task_by_name
from chatvla_eval.tasks.example_scene import GOOD_TEXT, card, scene
from chatvla_eval.tasks.math_match import operator_and_operands
from chatvla_sim.closed_loop import ClosedLoop
from chatvla_sim.math_match.bench import MathMatchBench

FULL = {"numbers": 1, "cards": 1, "operator": 2, "answer": 1, "choice": 1}


def parts(text, truth=None):
    return dict(task_by_name("math_match").score(text, truth or scene()).parts)


def test_right_text_gets_all_points():
    scored = task_by_name("math_match").score(GOOD_TEXT, scene())
    assert dict(scored.parts) == FULL
    assert dict(scored.measures) == {"ocr": 4, "math": 2}
    assert (scored.perceived, scored.computed, scored.chosen, scored.answer) == (True, True, True, "7")


@pytest.mark.parametrize(
    ("before", "after", "lost"),
    [
        ("is 3+4. 3+4", "is 3+5. 3+5", {"numbers"}),
        ("is 3+4. 3+4", "is 4+3. 4+3", {"numbers"}),
        ("is 3+4. 3+4", "is 3x4. 3x4", {"operator"}),
        ("is 3+4. 3+4", "is 3-4. 3-4", {"operator"}),
        ("=7", "=8", {"answer"}),
        ("12 (left)", "13 (left)", {"cards"}),
        ("12 (left), 7 (middle)", "7 (left), 12 (middle)", {"cards"}),
        ("12 (left), ", "", {"cards"}),
        ("and 1 (right)", "1 (right), and 5 (far right)", {"cards"}),
        ("middle card", "left card", {"choice"}),
        ("pick middle card", "pick the 7", set()),
        ("pick middle card", "pick the 12", {"choice"}),
        ("pick middle card", "pick the 7 on the left", {"choice"}),
        ("I should pick middle card.", "", {"choice"}),
    ],
)
def test_one_change_loses_one_criterion(before, after, lost):
    assert before in GOOD_TEXT
    expected = {name: 0 if name in lost else points for name, points in FULL.items()}
    assert parts(GOOD_TEXT.replace(before, after)) == expected


@pytest.mark.parametrize(
    "text",
    [
        "",
        "no idea",
        "3+4 3-4 3x4 = 1 2 3 4 5 6 7 8 9 left middle right",
        "Pick the left card. Pick the middle card. Pick the right card. The answer is 6. The answer is 7.",
    ],
)
def test_saying_everything_or_nothing_scores_nothing(text):
    assert sum(parts(text).values()) == 0


def test_ranks_and_outermost_words_mean_the_card_at_that_end():
    text = GOOD_TEXT.replace("12 (left), 7 (middle), and 1 (right)", "from left to right 12, 7 and 1")
    assert parts(text) == FULL
    last = scene(target="card_2", answer="1", equation="3 - 2")
    assert parts("3-2=1. Pick the rightmost card.", last)["choice"] == 1


def test_far_left_is_a_place_of_its_own_among_five_cards():
    places = ("far left", "left", "middle", "right", "far right")
    five = scene(objects=tuple(card(i, str(i), place) for i, place in enumerate(places)), target="card_1")
    assert parts("Pick the left card.", five)["choice"] == 1
    assert parts("Pick the far left card.", five)["choice"] == 0
    assert parts("Pick the far left card.", scene(target="card_0"))["choice"] == 0


@pytest.mark.parametrize("equation", ["3+4", "3 + 4", " 3+ 4 "])
def test_equation_of_the_bench_is_read(equation):
    assert operator_and_operands(equation) == (3, "+", 4)


def test_unknown_task_lists_those_that_exist():
    with pytest.raises(UnknownTaskError, match="math_match"):
        task_by_name("math")


def test_every_expert_text_of_the_bench_scores_full():
    bench = MathMatchBench()
    policy = make_policy("expert", task="math_match", spec=bench.spec, truth=bench.truth)
    for split in bench.splits:
        for seed in range(12):
            truth = bench.reset(split=split, seed=seed)
            policy.reset(seed)
            text = policy.infer(ClosedLoop(bench).observe(truth.instruction, ())).reasoning.text
            assert parts(text, truth) == FULL, text
    bench.close()
