# SPDX-License-Identifier: Apache-2.0
"""The splits of equations: sizes, disjointness, and that they never change."""

from __future__ import annotations

import hashlib
import itertools

import numpy as np
import pytest

from chatvla_sim.math_match.equations import (
    EQUATION_SPLITS,
    all_equations,
    distractors,
    equation_split,
    equations,
    parse_equation,
)


def test_operand_range_holds_793_equations_without_negative_results() -> None:
    found = all_equations()
    assert len(found) == len(set(found)) == 793
    assert all(e.result >= 0 for e in found)


def test_splits_have_their_stated_sizes() -> None:
    assert len(equations("in_domain")) == 120
    held_out = {e.pair for e in equations("held_out")}
    everything = {e.pair for e in all_equations()}
    assert len(held_out) / len(everything) == pytest.approx(0.2, abs=0.003)


def test_no_operand_pair_is_in_two_splits_whatever_its_order() -> None:
    pairs = [{e.pair for e in equations(split)} for split in EQUATION_SPLITS]
    assert all(a.isdisjoint(b) for a, b in itertools.combinations(pairs, 2))


def test_other_order_of_a_robot_equation_belongs_to_no_trial_split() -> None:
    in_domain = set(equations("in_domain"))
    reversed_ones = [e for e in all_equations() if equation_split(e) == "reversed"]
    assert reversed_ones
    assert all(e.pair in {f.pair for f in in_domain} and e not in in_domain for e in reversed_ones)


def test_splits_are_those_of_every_other_machine() -> None:
    text = "|".join(",".join(sorted(e.text for e in equations(split))) for split in EQUATION_SPLITS)
    assert hashlib.sha256(text.encode()).hexdigest()[:16] == "077fdbbb6ef3acae"


@pytest.mark.parametrize("seed", range(5))
def test_distractors_are_distinct_wrong_answers(seed: int) -> None:
    rng = np.random.default_rng(seed)
    for equation in all_equations()[:: 40 + seed]:
        wrong = distractors(equation, 4, rng)
        assert len(set(wrong)) == 4
        assert equation.result not in wrong
        assert min(wrong) >= 0


def test_unknown_split_is_refused_with_those_that_exist() -> None:
    with pytest.raises(ValueError, match="in_domain, open_world, held_out"):
        equations("easy")


@pytest.mark.parametrize(("text", "result"), [("3+4", 7), ("12 - 5", 7), ("6×7", 42), ("6 * 7", 42)])
def test_parses_equations(text: str, result: int) -> None:
    assert parse_equation(text).result == result


@pytest.mark.parametrize("text", ["", "3", "3+", "+4", "3/4", "a+b", "3+4+5"])
def test_refuses_what_is_no_equation(text: str) -> None:
    with pytest.raises(ValueError, match="is no equation"):
        parse_equation(text)
