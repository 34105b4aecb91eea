# SPDX-License-Identifier: Apache-2.0
"""The math bench: determinism, swap, truth, pictures, honest physics."""

from __future__ import annotations

from collections.abc import Iterator

import mujoco
import numpy as np
import pytest

from chatvla_sim.bench import BenchError
from chatvla_sim.benches import bench_names, make_bench
from chatvla_sim.math_match.bench import MathMatchBench
from chatvla_sim.math_match.equations import equation_split, parse_equation
from chatvla_sim.math_match.fonts import font_files
from chatvla_sim.math_match.trial import draw_trial


@pytest.fixture(scope="module")
def bench() -> Iterator[MathMatchBench]:
    bench = MathMatchBench()
    yield bench
    bench.close()


def test_same_seed_gives_the_same_image_bytes(bench: MathMatchBench) -> None:
    images = []
    for seed in (5, 6, 5):
        bench.reset(split="open_world", seed=seed)
        images.append(bench.render("top").tobytes())
    assert images[0] == images[2] != images[1]


def test_image_is_240_by_320_rgb(bench: MathMatchBench) -> None:
    bench.reset(split="in_domain", seed=1)
    image = bench.render("top")
    assert image.shape == (240, 320, 3)
    assert image.dtype == np.uint8


def test_equation_is_written_on_the_board_and_differs_by_seed(bench: MathMatchBench) -> None:
    bench.reset(split="in_domain", seed=2)
    image = bench.render("top")[5:75, 90:230].astype(int)
    assert (image.min(axis=2) < 110).mean() > 0.02
    assert (image.min(axis=2) > 150).mean() > 0.5


def test_card_boxes_enclose_the_cards(bench: MathMatchBench) -> None:
    truth = bench.reset(split="in_domain", seed=3)
    image = bench.render("top").astype(int)
    for card in truth.objects:
        assert card.box is not None
        box = card.box
        assert 25 < box.x_max - box.x_min < 70
        assert 25 < box.y_max - box.y_min < 70
        inside = image[int(box.y_min) + 6 : int(box.y_max) - 8, int(box.x_min) + 6 : int(box.x_max) - 6]
        assert np.median(inside.max(axis=2)) > 150, "a card is bright, the table is not"


def test_all_cards_are_in_view_in_every_split(bench: MathMatchBench) -> None:
    for split in bench.splits:
        for seed in range(20):
            truth = bench.reset(split=split, seed=seed)
            for card in truth.objects:
                assert card.box is not None
                assert card.box.x_min > 0
                assert card.box.x_max < 320
                assert card.box.y_max < 240


def test_swap_moves_every_value_and_changes_nothing_else(bench: MathMatchBench) -> None:
    for seed in range(10):
        plain = bench.reset(split="open_world", seed=seed)
        swapped = bench.reset(split="open_world", seed=seed, swap=True)
        assert swapped.equation == plain.equation
        assert sorted(o.label for o in swapped.objects) == sorted(o.label for o in plain.objects)
        assert all(a.label != b.label for a, b in zip(plain.objects, swapped.objects, strict=True))
        assert [o.place for o in swapped.objects] == [o.place for o in plain.objects]


def test_trials_draw_equations_of_their_split_only() -> None:
    for seed in range(200):
        assert equation_split(draw_trial(split="in_domain", seed=seed).equation) == "in_domain"
        assert equation_split(draw_trial(split="held_out", seed=seed).equation) == "held_out"
        trial = draw_trial(split="open_world", seed=seed)
        wanted = "held_out" if "never_seen_pair" in trial.subsets else "open_world"
        assert equation_split(trial.equation) == wanted
        part = "held_out" if "never_seen_font" in trial.subsets else "open_world"
        assert trial.board_style.part == trial.card_style.part == part


def test_open_world_marks_its_never_seen_shares() -> None:
    trials = [draw_trial(split="open_world", seed=seed) for seed in range(400)]
    assert 0.14 < np.mean(["never_seen_pair" in t.subsets for t in trials]) < 0.26
    assert 0.19 < np.mean(["never_seen_font" in t.subsets for t in trials]) < 0.31


def test_given_fonts_write_board_and_cards(bench: MathMatchBench) -> None:
    fonts = [str(font_files("held_out")[0])]
    bench.reset(split="in_domain", seed=1, equation_fonts=fonts)
    assert {str(bench.trial.board_style.font), str(bench.trial.card_style.font)} == set(fonts)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"split": "nope", "seed": 1}, "in_domain, open_world, held_out"),
        ({"split": "in_domain", "seed": -1}, "negative"),
    ],
)
def test_bad_reset_is_refused_and_the_scene_stays(bench: MathMatchBench, arguments: dict, message: str) -> None:
    before = bench.reset(split="in_domain", seed=1)
    with pytest.raises(BenchError, match=message):
        bench.reset(**arguments)
    assert bench.truth().equation == before.equation


def test_truth_is_right_about_answer_and_target(bench: MathMatchBench) -> None:
    truth = bench.reset(split="open_world", seed=11)
    assert truth.answer == str(parse_equation(truth.equation).result)
    assert next(o for o in truth.objects if o.name == truth.target).label == truth.answer
    assert not truth.success
    assert [o.pose.position[1] for o in truth.objects] == sorted(
        (o.pose.position[1] for o in truth.objects), reverse=True
    )


def test_resting_scene_does_not_move(bench: MathMatchBench) -> None:
    before = bench.reset(split="open_world", seed=12)
    bench.step(1.0)
    for old, new in zip(before.objects, bench.truth().objects, strict=True):
        assert new.pose.position == pytest.approx(old.pose.position, abs=1e-3)


def test_no_weld_holds_a_card() -> None:
    model = MathMatchBench().model
    welds = (mujoco.mjtEq.mjEQ_WELD, mujoco.mjtEq.mjEQ_CONNECT)
    assert not any(kind in welds for kind in model.eq_type)


def test_unknown_names_are_refused_with_those_that_exist(bench: MathMatchBench) -> None:
    with pytest.raises(BenchError, match="math_match"):
        make_bench("chess")
    with pytest.raises(BenchError, match="arx_r5"):
        make_bench("math_match", robot="franka")
    with pytest.raises(BenchError, match="top"):
        bench.render("wrist")
    assert "math_match" in bench_names()
